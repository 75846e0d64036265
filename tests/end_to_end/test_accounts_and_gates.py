"""What must never be published: means outside the gates, and accounts that do not add up.

The gate stops a run after everything is built, which leaves an output to tamper with for real.
"""

from __future__ import annotations

import shutil
import statistics

import pyarrow.parquet as pq
import pytest

from gex_pipeline.cli.main import main
from tests.end_to_end.running import (
    NO_MODELS,
    counted_again,
    fingerprint,
    metadata_of,
    rows_of,
    source_table,
    sums,
    write_metadata,
    write_recipe,
)

BODY = """
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }
gates = {}
publication = { rouge1 = { min = 0.99 } }
"""


@pytest.fixture(scope="module")
def gated(running, corpus, tmp_path_factory):
    """A run that its gate stopped: the recipe and the exit code; one clip's file is missing."""
    folder = tmp_path_factory.mktemp("gated")
    rows = metadata_of(corpus)
    missing = {**rows[0], "Start_timestamp": "00:10:00.000", "End_timestamp": "00:10:03.000"}
    clips = write_metadata(folder / "clips.jsonl", [*rows, missing])
    recipe = write_recipe(folder, source_table(corpus, clips) + NO_MODELS + BODY)
    return recipe, main(["run", str(recipe), "--no-report"])


@pytest.fixture
def tampered(gated, tmp_path):
    """A function that runs the same recipe over a copy of the stopped output after something was done to it."""

    def run_after(tamper, look=lambda output: None) -> int:
        output = gated[0].parent / "output"
        shutil.copytree(output, tmp_path / "kept")
        try:
            tamper(output)
            code = main(["run", str(gated[0]), "--no-report"])
            look(output)
            return code
        finally:
            assert not (output / "dataset.json").exists()
            shutil.rmtree(output)
            shutil.copytree(tmp_path / "kept", output)

    return run_after


def test_a_closed_gate_publishes_nothing_and_says_by_how_much(gated, capsys):
    recipe, code = gated
    output = recipe.parent / "output"
    assert code == 4
    assert not (output / "dataset.json").exists()
    assert not list(output.glob("*/sizes.json"))
    assert len(list(output.glob("LVST/*.tar"))) == 1
    assert main(["run", str(recipe), "--no-report"]) == 4
    values = [row["value"] for row in rows_of(output / "tables/scores-LVST-000000.parquet") if row["score"] == "rouge1"]
    mean = statistics.fmean(values)
    assert f"not published: LVST mean rouge1 {mean:.4f} is under 0.99 by {0.99 - mean:.4f}" in capsys.readouterr().err


def drop_receipt_row(output):
    path = output / "LVLT/LVLT-000000.parquet"
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(1).replace_schema_metadata(table.schema.metadata), path)


def drop_losses(output):
    (path,) = (output / "tables/losses").glob("LVLT-*.parquet")
    path.unlink()


def double_losses(output):
    (path,) = (output / "tables/losses").glob("LVLT-*.parquet")
    table = pq.ParquetFile(path).read()
    changed = table.set_column(table.schema.get_field_index("id"), "id", [[used_clip(output)]])
    pq.write_table(changed, path)


def used_clip(output):
    return rows_of(output / "LVLT/LVLT-000000.parquet")[0]["parents"][0]


def drop_excluded(output):
    path = output / "tables/excluded-LVLT-000000.parquet"
    table = pq.ParquetFile(path).read()
    assert len(table) == 2
    pq.write_table(table.slice(1), path)


def drop_clip_from_plan_and_receipt(output):
    """The worst case: a clip that plan and shard have both forgotten."""
    plan = output / "tables/plan-LVLT-000000.parquet"
    table = pq.ParquetFile(plan).read()
    victim = used_clip(output)
    pq.write_table(table.filter([value != victim for value in table["id"].to_pylist()]), plan)
    path = output / "LVLT/LVLT-000000.parquet"
    receipts = pq.ParquetFile(path).read()
    parents = [[one for one in row if one != victim] for row in receipts["parents"].to_pylist()]
    changed = receipts.set_column(
        receipts.schema.get_field_index("parents"), receipts.schema.field("parents"), [parents]
    )
    pq.write_table(changed.replace_schema_metadata(receipts.schema.metadata), path)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (drop_receipt_row, "the accounts of LVLT do not add up"),
        (drop_losses, "the accounts of LVLT do not add up"),
        (double_losses, "LVLT: 1 parents are accounted for twice"),
        (drop_excluded, "the accounts of LVLT do not add up"),
        (drop_clip_from_plan_and_receipt, "the accounts of LVLT do not add up"),
    ],
)
def test_accounts_that_do_not_add_up_fail_the_run(tampered, capsys, tamper, message):
    assert tampered(tamper) == 3
    error = capsys.readouterr().err
    assert message in error
    assert "Nothing is published" in error


def test_a_shard_that_lost_its_end_is_built_again(gated, tampered):
    """Every shard of the stopped run is there; one of them is cut short on the disk."""
    output = gated[0].parent / "output"
    before = sums(output)
    seen = {}

    def cut(folder):
        tar = folder / "LVLT/LVLT-000000.tar"
        with tar.open("r+b") as file:
            file.truncate(tar.stat().st_size // 2)
        seen.update(sums(folder))

    tampered(cut, lambda folder: seen.update(after=sums(folder)))
    assert seen["LVLT/LVLT-000000.tar"] != before["LVLT/LVLT-000000.tar"]
    assert seen["after"] == before


def test_opening_the_gate_goes_on_where_the_run_was_stopped(gated, capsys):
    """A recipe changed after a stop once found the account of the run before and no clips. Publishes: stays last."""
    recipe = gated[0]
    output = recipe.parent / "output"
    before = fingerprint(output)
    text = recipe.read_text()
    recipe.write_text(text.replace("0.99", "0.05"))
    try:
        code = main(["run", str(recipe), "--no-report"])
        assert code == 0, capsys.readouterr().err
        done = counted_again(output)
        assert len(done.samples("LVST")) == 4
        assert done.reasons("LVLT") == {"media_missing": 1}
        assert before.keys() - fingerprint(output).keys() == {
            path for path in before if path.startswith(("tables/parts/", "tables/losses/"))
        }
    finally:
        recipe.write_text(text)
