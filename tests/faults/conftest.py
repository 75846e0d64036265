"""One drawn corpus and the output of one run over it that nobody disturbed, for all tests that kill."""

from __future__ import annotations

import pytest

from benchmarks.kill_test import place, undisturbed


@pytest.fixture(scope="session")
def quiet():
    """Where corpus and outputs lie, the output of an undisturbed run, and the seconds that took."""
    with place(num_sources=3) as where:
        output, seconds = undisturbed(where, names=("reference",))
        yield where, output, seconds
