"""The picture of a training: every line stands where its figures are."""

from __future__ import annotations

import json
import re

from trainer.curve import draw_curve


def log_of(folder, rows):
    file = folder / "log.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def lines_of(picture):
    found = re.findall(r'<polyline points="([^"]*)"', picture)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in found]


def test_losses_and_recall_are_drawn_to_scale_and_named(tmp_path):
    rows = [{"step": step - 1, "loss/SVST": 5.0 - step / 25, "loss/<b>": None} for step in (25, 50, 100)]
    rows += [
        {"step": step - 1, "held_out/SVST/t2v_r1_percent": step / 5, "held_out/SVST/v2t_r1_percent": 10.0}
        for step in (50, 100)
    ]
    picture = draw_curve(log_of(tmp_path, rows))
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg" ')
    loss, t2v, v2t = lines_of(picture)
    xs = [x for x, _ in loss]
    assert [round((x - 52) / (xs[-1] - 52), 2) for x in xs] == [0.25, 0.5, 1.0]
    ys = [y for _, y in loss]  # 4, 3, 1: from the top of the panel downwards
    assert ys[0] == 28.0
    assert round((ys[1] - ys[0]) / (ys[2] - ys[0]), 2) == 0.33
    assert t2v[1][1] == 28.0 < t2v[0][1] == v2t[0][1] == v2t[1][1]
    assert "SVST: 1 at the end" in picture
    assert "SVST text to video: 20 at the end" in picture


def test_a_figure_of_one_evaluation_alone_is_a_point(tmp_path):
    """A line through one point is drawn by no browser: without `every_steps` the right half was empty."""
    rows = [{"step": 0, "loss/IT": 4.0}, {"step": 9, "loss/IT": 2.0}]
    rows += [{"step": 9, "held_out/IT/t2v_r1_percent": 40.0, "held_out/IT/v2t_r1_percent": 20.0}]
    picture = draw_curve(log_of(tmp_path, rows))
    t2v, v2t = lines_of(picture)[1:]
    found = re.findall(r'<circle cx="([^"]*)" cy="([^"]*)" stroke="#3b6fb6" r="[^"]*" fill="([^"]*)">', picture)
    assert [(float(x), float(y), fill) for x, y, fill in found] == [(*t2v[0], "#3b6fb6"), (*v2t[0], "none")]
    assert t2v[0][1] == 28.0 < v2t[0][1]  # 40 is the top of the panel
    assert t2v[0][0] == 420 + 408 == v2t[0][0]  # step 10 of 10, the right edge


def test_steps_of_a_long_training_are_written_out(tmp_path):
    """A million was 1e+06 under the axis."""
    rows = [{"step": step - 1, "loss/IT": 2.0} for step in (1, 1_500_000)]
    labels = re.findall(r">([^<>]+)</text>", draw_curve(log_of(tmp_path, rows)))
    assert {"500\u202f000", "1\u202f000\u202f000", "1\u202f500\u202f000"} <= set(labels)


def test_a_log_without_losses_has_no_picture(tmp_path):
    assert draw_curve(log_of(tmp_path, [{"step": 0, "grad_norm": 1.0}])) is None


def test_names_of_granularities_are_text_in_the_picture(tmp_path):
    picture = draw_curve(log_of(tmp_path, [{"step": 0, "loss/<script>": 1.0}]))
    assert "<script>" not in picture
    assert "&lt;script&gt;: 1 at the end" in picture
