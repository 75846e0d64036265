from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.ema import Ema


def model_of(value=0.0):
    model = nn.Linear(2, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def fill(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def risen(model, decay):
    """An average whose share that stays is the decay already."""
    ema = Ema(model, decay)
    ema.num_updates = 1_000_000
    return ema


def test_the_average_keeps_its_share_at_every_update():
    model = model_of(1.0)
    ema = risen(model, 0.75)
    expected = 1.0
    for value in (2.0, -4.0, 8.0):
        fill(model, value)
        ema.update()
        expected = 0.75 * expected + 0.25 * value
    assert expected == 1.953125
    assert torch.equal(ema.state_dict()["weight"], torch.full((1, 2), expected))
    assert list(ema.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.75, 0.99, 0.999, 0.9999])
def test_the_share_that_stays_rises_with_the_updates_up_to_the_decay(decay):
    model = model_of(0.0).double()
    ema = Ema(model, decay)
    expected = 0.0
    for n in range(40):
        fill(model, float(n % 3))
        ema.update()
        stays = min(decay, (1 + n) / (10 + n))
        expected = stays * expected + (1 - stays) * (n % 3)
        assert ema.state_dict()["bias"].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("decay", "num_updates"), [(0.9999, 950), (0.999, 320)])
def test_of_the_weights_it_began_with_next_to_nothing_is_left_in_the_average_of_a_short_training(decay, num_updates):
    """Their share was decay^updates, 0.91 and 0.73: what was exported was the start, not what was learned."""
    model = model_of(1.0)
    ema = Ema(model, decay)
    fill(model, 0.0)
    for _ in range(num_updates):
        ema.update()
    assert ema.state_dict()["weight"].max().item() < 1e-6


def test_the_model_has_the_average_inside_and_its_own_weights_at_the_same_address_afterwards():
    model = model_of(1.0)
    ema = risen(model, 0.5)
    fill(model, 3.0)
    ema.update()
    fill(model, 1 / 3)
    address = model.weight.data_ptr()
    with pytest.raises(ZeroDivisionError), ema.swapped_in():
        assert model(torch.ones(1, 2)).item() == 6.0
        assert model.weight.data_ptr() == address
        raise ZeroDivisionError
    assert torch.equal(model.weight, torch.full((1, 2), 1 / 3))
    assert torch.equal(ema.state_dict()["weight"], torch.full((1, 2), 2.0))


def test_inside_it_can_be_neither_updated_nor_read_nor_entered_again():
    ema = Ema(model_of(), 0.5)
    with ema.swapped_in():
        for wrong in (ema.update, ema.state_dict, ema.swapped_in().__enter__):
            with pytest.raises(RuntimeError, match="the model holds the average"):
                wrong()
    ema.update()


def test_frozen_weights_are_not_averaged():
    model = model_of(1.0)
    model.bias.requires_grad_(False)
    assert list(Ema(model, 0.5).state_dict()) == ["weight"]


def test_its_state_goes_on_elsewhere_and_another_models_is_refused():
    model = model_of(1.0)
    ema, other = risen(model, 0.5), Ema(model_of(), 0.5)
    fill(model, 2.0)
    ema.update()
    other.load_state_dict(ema.state_dict())
    assert torch.equal(other.state_dict()["bias"], torch.tensor([1.5]))
    with pytest.raises(ValueError, match=r"the average of weight has shape \(2, 3\); expected \(1, 2\)"):
        other.load_state_dict(Ema(nn.Linear(3, 2), 0.5).state_dict())


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match=r"weight is held in torch.bfloat16"):
        Ema(model_of().bfloat16(), 0.999)
