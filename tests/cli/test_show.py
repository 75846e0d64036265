from __future__ import annotations

from gex_pipeline.cli.show import warn_of_nothing
from gex_pipeline.shards.manifest import Account


def test_a_stage_that_rejected_everything_is_pointed_at_and_no_other(capsys):
    accounts = [
        Account("ingest", "SVST", "rows", 35, 35),
        Account("pack", "SVST", "clips", 35, 0, rejected={"media_missing": 33, "not_a_video": 2}),
        Account("integrate", "LVLT", "clips", 35, 0, excluded={"too_few_clips": 1}, rejected={"media_missing": 34}),
        Account("compress_text", "LVST", "samples", 0, 0),
    ]
    warn_of_nothing(accounts, "s3://bucket/out")
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "warning  SVST pack: all 35 clips were rejected (33 media_missing, 2 not_a_video); "
        "'gex retry s3://bucket/out' says why, and tries them again after a repair"
    )
