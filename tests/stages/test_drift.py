"""Drift over a table of values: bins in SQL, distances in Python."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gex_pipeline.shards.manifest import Manifest, published_manifest
from gex_pipeline.stages.drift import compare_measured, drift_of
from gex_pipeline.tables import Database
from tests.report.outputs import publish
from tests.validate.published import publish_two

NUM = 1000
SPREAD = "5 + 5.0 * i / 1000"  # uniform from 5 to 10
WORDS = "10 + i % 20"


def compared(quantity: str, before: str, new: str, num_new: int = NUM, num_sources: int = NUM) -> dict:
    """The row of one quantity; `before` and `new` are values as SQL over i, of so many sources each."""
    with Database() as database:
        database.execute(
            "CREATE TEMP TABLE measured AS "
            f"SELECT 'LVLT' AS granularity, '{quantity}' AS quantity, false AS is_new, ({before})::DOUBLE AS value, "
            f"hash(i % {num_sources}) AS source "
            f"FROM range({NUM}) AS numbers(i) UNION ALL "
            f"SELECT 'LVLT', '{quantity}', true, ({new})::DOUBLE, hash(i % {num_sources}) "
            f"FROM range({num_new}) AS numbers(i)"
        )
        (row,) = compare_measured(database, 0.2)
        return row


@pytest.mark.parametrize(
    ("quantity", "before", "new"),
    [
        pytest.param("duration_s", f"if(i % 2 = 0, 10, {SPREAD})", f"if(i % 2 = 0, 20, {SPREAD})", id="over a cap"),
        pytest.param("duration_s", f"if(i % 6 = 0, 10, {SPREAD})", f"if(i % 6 = 0, 20, {SPREAD})", id="over a top"),
        pytest.param("duration_s", f"if(i % 2 = 0, 5, {SPREAD})", f"if(i % 2 = 0, 1, {SPREAD})", id="under a floor"),
        pytest.param("rouge1", "0.8", "0.9", id="over a constant"),
        pytest.param("rouge1", "0.8", "0.7", id="under a constant"),
        pytest.param("num_words", "10", "12", id="over a constant of words"),
        pytest.param("num_words", "10", "5", id="under a constant of words"),
        pytest.param("num_words", f"if(i % 2 = 0, 30, {WORDS})", f"if(i % 2 = 0, 40, {WORDS})", id="over most words"),
        pytest.param("num_words", f"if(i % 2 = 0, 10, {WORDS})", f"if(i % 2 = 0, 4, {WORDS})", id="under fewest words"),
    ],
)
def test_a_shift_away_from_a_value_that_many_have_is_drift(quantity, before, new):
    """Values at a cap and values far over it once fell into one bin: 77 standard errors and no alarm."""
    row = compared(quantity, before, new)
    assert row["is_alarm"]
    assert row["psi"] > 0.2


@pytest.mark.parametrize(
    ("quantity", "values"),
    [
        ("duration_s", f"if(i % 2 = 0, 10, {SPREAD})"),
        ("duration_s", SPREAD),
        ("rouge1", "0.8"),
        ("num_words", f"if(i % 2 = 0, 10, {WORDS})"),
    ],
)
def test_values_that_stay_as_they_were_are_none(quantity, values):
    row = compared(quantity, values, values)
    assert (row["is_alarm"], row["psi"]) == (False, 0)
    few = compared(quantity, values, f"{values.replace('i ', '(19 * i) ')}", num_new=NUM // 20)
    assert not few["is_alarm"]


def test_samples_of_a_few_sources_say_no_more_than_these():
    """A thousand clips of two videos are alike; clips of as many videos are not so by chance."""
    shifted = ("duration_s", SPREAD, f"2 + {SPREAD}")
    assert compared(*shifted)["is_alarm"]
    assert not compared(*shifted, num_sources=2)["is_alarm"]


@pytest.mark.parametrize("left_out", [(), ((1, "rouge"),)])
def test_every_quantity_of_the_newest_snapshot_is_new_and_of_no_other(left_out):
    """Scores that an earlier snapshot took in another way are left out, its words and seconds are not."""
    samples = [  # granularity, snapshot, duration_s, num_words, scores
        ("LVLT", 0, 2.0, 20, "MAP {'rouge1': 0.2}"),
        ("LVLT", 1, 3.0, 30, "MAP {'rouge1': 0.3, 'rouge2': 'nan'::DOUBLE}"),
        ("LVLT", 2, 4.0, 40, "MAP {'rouge1': 0.4}"),
        ("IT", 2, 0.0, 50, "MAP {}"),
    ]
    with Database() as database:
        database.execute(
            "CREATE TEMP TABLE samples (granularity VARCHAR, source_id VARCHAR, snapshot BIGINT, duration_s DOUBLE, "
            "num_words BIGINT, scores MAP(VARCHAR, DOUBLE))"
        )
        for name, *numbers, scores in samples:
            database.execute(f"INSERT INTO samples VALUES ('{name}', 'v', {', '.join(map(str, numbers))}, {scores})")
        others, names = ([one[index] for one in left_out] for index in (0, 1))
        database.run("validation_values", newest=2, others=others, names=names)
        rows = database.query("SELECT granularity, quantity, value, is_new FROM measured")
    assert sorted(tuple(row.values()) for row in rows) == [
        ("IT", "num_words", 50, True),
        ("LVLT", "duration_s", 2, False),
        ("LVLT", "duration_s", 3, False),
        ("LVLT", "duration_s", 4, True),
        ("LVLT", "num_words", 20, False),
        ("LVLT", "num_words", 30, False),
        ("LVLT", "num_words", 40, True),
        ("LVLT", "rouge1", 0.2, False),
        *(() if left_out else (("LVLT", "rouge1", 0.3, False),)),
        ("LVLT", "rouge1", 0.4, True),
    ]


def test_both_sides_have_their_own_figures():
    row = compared("rouge1", "if(i % 2 = 0, 0.2, 0.4)", "if(i % 2 = 0, 0.5, 0.9)", num_new=10)
    sides = {side: tuple(row[f"{name}_{side}"] for name in ("num", "mean", "std")) for side in ("before", "new")}
    assert sides == {"before": (NUM, 0.3, 0.10005), "new": (10, 0.7, 0.210819)}


@pytest.mark.parametrize("is_other", [False, True])
def test_scores_of_another_rule_are_no_drift(tmp_path, is_other):
    """The first night after an upgrade was alarmed about, since its scores were of the new rule."""
    output = publish_two(tmp_path, 24, later_words=20, later_score=0.3)
    first, later = published_manifest(str(output)).snapshots
    software = first.software | ({"rule of ROUGE": "0"} if is_other else {})
    publish(output, Manifest("colours", (replace(first, software=software), later)))
    rows = drift_of(str(output), 0.2)
    assert {row["quantity"] for row in rows if row["granularity"] == "LVST"} == (
        {"num_words", "duration_s"} | (set() if is_other else {"rouge1"})
    )
    assert [row["quantity"] for row in rows if row["is_alarm"]] == ([] if is_other else ["rouge1"])
