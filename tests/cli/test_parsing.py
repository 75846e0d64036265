"""Numbers of the command line: what is taken, and what is said of what is not."""

from __future__ import annotations

import argparse

import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.cli.parsing import number, whole
from gex_pipeline.demo.faults import MIN_SOURCES


def test_a_number_within_its_bounds_is_taken():
    assert [whole(0)("0"), whole(1)("12"), whole(0, 65535)("65535"), whole(-5)("-5")] == [0, 12, 65535, -5]
    assert [number(least=0)("0"), number(above=0)("1e-3"), number(least=0, below=1)("0.5")] == [0.0, 0.001, 0.5]
    assert number()("-2.5") == -2.5


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (whole(1), "0", "a whole number from 1 on"),
        (whole(1), "x", "a whole number from 1 on"),
        (whole(0), "1.0", "a whole number from 0 on"),
        (whole(0), "9" * 5000, "a whole number from 0 on"),
        (whole(0, 65535), "65536", "a whole number from 0 to 65535"),
        (number(above=0), "0", "a number above 0"),
        (number(above=0), "much", "a number above 0"),
        (number(least=0), "inf", "a number from 0 on"),
        (number(least=0), "nan", "a number from 0 on"),
        (number(least=0, below=1), "1", "a number from 0 on and below 1"),
        (number(), "", "a number"),
    ],
)
def test_any_other_is_refused_with_what_was_expected_and_what_came(read, text, expected):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        read(text)
    assert str(error.value) == f"expected {expected}, not {text!r}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("align", "m", "d", "k", "--n-iter-text", "-1"), "--n-iter-text: expected a whole number from 0 on, not '-1'"),
        (("cost", "--repeats", "0"), "--repeats: expected a whole number from 1 on, not '0'"),
        (("search", "m", "a cat", "d", "-n", "0"), "--num: expected a whole number from 1 on, not '0'"),
        (
            ("demo", "x", "--sources", str(MIN_SOURCES - 1)),
            f"--sources: expected a whole number from {MIN_SOURCES} on, ",
        ),
        (("demo", "x", "--seed", "-1"), "--seed: expected a whole number from 0 on, not '-1'"),
        (("report", "output", "--samples", "-1"), "--samples: expected a whole number from 0 on, not '-1'"),
        (("shards", "browse", "o", "--port", "70000"), "--port: expected a whole number from 0 to 65535, not '70000'"),
        (("shards", "retire", "o", "--older-than-days", "-1"), "-days: expected a number from 0 on, not '-1'"),
    ],
)
def test_a_wrong_number_ends_a_command_with_2_before_anything_is_opened(capsys, arguments, expected):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert expected in capsys.readouterr().err
