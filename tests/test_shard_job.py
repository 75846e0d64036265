"""One shard from its plan, for real: drawn clips in; tar, losses and receipt out."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gex_pipeline import shard_job, storage
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.operations.base import Group, MediaPlace, Member, Workspace
from gex_pipeline.operations.compress_text import CompressText
from gex_pipeline.operations.integrate import join_texts
from gex_pipeline.planning import plan_node, use_clips
from gex_pipeline.receipts import read_receipt
from gex_pipeline.run_state import begin, open_run
from gex_pipeline.shard_format import make_key, text_digest
from gex_pipeline.shard_job import build_shard, make_sample
from gex_pipeline.tables import Database
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl
from tests.media.making_clips import number_of, numbers_in

CLIP_S, CLIP_FRAMES = 0.48, 12
MEDIA = {"media": {"kind": "column", "column": "file", "root": "clips"}}
FACTS = {"duration_s": 1.0, "width_px": 8, "height_px": 8, "fps": 25.0, "codec": "h264", "media_extension": "mp4"}
NUMBERS = {"a-0": 0, "a-1": 1, "a-2": 2, "a-3": 3, "a-4": 4, "b-0": 5, "b-1": 6, "b-2": 7}


@pytest.fixture
def folder(tmp_path, small_clips):
    """Clips and their metadata: five of source a, three of source b, one second apart."""
    shutil.copytree(small_clips, tmp_path / "clips")
    rows = [
        clip_row(name[0], int(name[2]), int(name[2]) + CLIP_S, f"caption of {name}", file=f"{name}.mp4")
        for name in NUMBERS
    ]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    return tmp_path


def recipe(folder, granularity=None, **more):
    lvlt = {"operation": "integrate", "from": "SVST", "min_clips": 3}
    return recipe_of(folder, MEDIA, granularity or {"SVST": {}, "LVLT": lvlt}, **more)


def build(made, granularity="LVLT"):
    job, shards = plan(open_run(made), granularity)
    return job, [build_shard(job, shard) for shard in shards]


def samples(made, granularity="LVLT", shard=0) -> list[dict]:
    return pq.read_table(f"{made.output_uri}/{granularity}/{granularity}-{shard:06d}.parquet").to_pylist()


def losses(made, granularity="LVLT", shard=0) -> dict[str, str]:
    rows = pq.read_table(f"{made.output_uri}/tables/losses/{granularity}-{shard:06d}.parquet").to_pylist()
    return {json.loads(row["row"])["text"].removeprefix("caption of "): row["reason"] for row in rows}


def media(made, sample: dict, target: Path) -> Path:
    storage.copy_range(
        f"{made.output_uri}/{sample['media_uri']}", sample["media_offset_bytes"], sample["media_size_bytes"], target
    )
    return target


def build_summaries(made, folder: Path, parent: str) -> None:
    """The shard of LVST out of the shard of its parent, with texts made up here."""
    import pyarrow as pa

    from gex_pipeline.planning import plan_node, publish_plan, use_clips
    from gex_pipeline.tables import Database

    run = open_run(made)
    summaries = [
        {
            "parent_id": row["key"],
            "text": f"short {row['source_id']}",
            "source_digest": row["text_digest"],
            "scores": '{"rouge1": 0.5}',
        }
        for row in samples(made, parent)
    ]
    pq.write_table(pa.Table.from_pylist(summaries), folder / "summaries.parquet")
    with Database(threads=1) as database:
        use_clips(database, run)
        database.view_parquet("summaries", [str(folder / "summaries.parquet")])
        plan_node(database, run, made.graph.nodes["LVST"])
        publish_plan(database, run, made.graph.nodes["LVST"])
    build_shard(shard_job.ShardJob(made, "LVST", run.layout.table("plan-LVST", 0), run.run_id), 0)


def frames(*names: str) -> list[int]:
    return [number_of(NUMBERS[name], frame) for name in names for frame in range(CLIP_FRAMES)]


def test_a_shard_is_a_tar_with_its_receipt_and_no_losses(folder):
    made = recipe(folder)
    job, (result,) = build(made)
    receipt = read_receipt(f"{made.output_uri}/LVLT/LVLT-000000.parquet")
    tar = Path(f"{made.output_uri}/LVLT/LVLT-000000.tar")
    assert (result.num_samples, result.num_lost, result.num_bytes) == (2, 0, tar.stat().st_size)
    assert result.bytes_read == sum(path.stat().st_size for path in (folder / "clips").iterdir())
    assert 0 < result.cpu_s < 60
    assert (receipt.num_samples, receipt.num_bytes, receipt.plan_digest) == (2, tar.stat().st_size, job.plan_digest)
    assert (receipt.recipe_hash, receipt.sha256) == (
        made.hash,
        __import__("hashlib").sha256(tar.read_bytes()).hexdigest(),
    )
    assert not Path(f"{made.output_uri}/tables/losses").exists()
    by_source = {sample["source_id"]: sample for sample in samples(made)}
    a = by_source["a"]
    assert a["text"] == " ".join(f"caption of a-{number}." for number in range(5))
    assert a["made_by"] == "copy"
    assert a["duration_s"] == pytest.approx(5 * CLIP_S, abs=1e-6)
    assert (a["width_px"], a["height_px"], a["codec"]) == (96, 64, "h264")
    assert a["key"] == make_key("LVLT", a["parents"])
    assert [segment["offset_s"] for segment in a["segments"]] == pytest.approx([n * CLIP_S for n in range(5)], abs=1e-6)
    assert [(s["start_s"], s["end_s"]) for s in a["segments"]] == [(n, n + CLIP_S) for n in range(5)]
    assert [segment["text"] for segment in a["segments"]] == [f"caption of a-{number}" for number in range(5)]
    assert numbers_in(media(made, a, folder / "a.mp4")) == frames("a-0", "a-1", "a-2", "a-3", "a-4")
    assert numbers_in(media(made, by_source["b"], folder / "b.mp4")) == frames("b-0", "b-1", "b-2")


def test_the_members_of_a_sample_stand_together_and_say_the_same_as_the_receipt(folder):
    made = recipe(folder)
    build(made)
    rows = {sample["key"]: sample for sample in samples(made)}
    with tarfile.open(f"{made.output_uri}/LVLT/LVLT-000000.tar") as archive:
        names = archive.getnames()
        assert names == [f"{key}.{ending}" for key in sorted(rows) for ending in ("mp4", "txt", "json")]
        for key, row in rows.items():
            text = archive.extractfile(f"{key}.txt").read().decode()
            content = json.loads(archive.extractfile(f"{key}.json").read())
            assert text == row["text"]
            assert content["segments"] == row["segments"]
            assert (content["parents"], content["recipe_hash"]) == (row["parents"], made.hash)
            assert content["text_digest"] == row["text_digest"] == text_digest(text)


def test_the_same_plan_gives_the_same_bytes(folder, tmp_path_factory):
    made = recipe(folder)
    job, _ = build(made)
    tar, receipt = (Path(f"{made.output_uri}/LVLT/LVLT-000000.{ending}") for ending in ("tar", "parquet"))
    before = (tar.read_bytes(), receipt.read_bytes())
    build_shard(job, 0)
    assert (tar.read_bytes(), receipt.read_bytes()) == before
    tar.unlink()
    receipt.unlink()
    shutil.rmtree(f"{made.output_uri}/tables")
    again, _ = build(made)
    assert (again, tar.read_bytes(), receipt.read_bytes()) == (job, *before)


def test_a_damaged_clip_costs_itself_and_the_rest_of_its_group_goes_on(folder):
    content = (folder / "clips/a-1.mp4").read_bytes()
    (folder / "clips/a-1.mp4").write_bytes(content[: len(content) // 2])
    (folder / "clips/a-3.mp4").unlink()
    made = recipe(folder)
    _, (result,) = build(made)
    assert (result.num_samples, result.num_lost) == (2, 2)
    assert json.loads(result.lost) == {"media_missing": 1, "media_truncated": 1}
    assert losses(made) == {"a-1": "media_truncated", "a-3": "media_missing"}
    a = next(sample for sample in samples(made) if sample["source_id"] == "a")
    assert [segment["text"] for segment in a["segments"]] == ["caption of a-0", "caption of a-2", "caption of a-4"]
    assert len(a["parents"]) == 3
    assert numbers_in(media(made, a, folder / "a.mp4")) == frames("a-0", "a-2", "a-4")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.write_bytes(b""), "media_empty"),
        (lambda file: file.write_bytes(b"no video at all " * 100), "not_a_video"),
        (lambda file: file.unlink(), "media_missing"),
    ],
)
def test_a_group_under_min_clips_after_rejections_is_no_sample(folder, spoil, reason):
    spoil(folder / "clips/b-1.mp4")
    made = recipe(folder)
    _, (result,) = build(made)
    assert result.num_samples == 1
    assert losses(made) == {"b-1": reason, "b-0": "too_few_clips", "b-2": "too_few_clips"}
    rows = pq.read_table(f"{made.output_uri}/tables/losses/LVLT-000000.parquet").to_pylist()
    assert {row["reason"]: row["state"] for row in rows} == {reason: "rejected", "too_few_clips": "excluded"}
    assert {row["stage"] for row in rows} == {"build"}


def test_a_clip_that_claims_more_than_its_file_holds_is_rejected(folder):
    rows = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    rows[0]["End_timestamp"] = 0.99
    rows[1]["End_timestamp"] = 1.9
    write_jsonl(folder / "clips.jsonl", rows)
    made = recipe(folder, video={"duration_tolerance_s": 0.45})
    build(made)
    assert losses(made) == {"a-0": "duration_mismatch"}


def test_a_join_that_fails_costs_its_group_and_the_clips_lost_before_keep_their_reason(folder):
    (folder / "clips/b-0.mp4").write_bytes(b"")
    lvlt = {"operation": "integrate", "from": "SVST", "min_clips": 2}
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt}, video={"force_encode": True, "timeout_s": 0.001})
    _, (result,) = build(made)
    assert (result.num_samples, result.num_lost) == (0, 8)
    found = losses(made)
    assert found.pop("b-0") == "media_empty"
    assert set(found.values()) == {"ffmpeg_timeout"}


def test_a_source_tar_that_got_shorter_since_it_was_indexed_is_not_read_any_more(folder):
    with tarfile.open(folder / "clips.tar", "w") as archive:
        for name in sorted(NUMBERS):
            archive.add(folder / f"clips/{name}.mp4", f"{name}.mp4")
    rows = [clip_row(name[0], int(name[2]), int(name[2]) + CLIP_S, f"caption of {name}", key=name) for name in NUMBERS]
    write_jsonl(folder / "clips.jsonl", rows)
    lvlt = {"operation": "integrate", "from": "SVST", "min_clips": 2}
    made = recipe_of(folder, {"media": {"kind": "tars", "uri": "*.tar"}}, {"SVST": {}, "LVLT": lvlt})
    job, _ = plan(open_run(made), "LVLT")
    content = (folder / "clips.tar").read_bytes()
    with tarfile.open(folder / "clips.tar") as archive:
        last = archive.getmember("b-2.mp4").offset_data
    (folder / "clips.tar").write_bytes(content[: last + 100])
    build_shard(job, 0)
    assert losses(made) == dict.fromkeys(NUMBERS, "media_changed")
    assert samples(made) == []


def test_a_shard_that_loses_everything_has_a_receipt_and_no_tar(folder):
    for file in (folder / "clips").iterdir():
        file.unlink()
    made = recipe(folder)
    storage.publish_bytes(b"of an abandoned run", f"{made.output_uri}/LVLT/LVLT-000000.tar")
    _, (result,) = build(made)
    assert (result.num_samples, result.num_lost) == (0, 8)
    assert read_receipt(f"{made.output_uri}/LVLT/LVLT-000000.parquet").num_samples == 0
    assert sorted(path.name for path in Path(made.output_uri, "LVLT").iterdir()) == ["LVLT-000000.parquet"]


def test_losses_of_an_abandoned_run_do_not_stay(folder):
    made = recipe(folder)
    storage.publish_bytes(b"old", f"{made.output_uri}/tables/losses/LVLT-000000.parquet")
    build(made)
    assert not Path(f"{made.output_uri}/tables/losses/LVLT-000000.parquet").exists()


def test_longer_samples_are_integrated_again_with_their_segments_at_the_right_offsets(folder):
    granularity = {
        "SVST": {},
        "LVLT": {"operation": "integrate", "from": "SVST", "min_clips": 2, "max_clips": 2},
        "LONG": {"operation": "integrate", "from": "LVLT", "min_clips": 2},
    }
    made = recipe(folder, granularity)
    build(made)
    _job, (result,) = build(made, "LONG")
    (sample,) = samples(made, "LONG")
    assert result.num_samples == 1
    assert sample["source_id"] == "a"
    parents = {row["key"]: row for row in samples(made)}
    assert [parents[key]["text"] for key in sample["parents"]] == [
        "caption of a-0. caption of a-1.", "caption of a-2. caption of a-3."
    ]  # fmt: skip
    assert [segment["text"] for segment in sample["segments"]] == [f"caption of a-{number}" for number in range(4)]
    assert [s["offset_s"] for s in sample["segments"]] == pytest.approx([n * CLIP_S for n in range(4)], abs=1e-6)
    assert [s["duration_s"] for s in sample["segments"]] == pytest.approx([CLIP_S] * 4, abs=1e-6)
    assert sample["key"] == make_key("LONG", sample["parents"])
    assert numbers_in(media(made, sample, folder / "long.mp4")) == frames("a-0", "a-1", "a-2", "a-3")
    assert sample["text"] == "caption of a-0. caption of a-1. caption of a-2. caption of a-3."


def test_the_middle_frame_of_a_clip_becomes_an_image_with_its_text(folder):
    from PIL import Image

    from tests.media.making_clips import read_number

    made = recipe(folder, {"SVST": {}, "IT": {"operation": "compress_video", "from": "SVST"}})
    (folder / "clips/b-0.mp4").write_bytes(b"")
    _, (result,) = build(made, "IT")
    assert (result.num_samples, result.num_lost) == (7, 1)
    assert losses(made, "IT") == {"b-0": "media_empty"}
    for sample in samples(made, "IT"):
        name = sample["text"].removeprefix("caption of ")
        with Image.open(media(made, sample, folder / "frame.jpg")) as image:
            import numpy as np

            number = read_number(np.asarray(image.convert("RGB")))
        assert number in (number_of(NUMBERS[name], 5), number_of(NUMBERS[name], 6))
        assert (sample["media_extension"], sample["duration_s"], sample["made_by"]) == ("jpg", 0.0, "frame")
        assert sample["segments"][0]["text"] == sample["text"]
    with tarfile.open(f"{made.output_uri}/IT/IT-000000.tar") as archive:
        assert {Path(name).suffix for name in archive.getnames()} == {".jpg", ".txt", ".json"}


def test_packed_clips_are_the_clips(folder):
    made = recipe(folder, {"SVST": {"pack": True}}, shards={"max_samples": 5})
    _, results = build(made, "SVST")
    assert [result.num_samples for result in results] == [5, 3]
    rows = samples(made, "SVST") + samples(made, "SVST", 1)
    assert {row["text"] for row in rows} == {f"caption of {name}" for name in NUMBERS}
    for row in rows[:3]:
        assert numbers_in(media(made, row, folder / "x.mp4")) == frames(row["text"].removeprefix("caption of "))


def of_two_nodes(folder):
    short = {"operation": "compress_text", "from": "LVLT", "summarizer": {"backend": "extractive"}}
    return recipe(
        folder, {"SVST": {}, "LVLT": {"operation": "integrate", "from": "SVST", "min_clips": 3}, "LVST": short}
    )


def test_a_summary_whose_digest_is_not_that_of_its_parents_text_is_planned_for_no_video(folder):
    made = of_two_nodes(folder)
    build(made)
    right, wrong = samples(made)
    rows = [
        {"parent_id": row["key"], "text": "short", "source_digest": right["text_digest"], "scores": "{}"}
        for row in (right, wrong)
    ]
    with Database(threads=1) as database:
        run = open_run(made)
        use_clips(database, run)
        pq.write_table(pa.Table.from_pylist(rows), folder / "summaries.parquet")
        database.view_parquet("summaries", [str(folder / "summaries.parquet")])
        plan_node(database, run, made.graph.nodes["LVST"])
        assert [row["id"] for row in database.query("SELECT id FROM plan")] == [right["key"]]


@pytest.mark.parametrize("of", ["the text", "another text"])
def test_a_worker_rejects_a_summary_that_was_made_from_another_text(folder, of):
    made = of_two_nodes(folder)
    member = Member("p" * 32, "a", 0.0, 1.0, "the text", MediaPlace("LVLT/LVLT-000000.tar", 512, 7), facts=FACTS)
    group = Group("k" * 32, "a", (member,), new_text="short", source_text_digest=text_digest(of))
    found = make_sample(CompressText(made, "LVST"), group, Workspace(made, "LVST", Layout(made.output_uri), folder))
    if of == "the text":
        assert (found.record.text, found.lost) == ("short", ())
    else:
        assert (found.record, [(lost.member, lost.reason) for lost in found.lost]) == (None, [(member, "no_answer")])


@pytest.mark.parametrize(("parent", "video"), [("LVLT", "embed"), ("LVLT", "reference"), ("SVST", "embed")])
def test_a_summary_meets_its_video(folder, parent, video):
    short = {"operation": "compress_text", "from": parent, "video": video, "summarizer": {"backend": "extractive"}}
    lvlt = {"operation": "integrate", "from": "SVST", "min_clips": 3}
    made = recipe(folder, {"SVST": {"pack": True}, "LVLT": lvlt, "LVST": short})
    build(made, parent)
    parents = {row["key"]: row for row in samples(made, parent)}
    build_summaries(made, folder, parent)
    rows = samples(made, "LVST")
    assert len(rows) == (2 if parent == "LVLT" else 8)
    for row in rows:
        long = parents[row["parents"][0]]
        assert (row["text"], row["source_text_digest"]) == (f"short {long['source_id']}", text_digest(long["text"]))
        assert json.loads(row["scores"]) == {"rouge1": 0.5}
        assert (row["segments"], row["duration_s"], row["key"]) == (
            long["segments"], long["duration_s"], make_key("LVST", [long["key"]])
        )  # fmt: skip
        assert row["media_uri"] == ("LVST/LVST-000000.tar" if video == "embed" else "LVLT/LVLT-000000.tar")
        assert row["made_by"] == video
        one, two = media(made, row, folder / "one.mp4"), media(made, long, folder / "two.mp4")
        assert one.read_bytes() == two.read_bytes()
    with tarfile.open(f"{made.output_uri}/LVST/LVST-000000.tar") as archive:
        endings = {Path(name).suffix for name in archive.getnames()}
        content = json.loads(archive.extractfile(f"{rows[0]['key']}.json").read())
    assert endings == ({".mp4", ".txt", ".json"} if video == "embed" else {".txt", ".json"})
    assert content["source_text_digest"] == rows[0]["source_text_digest"]
    assert ("video" in content) == (video == "reference")


@pytest.mark.parametrize("point", ["publish_file", "write_losses", "write_receipt"])
def test_killed_anywhere_before_the_receipt_there_is_no_shard_and_the_next_run_makes_it_whole(
    folder, monkeypatch, point
):
    (folder / "clips/a-1.mp4").write_bytes(b"")
    made = recipe(folder)
    job, _ = plan(open_run(made), "LVLT")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shard_job.storage if point == "publish_file" else shard_job, point, die)
        with pytest.raises(KeyboardInterrupt):
            build_shard(job, 0)
    tar, receipt = job.layout.tar("LVLT", 0), job.layout.receipt("LVLT", 0)
    assert read_receipt(receipt) is None
    assert storage.exists(tar) == (point != "publish_file")
    build_shard(job, 0)
    assert read_receipt(receipt).num_bytes == storage.info(tar).num_bytes
    assert losses(made) == {"a-1": "media_empty"}


def test_a_parent_shard_that_went_away_fails_the_shard_by_name_and_costs_no_sample(folder):
    granularity = {
        "SVST": {},
        "LVLT": {"operation": "integrate", "from": "SVST", "min_clips": 3},
        "IT": {"operation": "compress_video", "from": "LVLT"},
    }
    made = recipe(folder, granularity)
    build(made)
    tar = Path(f"{made.output_uri}/LVLT/LVLT-000000.tar")
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(GexError, match=r"LVLT-000000.tar' ends \d+ bytes before"):
        build(made, "IT")
    assert not Path(f"{made.output_uri}/IT/IT-000000.parquet").exists()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a dog runs", "it barks"], "a dog runs. it barks."),
        (["a dog runs.", "Why?", "Stop!"], "a dog runs. Why? Stop!"),
        (['he says "go."', "(it ends.)", "open ("], 'he says "go." (it ends.) open (.'),
        (["犬が走る。", "猫", "क्या।", "هل؟"], "犬が走る。 猫. क्या। هل؟"),
        (["wait…", " spaces "], "wait… spaces."),
        (['"', "x"], '". x.'),
        (
            ["ایک آدمی دوڑ رہا ہے\u06d4", "बच्चे॥", "հաչում է\u0589", "ይጮኻል።"],
            "ایک آدمی دوڑ رہا ہے\u06d4 बच्चे॥ հաչում է\u0589 ይጮኻል።",
        ),
        (["ပြေးနေသည်။", "រត់។", "བོད།", "走る｡", "wow‼"], "ပြေးနေသည်။ រត់។ བོད། 走る｡ wow‼"),
        (
            ["「こんにちは。」", "『犬\uff01』", "\uff08公園で。\uff09", "《走。》", "【猫\uff1f】"],
            "「こんにちは。」 『犬\uff01』 \uff08公園で。\uff09 《走。》 【猫\uff1f】",
        ),
        (
            ["“he goes.”", "\u2039va.\u203a", "«va»", "「犬」", "走\uff0c"],
            "“he goes.” \u2039va.\u203a «va». 「犬」. 走\uff0c.",
        ),
    ],
)
def test_captions_are_joined_with_one_space_and_a_full_stop_where_one_is_missing(texts, expected):
    assert join_texts(texts) == expected


@pytest.mark.parametrize("when", ["before the tar", "before the receipt"])
def test_a_worker_whose_run_is_over_writes_no_more(folder, monkeypatch, when):
    made = recipe(folder)
    run = begin(open_run(made))
    job, (shard,) = plan(run, "LVLT")
    tar, receipt = Path(made.output_uri, "LVLT/LVLT-000000.tar"), Path(made.output_uri, "LVLT/LVLT-000000.parquet")
    tar.parent.mkdir()
    tar.write_bytes(b"of the next run")
    publish_file = storage.publish_file

    def end_run():
        storage.publish_bytes(b'{"run_id": "the next run"}', run.layout.run_state)

    def publish(local, uri):
        publish_file(local, uri)
        end_run()

    if when == "before the tar":
        end_run()
    else:
        monkeypatch.setattr(storage, "publish_file", publish)
    with pytest.raises(GexError, match=r"is run the next run's now; nothing is written"):
        build_shard(replace(job, run_id=run.run_id), shard)
    assert not receipt.exists()
    assert (tar.read_bytes() == b"of the next run") == (when == "before the tar")
