from __future__ import annotations

import json

import numpy as np

from tests.numerics.loss_curve import NUM_STEPS, STORED, train

# Rounding differs between processors and libraries. Weights changed by 1e-14 end 5e-12 away after these steps, so
# rounding stays far below this; a changed constant or a lost term shows within a few steps.
TOLERANCE = 1e-8


def test_a_hundred_steps_cost_what_is_stored():
    stored = json.loads(STORED.read_text())
    losses = train()
    assert len(stored) == NUM_STEPS
    np.testing.assert_allclose(losses, stored, rtol=TOLERANCE, atol=TOLERANCE)
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) / 3
