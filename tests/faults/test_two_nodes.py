"""A cluster of two Ray nodes of which one dies while it builds; `benchmarks/kill_test.py` does it more often."""

from __future__ import annotations

import random

import pytest

from benchmarks.kill_test import kill_and_repeat
from benchmarks.same_output import compare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_a_run_over_two_nodes_of_which_one_dies_at_work_ends_on_the_other_to_the_same_bytes(quiet):
    """Two real raylets; the second is killed when one of its workers has a shard in hand. No second run is needed.

    The reference was made by a private Ray: what a sample holds does not depend on where it was made.
    """
    where, reference, _ = quiet
    story = kill_and_repeat(where, "node", "node", 0.0, random.Random(1))
    assert story.is_right, str(story)
    assert story.codes == [0], str(story)
    found = compare(where.folder / "node" / "output", reference)
    assert found.is_none, (str(story), found)
