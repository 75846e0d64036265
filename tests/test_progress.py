from __future__ import annotations

import io

from gex_pipeline.progress import LineProgress, Progress, progress, shown_by


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_listener_progress_is_silent(capsys):
    progress().stage("x", 5, "samples")
    progress().advance(1)
    progress().note("y")
    assert type(progress()) is Progress
    assert capsys.readouterr() == ("", "")


def test_in_a_log_each_stage_ends_with_what_it_did():
    out = io.StringIO()
    with shown_by(LineProgress(out)):
        progress().stage("LVLT build", 3, "samples")
        progress().advance(1)
        progress().advance(2)
        progress().stage("publish", None, "")
        progress().note("a word")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("LVLT build") and "3 samples in " in lines[0]
    assert any(line == "a word" for line in lines)
    assert lines[-1].startswith("publish")
    assert "\r" not in out.getvalue()
    assert type(progress()) is Progress, "the listener is gone after the block"


def test_on_a_terminal_the_line_is_redrawn_with_what_is_left():
    out = Terminal()
    listener = LineProgress(out)
    listener._every_s = 0.0
    with shown_by(listener):
        progress().stage("build", 4, "samples")
        progress().advance(1)
    assert "\r" in out.getvalue()
    assert "1 of 4 samples" in out.getvalue()
    assert " left" in out.getvalue()


def test_the_line_is_ended_also_when_the_block_fails():
    out = io.StringIO()
    try:
        with shown_by(LineProgress(out)):
            progress().stage("build", 4, "samples")
            raise ValueError
    except ValueError:
        pass
    assert out.getvalue().endswith("\n")
    assert type(progress()) is Progress
