"""What another process's error comes to in a sentence."""

from __future__ import annotations

from gex_pipeline.errors import GexError, innermost

TOLD = """ray::MapWorker.submit() (pid=1)
  File "shard_job.py", line 3, in build
    raise OSError("disk")
OSError: disk

The above exception was the direct cause of the following exception:

ray::Builder.__call__() (pid=1, ip=10.0.0.7)
pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, max_model_len (100000) is greater than the derived one
"""


def test_of_several_traces_the_last_error_is_told_with_what_it_says_in_one_line():
    assert innermost(GexError(TOLD)) == (
        "pydantic_core.ValidationError: 1 validation error for ModelConfig "
        "Value error, max_model_len (100000) is greater than the derived one"
    )


def test_where_no_error_is_named_everything_is_told_and_nothing_is_nothing():
    assert innermost(GexError("The actor died.\n\n\tactor_id: 7\n")) == "The actor died. actor_id: 7"
    assert innermost(GexError("")) == ""


def test_what_is_told_has_an_end():
    assert innermost(GexError("ValueError: " + "x" * 5000)) == "ValueError: " + "x" * 588
