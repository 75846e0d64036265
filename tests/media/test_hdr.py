"""Drawn PQ and HLG clips: what white and greys become where clips are encoded anew."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from gex_pipeline.media import hdr
from gex_pipeline.media.encode import common_form, encode_pieces
from gex_pipeline.media.ffmpeg import ffmpeg_binary, filters_of
from gex_pipeline.media.frames import frame_at
from gex_pipeline.media.join import Piece, Probed, probe_pieces
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.shards.joints import ENCODED_BOUND, picture_difference
from tests.media.making_clips import Make, draw_hdr, make_clip

SIZE_PX = (128, 64)
BT2020, UNSPECIFIED = 9, 2
SETTINGS = VideoSettings(preset="ultrafast", crf=8)
# Ten bits, of the range from 64 to 940: what BT.2408 gives for 203 cd/m² and for a grey card in its light.
WHITE, GREY = {hdr.PQ: 573, hdr.HLG: 721}, {hdr.PQ: 395, hdr.HLG: 397}


def encoded(path: Path, folder: Path) -> Path:
    """The only piece, encoded anew."""
    folder.mkdir()
    (piece,) = probe_pieces([Piece(path, None, None)], SETTINGS)
    assert isinstance(piece, Probed), piece
    (probe,) = encode_pieces([piece], folder, SETTINGS)
    assert (probe.width_px, probe.height_px) == (common_form(piece.probe, SETTINGS).width_px, SIZE_PX[1])
    return probe.path


def colours(path: Path, num: int) -> np.ndarray:
    picture = frame_at(path, 0.1).astype(int)
    return picture[32, [(2 * column + 1) * SIZE_PX[0] // (2 * num) for column in range(num)]]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
@pytest.mark.parametrize("matrix", [BT2020, UNSPECIFIED])
def test_white_and_grey_of_hdr_are_white_and_grey(tmp_path, transfer, ending, matrix):
    columns = [(WHITE[transfer], 512, 512), (GREY[transfer], 512, 512), (64, 512, 512), (940, 512, 512)]
    path = encoded(draw_hdr(tmp_path / f"hdr.{ending}", transfer, columns, matrix=matrix), tmp_path / "out")
    white, grey, black, brightest = colours(path, 4)
    assert white == pytest.approx([216] * 3, abs=4)  # relabelled, it was 146 of PQ
    assert grey == pytest.approx([120] * 3, abs=15)
    assert black.max() <= 2
    assert brightest.min() >= 250
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert (frame.color_trc, frame.color_primaries, frame.colorspace) == (1, 1, 1)


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_a_picture_is_converted_as_the_filters_do_it(tmp_path, transfer):
    columns = [(WHITE[transfer], 512, 512), (450, 470, 600), (500, 560, 440), (600, 480, 500), (300, 540, 490)]
    columns = [*columns, (880, 512, 512), (400, 430, 560), (200, 512, 512)]
    source = draw_hdr(tmp_path / "hdr.mp4", transfer, columns)
    found = colours(encoded(source, tmp_path / "out"), len(columns))
    converted = hdr.as_sdr(frame_at(source, 0.1), transfer)
    expected = converted[32, 8::16].astype(int)
    assert np.abs(found - expected).max() <= 12, (found.tolist(), expected.tolist())
    assert np.abs(found - expected).mean() <= 3
    relabelled = picture_difference(frame_at(tmp_path / "out" / "000000.mp4", 0.1), frame_at(source, 0.1))
    assert relabelled > ENCODED_BOUND  # so verify would tell of it


def test_sdr_clips_meet_none_of_it(tmp_path):
    assert hdr.sdr_filters(make_clip(tmp_path / "plain.mp4", 1)) == []
    ten_bits = Make(codec="libx265", options={"preset": "ultrafast"}, pix_fmt="yuv420p10le")
    assert hdr.sdr_filters(make_clip(tmp_path / "ten.mp4", 1, ten_bits)) == []


def test_an_ffmpeg_without_zimg_keeps_the_values(tmp_path, monkeypatch):
    source = draw_hdr(tmp_path / "pq.mp4", hdr.PQ, [(WHITE[hdr.PQ], 512, 512)])
    poor = tmp_path / "poor-ffmpeg"
    real = ffmpeg_binary()
    assert {"zscale", "tonemap"} <= filters_of(real)
    list_less = f'*-filters) "{real}" "$@" | grep -v zscale;;'
    poor.write_text(f'#!/bin/sh\ncase "$*" in {list_less} *) exec "{real}" "$@";; esac\n')
    poor.chmod(0o755)
    monkeypatch.setenv("GEX_FFMPEG", str(poor))
    assert "zscale" not in filters_of(str(poor))
    assert "scale" in filters_of(str(poor))
    assert colours(encoded(source, tmp_path / "out"), 1)[0] == pytest.approx([146] * 3, abs=3)
