from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from gex_pipeline.report.build import build_report
from gex_pipeline.report.samples import _jpeg_uri, load_media, poster_uri
from gex_pipeline.shards.manifest import Manifest, read_manifest
from tests.report import outputs
from tests.report.page import Page


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")


def rows_of(content: dict[str, Any], granularity: str) -> list[dict[str, Any]]:
    return [item["row"] for item in content["samples"] if item["row"]["granularity"] == granularity]


def test_samples_are_spread_over_sources(content: dict[str, Any]) -> None:
    assert {row["source_id"] for row in rows_of(content, "LVLT")} == {"alpha", "beta"}
    assert {row["source_id"] for row in rows_of(content, "IT")} == {"alpha", "beta"}


def test_a_video_that_is_too_large_is_shown_as_frames(output_uri: str, content: dict[str, Any]) -> None:
    row = next(row for row in rows_of(content, "LVLT") if row["source_id"] == "alpha")
    media = load_media(output_uri, row, cap_bytes=10)
    assert media.kind == "strip"
    assert "too large" in media.note
    strip = picture(media.uri)
    colours = [strip.getpixel((strip.width * (2 * n + 1) // 8, strip.height // 2)) for n in range(4)]
    assert [max(range(3), key=lambda channel: colour[channel]) for colour in colours] == [0, 1, 2, 2]


def test_a_video_is_embedded_up_to_its_share_of_the_page(output_uri: str, content: dict[str, Any]) -> None:
    row = rows_of(content, "LVLT")[0]
    kinds = [load_media(output_uri, row, row["media_size_bytes"] + more_bytes).kind for more_bytes in (-1, 0)]
    assert kinds == ["strip", "video"]


def test_a_codec_that_browsers_do_not_play_is_shown_as_frames(output_uri: str, content: dict[str, Any]) -> None:
    row = {**rows_of(content, "LVLT")[0], "codec": "mpeg4"}
    media = load_media(output_uri, row, cap_bytes=10**9)
    assert (media.kind, "browsers do not play mpeg4" in media.note) == ("strip", True)


def test_a_large_picture_is_shown_smaller(output_uri: str, content: dict[str, Any]) -> None:
    media = load_media(output_uri, rows_of(content, "IT")[0], cap_bytes=10)
    assert (media.kind, media.note) == ("image", "shown smaller than it is")
    assert max(picture(media.uri).size) <= 640


def test_a_video_that_cannot_be_decoded_is_said_to_be_so(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, summaries=False, images=False)
    broken = [(record, b"not a video at all" * 100) for record, _ in outputs.joined_samples()]
    outputs.write_shard(Path(uri), "LVLT", broken)
    page = Page(Path(build_report(uri)).read_text())
    assert "its video cannot be shown" in page.text
    assert not Path(uri, "report", "contact-sheet.png").exists()


def damaged_pictures(tmp_path: Path) -> str:
    """An output whose pictures lost the header of the first and the end of the second after they were published."""
    uri = outputs.make_output(tmp_path, summaries=False)
    (tar,) = Path(uri, "IT").glob("*.tar")
    first, second, *_ = pq.read_table(tar.with_suffix(".parquet")).to_pylist()
    content = bytearray(tar.read_bytes())
    content[first["media_offset_bytes"] : first["media_offset_bytes"] + 16] = bytes(16)
    middle = second["media_offset_bytes"] + second["media_size_bytes"] // 2
    content[middle : second["media_offset_bytes"] + second["media_size_bytes"]] = bytes(
        second["media_size_bytes"] - second["media_size_bytes"] // 2
    )
    tar.write_bytes(content)
    return uri


def test_a_damaged_picture_is_said_to_be_so_and_ends_no_report(tmp_path: Path) -> None:
    uri = damaged_pictures(tmp_path)
    page = Page(Path(build_report(uri)).read_text())
    assert "its picture cannot be shown: undecodable" in page.text
    row, *_, sound = pq.read_table(Path(uri, "IT", "IT-000000.parquet")).to_pylist()
    for cap_bytes in (10, 10**6):
        media = load_media(uri, row, cap_bytes)
        assert (media.kind, media.uri) == ("none", "")
    assert poster_uri(uri, row) == ""
    assert poster_uri(uri, sound).startswith("data:image/jpeg")


def test_a_strip_wider_than_jpeg_can_hold_is_made_smaller() -> None:
    wide = np.zeros((2, 40_000, 3), np.uint8)
    assert picture(_jpeg_uri(iter([wide, wide]))).width == 8192


def test_a_referenced_video_is_read_from_its_parents_shard(tmp_path: Path) -> None:
    uri = outputs.make_output(tmp_path, images=False)
    places = {row["key"]: row for row in pq.read_table(Path(uri, "LVLT", "LVLT-000000.parquet")).to_pylist()}
    pointing = []
    for record, _ in outputs.joined_samples():
        names = ("media_uri", "media_offset_bytes", "media_size_bytes")
        place = {name: places[record.key][name] for name in names}
        pointing.append((replace(outputs.summary_of(record, {}), made_by="reference", **place), b""))
    shard = outputs.write_shard(Path(uri), "LVST", pointing)
    manifest = read_manifest(uri)
    assert manifest is not None
    (entry,) = manifest.snapshots
    nodes = {**entry.granularities, "LVST": replace(entry.granularities["LVST"], shards=(shard,))}
    outputs.publish(Path(uri), Manifest(manifest.name, (replace(entry, granularities=nodes),)))
    page = Page(Path(build_report(uri)).read_text())
    videos = [video["src"] for video in page.of("video")]
    assert len(videos) == 4
    assert len(set(videos)) == 2
    assert "pointing into the parent" in page.text
