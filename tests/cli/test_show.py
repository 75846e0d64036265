from __future__ import annotations

import json
from typing import Any

import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.cli.show import as_json, say, say_json, say_note, table, warn_of_nothing
from gex_pipeline.cli.show_shards import say_json_rows
from gex_pipeline.progress import LineProgress, printable
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


ACTING = "\x1b[2J \x9b31m \x07 \x7f \r \u202e \u2028 \u200b \ud83d"


def test_whatever_a_text_holds_it_is_only_seen(capsys, tmp_path):
    """Names out of tars, manifests and errors coloured the terminal, set its title and turned what followed around."""
    say(ACTING)
    say_note(ACTING)
    table((ACTING, "b"), [(ACTING, "first\nsecond")])
    LineProgress().note(ACTING)
    assert main(["status", str(tmp_path / ACTING.replace("\ud83d", ""))]) == 1
    out, err = capsys.readouterr()
    assert not set(ACTING) - set(" [2J31m") & set(out + err)
    assert "first" in out and "second" in out
    assert "gex: note: \ufffd[2J \ufffd31m" in err
    assert "holds no data set" in err


SCRIPTS = ("Grüße, 日本語\u3000かな", "می\u200cکنیم", "\U0001f469\u200d\U0001f680", "1\u202f234 m²\tx\ny")


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_text_in_any_script_is_seen_as_it_is(text):
    assert printable(text) == text
    assert as_json(text) == json.dumps(text, ensure_ascii=False)


def test_json_says_the_same_without_acting_on_a_terminal(capsys):
    content: dict[str, Any] = {"text": ACTING, "script": "日本語"}
    say_json(content)
    say_json_rows({"a": 1}, "rows", [content])
    out, _ = capsys.readouterr()
    first, rows = out[: out.index("{", 1)], out[out.index("{", 1) :]
    assert json.loads(first) == content
    assert json.loads(rows) == {"a": 1, "rows": [content]}
    assert not set(ACTING) - set(" [2J31m") & set(out)
    assert "日本語" in out
