"""Many small runs against one large one: the same samples wherever grouping allows, and here it is said where not."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.end_to_end.running import expand_to, metadata_of, write_metadata, write_recipe

NUM_CLIPS = {f"video{number:02d}": num for number, num in enumerate((4, 8, 2, 6, 4, 7, 3, 8, 5, 6, 4, 8))}
NUM_INCREMENTS = 10


@pytest.fixture(scope="module")
def by_source(corpus):
    """Rows of a dozen sources of 2 to 8 clips; their media are the clips of one source of the corpus."""
    clips = [row for row in metadata_of(corpus) if row["YoutubeID"] == "-whkHrSQl47"]

    def row_of(source, clip):
        name = f"{clip['YoutubeID']}_{clip['Start_timestamp']}_{clip['End_timestamp']}.mp4".replace(":", "-")
        return {**clip, "YoutubeID": source, "Caption": f"{clip['Caption']}, in {source}", "file": name}

    return {source: [row_of(source, clip) for clip in clips[:num]] for source, num in NUM_CLIPS.items()}


@pytest.fixture(scope="module")
def run_in_steps(running, corpus, tmp_path_factory):
    """An output to which the metadata came in steps; each run sees all that came so far."""

    def run(name, steps):
        folder = tmp_path_factory.mktemp(name)
        clips, known = folder / "clips.jsonl", []
        recipe = write_recipe(
            folder,
            f'[source]\nclips = "{clips}"\nmedia = {{ kind = "column", column = "file", root = "{corpus}/clips" }}\n'
            '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\nmin_clips = 4\n',
        )
        for rows in steps:
            known += rows
            write_metadata(clips, known)
            output = expand_to(recipe)
        return output

    return run


@pytest.fixture(scope="module")
def at_once(run_in_steps, by_source):
    return run_in_steps("at_once", [[row for rows in by_source.values() for row in rows]])


def samples_of(output):
    """By key, what a sample is: its clips in order, its text, and its media's bytes."""
    found = {}
    for row in output.samples("LVLT"):
        with (output.folder / row["media_uri"]).open("rb") as tar:
            tar.seek(row["media_offset_bytes"])
            found[row["key"]] = (tuple(row["parents"]), row["text"], tar.read(row["media_size_bytes"]))
    return found


def test_ten_runs_over_sources_that_come_whole_give_the_very_samples_of_one(at_once, run_in_steps, by_source):
    sources = list(by_source.values())
    steps = [[row for rows in sources[first::NUM_INCREMENTS] for row in rows] for first in range(NUM_INCREMENTS)]
    output = run_in_steps("whole", steps)
    assert len(samples_of(at_once)) == sum(num >= 4 for num in NUM_CLIPS.values()) == 10
    assert samples_of(output) == samples_of(at_once)
    assert len(output.manifest["snapshots"]) == NUM_INCREMENTS
    assert len(output.shards("LVLT")) == 8  # two steps brought a source of two or three clips only
    assert output.account("LVLT")["excluded"] == {"too_few_clips": 5}


def test_sources_that_come_in_parts_differ_where_the_first_part_made_a_sample_and_only_there(
    at_once, run_in_steps, by_source
):
    """A published sample is never rewritten: clips that come later form one of their own, or wait for more."""
    early = {source: rows[: len(rows) // 2 + 1] for source, rows in by_source.items()}
    late = {source: rows[len(rows) // 2 + 1 :] for source, rows in by_source.items()}
    steps = [[row for rows in part.values() for row in rows] for part in (early, late)]
    output = run_in_steps("parts", steps)
    whole = {row["source_id"]: row["parents"] for row in at_once.samples("LVLT")}
    found = defaultdict(list)
    for row in sorted(output.samples("LVLT"), key=lambda row: row["segments"][0]["start_s"]):
        found[row["source_id"]].append(row["parents"])
    for source, clips in whole.items():
        num_early = len(early[source])
        expected = [clips[:num_early]] if num_early >= 4 else [clips]  # fewer than four waited, and came whole then
        assert found.pop(source) == expected, source
    assert not found
    assert {source for source in whole if len(early[source]) >= 4} == {
        "video01", "video03", "video05", "video07", "video09", "video11",
    }  # fmt: skip
    waiting = sum(len(late[source]) for source in whole if len(early[source]) >= 4)
    assert output.account("LVLT")["excluded"] == {"too_few_clips": waiting + 5}
