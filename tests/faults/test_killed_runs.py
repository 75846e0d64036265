"""Real runs whose driver or Ray worker is killed; `benchmarks/kill_test.py` kills more often, raylet and ffmpeg too."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import pytest

from benchmarks.kill_test import compare, kill_and_repeat, place, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def quiet():
    """A corpus, the output of a run nobody disturbed, and the seconds that took."""
    with place(num_sources=3) as where:
        output, seconds = undisturbed(where, names=("reference",))
        yield where, output, seconds


@pytest.mark.parametrize(("kind", "part"), [("driver", 0.7), ("worker", 0.5)])
def test_a_run_whose_process_is_killed_ends_or_goes_on_to_the_same_bytes(quiet, kind, part):
    where, reference, seconds = quiet
    said = kill_and_repeat(where, kind, kind, part * seconds, random.Random(1))
    assert said[0].startswith("hit"), said
    assert not any(line.startswith("STUCK") for line in said), said
    found = compare(where.folder / kind / "output", reference)
    assert found.is_none, (said, found)


def test_the_comparison_sees_a_lost_a_doubled_and_a_changed_sample(quiet):
    where, reference, _ = quiet
    copy = where.folder / "copy"
    shutil.copytree(reference, copy)
    assert compare(copy, reference).is_none
    first, second = sorted(copy.glob("SVST/*.tar"))[:2]
    shutil.copyfile(first, second)
    found = compare(copy, reference)
    assert found.lost > 0
    assert found.duplicated > 0
    assert found.tars == (str(second.relative_to(copy)),)
    shutil.copyfile(reference / second.relative_to(copy), second)
    content = bytearray(first.read_bytes())
    content[1000] ^= 1  # in the bytes of the first video
    first.write_bytes(content)
    assert replace(compare(copy, reference), tars=()).differing == 1
    (copy / "SVST" / ".x.tar.0badcafe.part").write_bytes(b"half")
    assert compare(copy, reference).leftovers == ("SVST/.x.tar.0badcafe.part",)
