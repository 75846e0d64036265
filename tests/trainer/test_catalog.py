from __future__ import annotations

import hashlib
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gex_pipeline.errors import GexError
from gex_pipeline.shard_format import make_key
from gex_pipeline.shards.manifest import read_manifest
from tests.report.outputs import entry, publish, write_shard
from tests.trainer.outputs import add_snapshot, grouped, long_sample, make_numbered_output, settings_of, source_of
from trainer.catalog import read_catalog, source_number
from trainer.data_settings import DataSettings
from trainer.run_data import open_data


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Two snapshots, of 18 and of 3 sources."""
    folder = tmp_path_factory.mktemp("catalog")
    made = make_numbered_output(folder, 18)
    add_snapshot(made, range(18, 21), folder / "scratch")
    return made


@pytest.fixture(scope="module")
def catalog(output):
    with read_catalog(str(output)) as found:
        yield found


def all_samples(part, name):
    return [part.sample(name, index) for index in range(part.num_samples(name))]


def sources(part, name):
    return {sample.source_id for sample in all_samples(part, name)}


def test_every_published_sample_is_a_row_with_its_text_and_the_place_of_its_media(output, catalog):
    assert catalog.names == ("LVLT", "LVST", "IT")
    assert catalog.shard_sizes("LVLT").tolist() == [4, 4, 4, 4, 2, 3]
    rows = all_samples(catalog, "LVLT")
    assert {row.source_id for row in rows} == {source_of(number) for number in range(21)}
    for row in rows:
        number = int(row.source_id.removeprefix("video"))
        record, video = long_sample(number, output.parent / "scratch")
        assert (row.key, row.text, row.duration_s) == (record.key, record.text, record.duration_s)
        tar = Path(row.media_uri).read_bytes()
        assert tar[row.media_offset_bytes : row.media_offset_bytes + row.media_size_bytes] == video
        assert row.media_extension == "mp4"


def test_frames_beside_a_video_are_what_is_read(output, tmp_path):
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    receipts = sorted(copy.glob("LVLT/*.parquet"))
    with read_catalog(str(copy)) as catalog:
        before = all_samples(catalog, "LVLT")
    new = receipts[0]
    table = pq.read_table(new)
    places = [(7 * row, 70 * row) if row else (None, None) for row in range(table.num_rows)]
    for name, values in zip(("frames_offset_bytes", "frames_size_bytes"), zip(*places, strict=True), strict=True):
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(values, pa.int64()))
    pq.write_table(table, new)
    with read_catalog(str(copy)) as catalog:
        after = all_samples(catalog, "LVLT")
    for row, (offset, size) in enumerate(places[1:], start=1):
        place = {"media_offset_bytes": offset, "media_size_bytes": size, "media_extension": "frames"}
        assert after[row] == replace(before[row], **place)
    assert [*after[:1], *after[4:]] == [*before[:1], *before[4:]]


def test_fewer_stored_frames_than_are_asked_for_are_said_before_the_first_step(output, tmp_path):
    """They were repeated without a word, and counted as frames a second."""
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    for file, num in zip(sorted(copy.glob("LVLT/*.parquet")), (8, 3, 8, 8, 8), strict=False):
        table = pq.read_table(file)
        frames = [{"num": num, "short_side_px": 48, "quality": 90, "width_px": 48, "height_px": 48}] * table.num_rows
        at = table.column_names.index("frames")
        pq.write_table(table.set_column(at, "frames", pa.array(frames, table.schema.field("frames").type)), file)
    for num_frames in (3, 4):
        settings = settings_of(copy, granularities={"LVLT": {"num_frames": num_frames}, "IT": {}}, batch_size=2)
        with open_data(settings) as data:
            warnings = [line for line in data.describe() if line.startswith("warning: ")]
        few = "warning: LVLT: num_frames is 4, and samples have 3 stored frames: some come more than once. "
        assert warnings == ([f"{few}Set num_frames = 3, or store more of them"] if num_frames == 4 else [])


def test_samples_that_refer_to_a_video_elsewhere_point_there(output, catalog):
    for row in all_samples(catalog, "LVST"):
        assert Path(row.media_uri).parent == output / "LVLT"
        assert row.text == f"{row.source_id} in short"


def test_a_source_is_the_beginning_of_its_sha256_as_a_number(catalog):
    row = catalog.sample("IT", 0)
    digest = hashlib.sha256(row.source_id.encode()).digest()
    assert row.source_number == source_number(row.source_id) == int.from_bytes(digest[:8], "big", signed=True)


def test_an_earlier_snapshot_and_fewer_granularities_can_be_read_alone(output):
    with read_catalog(str(output), snapshot=0, granularities=["IT"]) as first:
        assert first.names == ("IT",)
        assert sources(first, "IT") == {source_of(number) for number in range(18)}


def test_a_catalogue_of_linked_files_outlives_the_one_that_wrote_them_and_takes_no_room(output):
    written = read_catalog(str(output))
    copy = pickle.loads(pickle.dumps(written))
    assert (written.is_own, copy.is_own) == (True, False)
    expected = {name: all_samples(written, name) for name in written.names}
    sides = {name: written.of(name).sides(0.4, 0).tolist() for name in written.names}
    linked = copy.linked()
    for name in written.names:
        assert linked.of(name).path.samefile(written.of(name).path)
    written.close()
    assert linked.is_own
    assert {name: all_samples(linked, name) for name in linked.names} == expected
    assert {name: linked.of(name).sides(0.4, 0).tolist() for name in linked.names} == sides
    with pytest.raises(FileNotFoundError):
        copy.linked()
    linked.close()
    assert not linked.folder.exists()


def test_another_process_reads_the_same_rows_and_the_folder_goes_with_the_first(output):
    catalog = read_catalog(str(output))
    before = catalog.sample("LVLT", 5)
    copy = pickle.loads(pickle.dumps(catalog))
    assert copy.sample("LVLT", 5) == before
    copy.close()
    assert catalog.folder.is_dir()  # a copy leaves it
    folder = catalog.folder
    del catalog
    assert not folder.exists()


def test_no_source_is_on_both_sides_of_the_split_and_no_sample_is_lost(catalog):
    split = catalog.split(0.3, seed=1)
    held_out = sources(split.held_out, "LVLT")
    assert 2 <= len(held_out) <= 12
    for name in catalog.names:
        assert sources(split.held_out, name) == held_out
        assert not sources(split.training, name) & held_out
        assert split.training.num_samples(name) + split.held_out.num_samples(name) == 21
        assert split.num_mixed[name] == 0
        numbers = np.add(split.training.shard_sizes(name), split.held_out.shard_sizes(name))
        assert numbers.tolist() == catalog.shard_sizes(name).tolist()


def test_the_split_stays_as_it_is_when_the_data_set_grows(output, catalog):
    with read_catalog(str(output), snapshot=0) as before:
        earlier, later = before.split(0.3, seed=1), catalog.split(0.3, seed=1)
        assert sources(earlier.held_out, "LVLT") <= sources(later.held_out, "LVLT")
        assert sources(earlier.training, "LVLT") <= sources(later.training, "LVLT")


def test_another_seed_holds_out_others_a_larger_share_holds_out_more_and_none_holds_out_nothing(catalog):
    held_out = [sources(catalog.split(share, 1).held_out, "LVLT") for share in (0.2, 0.4, 0.6)]
    assert held_out[0] <= held_out[1] <= held_out[2]
    assert sources(catalog.split(0.4, 2).held_out, "LVLT") != held_out[1]
    nothing = catalog.split(0.0)
    assert nothing.held_out.num_samples("LVLT") == 0
    assert nothing.training.num_samples("LVLT") == 21


def test_the_share_is_that_of_the_sources():
    from trainer.catalog_rows import HELD_OUT, sides_of

    side = sides_of(np.arange(20_000, dtype=np.int64) * 7919, np.arange(20_001), 0.1, seed=5)
    assert abs((side == HELD_OUT).mean() - 0.1) < 0.01


def test_a_sample_of_sources_on_both_sides_is_in_neither(tmp_path):
    """Random integration joins clips of several sources under the sample's own key."""
    output = make_numbered_output(tmp_path, 8)
    with read_catalog(str(output)) as catalog:
        split = catalog.split(0.5, seed=0)
        inside, outside = sorted(sources(split.training, "LVLT")), sorted(sources(split.held_out, "LVLT"))
    record, video = long_sample(0, tmp_path / "scratch")

    def mix(*names):
        segments = tuple(replace(record.segments[0], source_id=name) for name in names)
        key = make_key("MIX", list(names))
        return replace(record, key=key, granularity="MIX", source_id=key, segments=segments), video

    shard = write_shard(output, "MIX", [mix(*inside[:2]), mix(*outside[:2]), mix(inside[0], outside[0])])
    manifest = read_manifest(str(output))
    nodes = {**manifest.snapshots[0].granularities, "MIX": entry("MIX", "integrate", "SVST", shard)}
    publish(output, replace(manifest, snapshots=(replace(manifest.snapshots[0], granularities=nodes),)))
    with read_catalog(str(output)) as catalog:
        split = catalog.split(0.5, seed=0)
        assert split.num_mixed["MIX"] == 1
        assert [row.key for row in all_samples(split.training, "MIX")] == [mix(*inside[:2])[0].key]
        assert [row.key for row in all_samples(split.held_out, "MIX")] == [mix(*outside[:2])[0].key]


def test_the_sources_of_a_sample_are_those_of_its_clips_each_once_whatever_it_was_grouped_by(tmp_path):
    """Of a sample that was grouped by a column or at random, source_id is no source video."""
    groups = (("cats", ["a"]), ("cats", ["b", "a", "b"]), ("key", ["c", "c"]), ("own", []))
    with read_catalog(str(grouped(tmp_path, *groups))) as catalog:
        copy = pickle.loads(pickle.dumps(catalog))
        for one in (catalog, copy):
            for row in all_samples(one, "GRP"):
                source_id, names = groups[int(row.text.split()[-1])]  # the shard is in the order of the keys
                assert row.sources == tuple(sorted({source_number(name) for name in names or [source_id]}))
            assert (one.of("GRP").num_sources, one.of("LVLT").num_sources) == (2, 1)
            assert {len(row.sources) for row in all_samples(one, "LVLT")} == {1}
        assert all(row.sources == (row.source_number,) for row in all_samples(catalog, "IT"))


def test_a_data_set_that_is_not_there_is_told_in_one_sentence(tmp_path):
    with pytest.raises(GexError, match=r"no data set is published at .*nowhere': there is no dataset.json"):
        read_catalog(str(tmp_path / "nowhere"))


def test_what_is_not_published_is_told_with_what_is(output, catalog):
    with pytest.raises(GexError, match="has no granularity 'SVST'; published are LVLT, LVST, IT"):
        read_catalog(str(output), granularities=["SVST"])
    with pytest.raises(GexError, match="has no granularity 'SVST'"):
        catalog.num_samples("SVST")
    with pytest.raises(GexError, match="has no snapshot 2; published are 0, 1"):
        read_catalog(str(output), snapshot=2)
    with pytest.raises(IndexError, match="sample 21 of LVLT; there are 21"):
        catalog.sample("LVLT", 21)


def test_a_number_below_zero_is_no_sample_of_a_part_either(catalog):
    """Of a part with a selection it was the last sample, of a whole one an error."""
    part = catalog.split(0.3, seed=1).held_out
    num = part.num_samples("LVLT")
    assert part.sample("LVLT", num - 1).key == all_samples(part, "LVLT")[-1].key
    for number in (-1, num):
        with pytest.raises(IndexError, match=f"sample {number} of LVLT; there are {num}"):
            part.sample("LVLT", number)


def test_a_retired_snapshot_is_refused_and_named(tmp_path):
    output = make_numbered_output(tmp_path, 2)
    manifest = read_manifest(str(output))
    first = replace(manifest.snapshots[0], retired="2026-05-04T03:02:01+00:00")
    publish(output, replace(manifest, snapshots=(first, replace(manifest.snapshots[0], snapshot=1))))
    with pytest.raises(GexError, match=r"snapshot 0 of .* was retired on 2026-05-04: its shards are gone"):
        read_catalog(str(output), snapshot=0)
    read_catalog(str(output), snapshot=1).close()


def test_an_empty_granularity_and_a_split_that_leaves_nothing_are_refused(tmp_path):
    output = make_numbered_output(tmp_path, 2)
    manifest = read_manifest(str(output))
    nodes = dict(manifest.snapshots[0].granularities)
    nodes["LVST"] = replace(nodes["LVST"], shards=())
    publish(output, replace(manifest, snapshots=(replace(manifest.snapshots[0], granularities=nodes),)))
    with pytest.raises(GexError, match=r"granularity LVST of .* has no samples; leave it out"):
        read_catalog(str(output))
    settings = DataSettings(dataset=str(output), granularities={"LVLT": {}}, held_out_share=0.999)
    with (
        pytest.raises(GexError, match=r"held_out_share 0.999 \(of 2; 2 held out, 0 in neither part\); make it smaller"),
        open_data(settings),
    ):
        pass


def test_a_receipt_that_is_damaged_missing_or_another_ones_is_named(tmp_path):
    output = make_numbered_output(tmp_path, 5)
    receipts = sorted((output / "LVLT").glob("*.parquet"))
    receipts[0].write_bytes(receipts[1].read_bytes())
    with pytest.raises(GexError, match=r"LVLT-000000.parquet' of LVLT lists 1 samples, dataset.json says 4"):
        read_catalog(str(output))
    receipts[0].write_bytes(b"PAR1")
    with pytest.raises(GexError, match=r"the receipt '.*LVLT-000000.parquet' of LVLT cannot be read"):
        read_catalog(str(output))
    receipts[0].unlink()
    with pytest.raises(GexError, match=r"LVLT-000000.parquet' does not exist"):
        read_catalog(str(output))
