from __future__ import annotations

from gex_pipeline.cli.show import warn_of_nothing
from gex_pipeline.shards.manifest import Account


def test_a_stage_that_rejected_everything_is_pointed_at_and_no_other(capsys):
    accounts = [
        Account("ingest", "SVST", "rows", 35, 35),
        Account("pack", "SVST", "clips", 35, 0, rejected={"media_missing": 33, "not_a_video": 2}),
        Account("integrate", "LVLT", "clips", 35, 0, excluded={"too_few_clips": 35}),
        Account("compress_video", "IT", "clips", 35, 1, rejected={"media_missing": 34}),
        Account("compress_text", "LVST", "samples", 0, 0),
    ]
    warn_of_nothing(accounts, "s3://bucket/out")
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "warning  SVST pack: all 35 clips were rejected (33 media_missing, 2 not_a_video); "
        "'gex retry s3://bucket/out' says why, and tries them again after a repair"
    )


def test_a_single_sample_that_was_excluded_hides_no_stage_that_could_use_nothing(capsys):
    excluded, rejected = {"too_few_clips": 11}, {"not_a_video": 101}
    warn_of_nothing([Account("integrate", "SLIDES", "samples", 112, 0, excluded, rejected)], "out")
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "warning  SLIDES integrate: none of 112 samples was used (rejected: 101 not_a_video; "
        "excluded: 11 too_few_clips); 'gex retry out' says why, and tries them again after a repair"
    )


def test_rows_of_clips_that_are_known_are_used_already(capsys):
    rejected = {"missing_caption": 1}
    warn_of_nothing([Account("ingest", "SVST", "rows", 10, 0, {}, rejected, num_known=9)], "out")
    assert capsys.readouterr().out == ""
