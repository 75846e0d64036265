"""Shards, keys and seeds of plans; grouping itself is in tests/sql."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gex_pipeline import ingest, storage
from gex_pipeline.errors import RecipeError
from gex_pipeline.planning import first_shard, plan_node, view_clips
from gex_pipeline.run_state import open_run
from gex_pipeline.shard_format import make_key
from gex_pipeline.shards.manifest import GranularityEntry, Manifest, ShardEntry, Snapshot, read_manifest
from gex_pipeline.stages.retire import _without
from gex_pipeline.tables import Database
from tests.making_runs import LVLT, clip_row, recipe_of, run_here, write_jsonl

PACK = {"SVST": {"pack": True}}


def planned(recipe, *names: str):
    """Plan these granularities in their order as `gex plan` does; the last one's figures, plan and left out rows."""
    with Database(threads=1) as database:
        run = open_run(recipe)
        ingest.ingest(database, run)
        view_clips(database, run)
        for name in names:
            answer = plan_node(database, run, recipe.graph.nodes[name], planned_parents=True)
        rows = database.query("SELECT * FROM plan ORDER BY shard, key, position")
        left_out = database.query("SELECT id, reason FROM excluded ORDER BY id")
    return answer, rows, left_out


def clips(folder, num_sources: int, num_clips: int, seconds: float = 10.0, **more):
    rows = [
        clip_row(f"v{source:02d}", number * seconds, (number + 1) * seconds, f"clip {number}", **more)
        for source in range(num_sources)
        for number in range(num_clips)
    ]
    return write_jsonl(folder / "clips.jsonl", rows)


def groups_of(rows) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["key"], []).append(row["id"])
    return found


def test_shards_hold_max_samples_in_the_order_of_keys(tmp_path):
    clips(tmp_path, 10, 1)
    answer, rows, _ = planned(recipe_of(tmp_path, granularity=PACK, shards={"max_samples": 4}), "SVST")
    assert [row["shard"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 2
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert (answer.num_samples, answer.num_shards, answer.num_members) == (10, 3, 10)
    assert answer.duration_s == pytest.approx(100)


@pytest.mark.parametrize(("beside", "samples_a_shard"), [(False, 4), (True, 3)])
def test_frames_count_among_the_bytes_of_a_shard(tmp_path, beside, samples_a_shard):
    frames = {"num": 2, "short_side_px": 64, "beside": beside}
    clips(tmp_path, 12, 1, seconds=10)
    for number in range(12):
        storage.publish_bytes(b"x" * 2000, f"{tmp_path}/clips/v{number:02d}-0.mp4")
    recipe = recipe_of(tmp_path, granularity={"SVST": {"pack": True, "frames": frames}}, shards={"max_bytes": 17_796})
    estimated = recipe.granularity["SVST"].frames.estimated_bytes
    assert estimated == round(2 * (64 * 64 * 16 / 9 * 0.2 + 768)) == 4449
    answer, rows, _ = planned(recipe, "SVST")
    assert answer.estimated_bytes == 12 * (estimated + (2000 if beside else 0))
    assert [row["shard"] for row in rows].count(0) == samples_a_shard


def test_shards_hold_about_max_bytes(tmp_path):
    clips(tmp_path, 12, 1, seconds=10)
    for number in range(12):
        storage.publish_bytes(b"x" * 1000, f"{tmp_path}/clips/v{number:02d}-0.mp4")
    answer, rows, _ = planned(recipe_of(tmp_path, granularity=PACK, shards={"max_bytes": 4000}), "SVST")
    assert answer.estimated_bytes == 12_000
    assert [row["shard"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4


def test_a_sample_larger_than_a_shard_has_one_of_its_own(tmp_path):
    clips(tmp_path, 3, 1)
    _, rows, _ = planned(recipe_of(tmp_path, granularity=PACK, shards={"max_bytes": 10}), "SVST")
    assert [row["shard"] for row in rows] == [0, 1, 2]


def test_keys_are_those_of_the_shard_format(tmp_path):
    clips(tmp_path, 3, 3)
    _, rows, _ = planned(recipe_of(tmp_path), "LVLT")
    groups = groups_of(rows)
    assert len(groups) == 3
    assert all(key == make_key("LVLT", ids) for key, ids in groups.items())
    assert all(
        key == make_key("SVST", ids)
        for key, ids in groups_of(planned(recipe_of(tmp_path, granularity=PACK), "SVST")[1]).items()
    )


def test_a_key_is_that_of_the_parents_in_order_whatever_the_order_of_the_rows():
    with Database(threads=1) as database:
        database.execute(
            "CREATE TEMP TABLE parts AS SELECT * "
            "FROM (VALUES ('c', 3), ('a', 1), ('d', 4), ('b', 2)) AS t(id, position), "
            "(SELECT 'v' AS group_value, 0 AS session, 0 AS part, 1.0 AS duration_s)"
        )
        database.run("plan_groups", granularity="LVLT", min_clips=4)
        assert database.value("SELECT key FROM groups") == make_key("LVLT", ["a", "b", "c", "d"])


@pytest.mark.parametrize(("first", "second", "expected"), [((0, 1, 4), (2,), 5), ((0, 1), (2,), 3), ((0, 1), (), 2)])
def test_the_number_of_a_shard_that_was_retired_is_not_given_out_again(tmp_path, first, second, expected):
    """Not even when no later snapshot has a shard of its granularity."""
    clips(tmp_path, 1, 3)
    snapshots = []
    for number, shards in enumerate((first, second)):
        listed = tuple(ShardEntry("", f"LVLT/LVLT-{shard:06d}.parquet", 1, 1, "") for shard in shards)
        entry = GranularityEntry("integrate", "SVST", "mp4", listed, {})
        snapshots.append(Snapshot(number, "", "", {}, (), {"LVLT": entry}, (), (), {}))
    manifest = Manifest("test", tuple(snapshots))
    run = open_run(recipe_of(tmp_path))
    assert first_shard(replace(run, manifest=manifest), "LVLT") == expected
    storage.publish_bytes(_without(manifest, snapshots[:1]).to_json(), run.layout.manifest)
    retired = read_manifest(run.layout.output_uri)
    assert [len(retired.shards("LVLT", number)) for number in (0, 1)] == [0, len(second)]
    assert first_shard(replace(run, manifest=retired), "LVLT") == expected


def test_a_run_that_ended_between_the_two_tables_of_a_plan_plans_again(tmp_path, monkeypatch):
    clips(tmp_path, 1, 3)
    publish_table = Database.publish_table
    recipe = recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": LVLT | {"min_clips": 4}})

    def stopped(database, name, uri, order_by=None):
        publish_table(database, name, uri, order_by)
        if name in ("plan", "excluded"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Database, "publish_table", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_here(recipe)
    account = run_here(recipe).accounts[-1]
    assert (account.num_in, account.excluded, account.difference) == (3, {"too_few_clips": 3}, 0)


def random_groups(folder, **settings):
    seed = settings.pop("seed", 0)
    lvlt = {"operation": "integrate", "from": "SVST", "by": "random", **settings}
    _, rows, left_out = planned(recipe_of(folder, granularity={"SVST": {}, "LVLT": lvlt}, seed=seed), "LVLT")
    return groups_of(rows), left_out, rows


def test_random_groups_are_the_same_twice_and_others_with_another_seed(tmp_path):
    clips(tmp_path, 5, 6)
    one, left_out, rows = random_groups(tmp_path, min_clips=4, seed=1)
    assert {len(ids) for ids in one.values()} == {4}
    assert len(one) == 7
    assert [row["reason"] for row in left_out] == ["too_few_clips"] * 2
    assert any(len({row["source_id"] for row in rows if row["key"] == key}) > 1 for key in one), "sources are mixed"
    assert random_groups(tmp_path, min_clips=4, seed=1)[0] == one
    assert set(random_groups(tmp_path, min_clips=4, seed=2)[0]) != set(one)


def test_random_groups_are_runs_of_all_clips_in_the_order_of_their_hashes(tmp_path):
    """An order by the hashes of sources mixes sources at the edges of groups only."""
    clips(tmp_path, 5, 6)
    groups, left_out, rows = random_groups(tmp_path, min_clips=4, seed=1)
    ids = sorted([row["id"] for row in rows + left_out], key=lambda clip: sha256(f"1\n{clip}".encode()).hexdigest())
    assert sorted(groups.values()) == sorted(ids[start : start + 4] for start in range(0, 28, 4))


def test_random_groups_have_max_clips_and_a_rest_of_at_least_min_clips(tmp_path):
    clips(tmp_path, 5, 4)
    groups, left_out, _ = random_groups(tmp_path, min_clips=2, max_clips=6)
    assert sorted(len(ids) for ids in groups.values()) == [2, 6, 6, 6]
    assert left_out == []


def test_random_groups_do_not_depend_on_the_order_of_the_rows(tmp_path):
    file = clips(tmp_path, 4, 4)
    one = random_groups(tmp_path, min_clips=4)[0]
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert random_groups(tmp_path, min_clips=4)[0] == one


@pytest.mark.parametrize("pack", [False, True])
def test_integrating_twice_groups_by_a_column_of_the_clips(tmp_path, pack):
    rows = [
        clip_row(f"v{source}", number, number + 1, Channel="odd" if source % 2 else "even")
        for source in range(5)
        for number in range(2)
    ]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    lvlt = {"operation": "integrate", "from": "SVST", "min_clips": 2}
    channel = {"operation": "integrate", "from": "LVLT", "by": "Channel", "min_clips": 2}
    recipe = recipe_of(tmp_path, granularity={"SVST": {"pack": pack}, "LVLT": lvlt, "CHANNEL": channel})
    names = ["SVST", "LVLT", "CHANNEL"] if pack else ["LVLT", "CHANNEL"]
    answer, found, left_out = planned(recipe, *names)
    assert left_out == []
    assert sorted((row["group_value"], row["source_id"]) for row in found) == [
        ("even", "v0"), ("even", "v2"), ("even", "v4"), ("odd", "v1"), ("odd", "v3")
    ]  # fmt: skip
    assert answer.duration_s == pytest.approx(10)


def test_a_column_to_group_by_that_is_not_there_is_said(tmp_path):
    clips(tmp_path, 2, 2, Channel="x")
    lvlt = {"operation": "integrate", "from": "SVST", "by": "Chanel"}
    with pytest.raises(
        RecipeError, match=r"by = 'Chanel' is not a column of the metadata; there are: source_id, .*Channel"
    ):
        planned(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": lvlt}), "LVLT")


@pytest.mark.parametrize("name", ["text", "Start_S", "media_uri", "num_words", "source_ID"])
def test_a_column_that_is_called_like_one_of_ours_groups_by_what_the_metadata_say(tmp_path, name):
    """It grouped by the caption, the time or the file."""
    write_jsonl(
        tmp_path / "clips.jsonl", [clip_row(f"v{n}", n, n + 1, f"c {n}", **{name: f"g{n // 2}"}) for n in range(4)]
    )
    lvlt = {"operation": "integrate", "from": "SVST", "by": name, "min_clips": 2}
    _, rows, left_out = planned(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": lvlt}), "LVLT")
    assert sorted((row["group_value"], row["text"]) for row in rows) == [(f"g{n // 2}", f"c {n}") for n in range(4)]
    assert left_out == []


def test_a_column_of_ours_is_none_to_group_by_but_the_source_id(tmp_path):
    clips(tmp_path, 1, 2, text="g")
    lvlt = {"operation": "integrate", "from": "SVST", "by": "media_uri"}
    message = "by = 'media_uri' is not a column of the metadata; there are: source_id, .*Caption, text$"
    with pytest.raises(RecipeError, match=message):
        planned(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": lvlt}), "LVLT")
    by_source = {**lvlt, "by": "source_id", "min_clips": 2}
    _, rows, _ = planned(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": by_source}), "LVLT")
    assert [row["group_value"] for row in rows] == ["v00", "v00"]


def test_an_empty_group_value_is_none(tmp_path):
    write_jsonl(
        tmp_path / "clips.jsonl", [clip_row("v1", n, n + 1, Channel=value) for n, value in enumerate(["", "", None])]
    )
    lvlt = {"operation": "integrate", "from": "SVST", "by": "Channel", "min_clips": 1}
    _, rows, left_out = planned(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": lvlt}), "LVLT")
    assert rows == []
    assert [row["reason"] for row in left_out] == ["missing_group_value"] * 3


def test_no_clips_make_an_empty_plan(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row(caption="")])
    answer, rows, _ = planned(recipe_of(tmp_path), "LVLT")
    assert (answer.num_samples, answer.num_shards, answer.estimated_bytes, rows) == (0, 0, 0, [])


@pytest.mark.parametrize(("by", "num_samples", "left_out"), [("Channel", 2, {}), ("random", 0, {"too_few_clips": 8})])
def test_samples_of_a_group_are_planned_to_bear_what_the_group_has_in_common(tmp_path, by, num_samples, left_out):
    """`gex plan` grouped them by the source of one of their clips, which the run does not."""
    rows = [clip_row(f"v{n}", second, second + 1, Channel=f"c{n % 2}") for n in range(8) for second in range(2)]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    lvlt = {"operation": "integrate", "from": "SVST", "by": by, "min_clips": 2, "max_clips": 2}
    longer = {"operation": "integrate", "from": "LVLT", "min_clips": 4}
    answer, *_ = planned(recipe_of(tmp_path, granularity={"SVST": {}, "LVLT": lvlt, "L2": longer}), "LVLT", "L2")
    assert (answer.num_parents, answer.num_samples, answer.left_out) == (8, num_samples, left_out)


def grouped(folder, by: str, min_clips: int = 2) -> tuple[dict[str, int], list[str]]:
    """How many clips a group has, and why others are in none; the metadata are what begins with n."""
    lvlt = {"operation": "integrate", "from": "SVST", "by": by, "min_clips": min_clips}
    recipe = recipe_of(folder, {"clips": "n*"}, granularity={"SVST": {}, "LVLT": lvlt})
    _, rows, left_out = planned(recipe, "LVLT")
    return dict(Counter(row["group_value"] for row in rows)), [row["reason"] for row in left_out]


def write_groups(folder, name: str, values) -> None:
    """Clips of a source each, with these values in the column ``Group``."""
    rows = [clip_row(f"{name}{number}", Group=value) for number, value in enumerate(values)]
    file = folder / name
    if file.suffix == ".jsonl":
        write_jsonl(file, rows)
    elif file.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join("" if x is None else str(x) for x in row.values()) for row in rows)]
        file.write_text("\n".join(lines) + "\n")
    else:
        table = pa.table({name: [row[name] for row in rows] for name in rows[0] if name != "Group"})
        pq.write_table(table.append_column("Group", values if isinstance(values, pa.Array) else [values]), file)


@pytest.mark.parametrize("by", ["Group", "group"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1.1", "1.1", "1.10", "1.10"], ["1.1", "1.10"]),
        (["1e10", "1e10", "10e9", "10e9"], ["1e10", "10e9"]),
        (["118341520932850938512", "118341520932850938999"] * 2, ["118341520932850938512", "118341520932850938999"]),
        (["12_3", "1_23"] * 2, ["12_3", "1_23"]),
        (["a b", "007"] * 2, ["a b", "007"]),
        ([5, -17, 5, -17], ["5", "-17"]),
    ],
)
def test_clips_are_grouped_by_what_is_written(tmp_path, by, ending, values, expected):
    """Where all values looked like numbers, 1.1 and 1.10 were one group, and two channels of 21 digits, too."""
    write_groups(tmp_path, f"n.{ending}", values)
    assert grouped(tmp_path, by) == (dict.fromkeys(expected, 2), [])


def test_numbers_of_json_are_grouped_by_all_their_digits(tmp_path):
    values = [118341520932850938512, 118341520932850938513, 7123456789012345678, 7123456789012345679, 0.5]
    write_groups(tmp_path, "n.jsonl", values * 2)
    assert grouped(tmp_path, "Group") == ({str(value): 2 for value in values}, [])


def test_a_channel_is_the_same_whether_a_night_has_whole_numbers_floats_or_text(tmp_path):
    write_groups(tmp_path, "n1.parquet", pa.array([5, 7123456789012345678]))
    write_groups(tmp_path, "n2.parquet", pa.array([5.0, None]))
    write_groups(tmp_path, "n3.csv", [5])
    write_groups(tmp_path, "n4.jsonl", ["5", "x"])
    assert grouped(tmp_path, "Group", 1) == (
        {"5": 4, "7123456789012345678": 1, "x": 1},
        ["missing_group_value"],
    )


@pytest.mark.parametrize("name", ["n.csv", "n.jsonl", "n.parquet"])
def test_what_is_no_number_is_no_group(tmp_path, name):
    """Clips of no channel were a video of the channel "nan", and one such value made the channel 5 one called 5.0."""
    values = [5.0, 5.0, float("nan"), float("nan")]
    write_groups(tmp_path, name, pa.array(values) if name.endswith("parquet") else [5, 5, *values[2:]])
    assert grouped(tmp_path, "Group") == ({"5": 2}, ["missing_group_value"] * 2)
