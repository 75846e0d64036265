from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gex_pipeline.errors import GexError
from tests.trainer.tiny_models import draw_linear_batch, linear_model
from trainer.loss import vtc_loss
from trainer.model import parameter_groups
from trainer.optim import GuardedOptimiser, autocast, check_precision, learning_rate_share, rank_and_size
from trainer.optim_settings import OptimSettings


def one_weight(values=(1.0, 2.0), **settings):
    """A weight of its own, and its optimiser with nothing but a learning rate."""
    weight = nn.Parameter(torch.tensor(values))
    defaults = {"weight_decay": 0.0, "max_grad_norm": None}
    chosen = OptimSettings(**(defaults | settings))
    group = {"name": "rest_decay", "params": [weight], "lr": 0.1, "weight_decay": chosen.weight_decay}
    return weight, GuardedOptimiser([group], chosen, num_steps=1000)


def take_step(weight, optimiser, step=0, slope=1.0):
    loss = (weight * slope).sum()
    loss.backward()
    return optimiser.step(step, loss)


def test_the_defaults_are_the_papers_and_open_clips():
    settings = OptimSettings()
    assert (settings.learning_rate_towers, settings.learning_rate, settings.epochs) == (1e-6, 1e-4, 5)
    assert (settings.betas, settings.eps, settings.weight_decay) == ((0.9, 0.98), 1e-6, 0.2)
    assert (settings.warmup_steps, settings.final_share, settings.max_grad_norm) == (0, 0.0, 1.0)
    assert (settings.ema_decay, settings.precision) == (None, "bf16")


@pytest.mark.parametrize(
    ("key", "value"),
    [("betas", (0.9, 1.0)), ("eps", 0.0), ("final_share", 1.1), ("ema_decay", 1.0), ("precision", "fp16"), ("lr", 1)],
)
def test_a_setting_out_of_its_range_or_unknown_is_refused(key, value):
    with pytest.raises(ValueError, match=key):
        OptimSettings(**{key: value})


def test_the_cosine_falls_from_the_whole_rate_to_nothing():
    shares = [learning_rate_share(step, num_steps=8) for step in range(9)]
    assert shares == pytest.approx([(1 + math.cos(math.pi * step / 8)) / 2 for step in range(9)], abs=1e-15)
    assert (shares[0], shares[4], shares[8]) == (1.0, pytest.approx(0.5), 0.0)
    assert learning_rate_share(9, num_steps=8) == 0.0


def test_warm_up_rises_in_equal_parts_and_the_cosine_ends_at_its_floor():
    shares = [learning_rate_share(step, num_steps=14, warmup_steps=4, final_share=0.2) for step in range(15)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert (shares[9], shares[14]) == (pytest.approx(0.6), pytest.approx(0.2))
    with pytest.raises(ValueError, match="steps count from 0"):
        learning_rate_share(-1, num_steps=8)


def test_a_step_is_that_of_adamw_with_the_schedules_rate():
    weight, optimiser = one_weight(weight_decay=0.2)
    other = nn.Parameter(weight.detach().clone())
    plain = torch.optim.AdamW([other], lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    for step, slope in ((0, 1.0), (400, -3.0)):
        figures = take_step(weight, optimiser, step, slope)
        plain.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * step / 1000)) / 2
        other.grad = torch.full((2,), slope)
        plain.step()
    assert torch.equal(weight, other)
    assert figures.learning_rates == {"rest_decay": plain.param_groups[0]["lr"]}
    assert weight.grad is None


def test_towers_and_the_rest_have_their_rates_and_their_decay():
    model = linear_model()
    groups = parameter_groups(model, learning_rate_towers=1e-6, learning_rate=1e-4, weight_decay=0.2)
    optimiser = GuardedOptimiser(groups, OptimSettings(), num_steps=10)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    video, texts = draw_linear_batch(4)
    loss = vtc_loss(model(video, texts))
    loss.backward()
    figures = optimiser.step(5, loss)
    towers, rest = pytest.approx(0.5e-6), pytest.approx(0.5e-4)
    assert figures.learning_rates == {
        "rest_decay": rest, "rest_no_decay": rest, "towers_decay": towers, "towers_no_decay": towers
    }  # fmt: skip
    assert figures.loss == loss.item()
    # the first step of Adam is the learning rate, whatever the gradient
    moved = (model.logit_scale - before["logit_scale"]).abs().item()
    assert moved == pytest.approx(0.5e-4, rel=1e-2)
    bias = "image_tower.linear.bias"
    moved = (model.get_parameter(bias) - before[bias]).abs().max().item()
    assert moved == pytest.approx(0.5e-6, rel=0.1)


def test_clipping_brings_the_gradient_to_its_bound_and_tells_the_norm_before():
    weight, optimiser = one_weight(max_grad_norm=1.0)
    seen = []
    optimiser.adamw.register_step_pre_hook(lambda *_: seen.append(weight.grad.clone()))
    assert take_step(weight, optimiser, slope=torch.tensor([3.0, 4.0])).grad_norm == 5.0
    torch.testing.assert_close(seen[0], torch.tensor([0.6, 0.8]), rtol=1e-5, atol=0)
    assert take_step(weight, optimiser, slope=torch.tensor([0.3, 0.4])).grad_norm == pytest.approx(0.5)
    torch.testing.assert_close(seen[1], torch.tensor([0.3, 0.4]), rtol=0, atol=0)


def test_a_parameter_without_gradient_is_neither_updated_nor_decayed():
    """A step on images leaves the video branch's shared block out; zeros in place of None would wear it down."""
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    group = {"params": [used, unused], "lr": 0.1, "weight_decay": 0.5}
    optimiser = GuardedOptimiser([group], OptimSettings(), num_steps=10)
    take_step(used, optimiser)
    assert torch.equal(unused, torch.ones(2, 2))
    assert unused not in optimiser.adamw.state
    unused.grad = torch.zeros(2, 2)
    take_step(used, optimiser)
    assert not torch.equal(unused, torch.ones(2, 2))


@pytest.mark.parametrize("slope", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(slope):
    weight, optimiser = one_weight()
    take_step(weight, optimiser)
    before, moments = weight.detach().clone(), optimiser.adamw.state[weight]["exp_avg"].clone()
    figures = take_step(weight, optimiser, 1, slope)
    assert figures.skipped
    assert not math.isfinite(figures.grad_norm)
    assert torch.equal(weight, before)
    assert torch.equal(optimiser.adamw.state[weight]["exp_avg"], moments)
    assert weight.grad is None
    assert optimiser.counters() == {"num_skipped": 1, "num_skipped_in_row": 1}
    assert not take_step(weight, optimiser, 2).skipped
    assert optimiser.counters() == {"num_skipped": 1, "num_skipped_in_row": 0}


def test_a_finite_loss_with_a_gradient_that_is_not_is_skipped():
    weight, optimiser = one_weight((0.0, 0.0))
    loss = weight.sqrt().sum()
    loss.backward()
    figures = optimiser.step(0, loss)
    assert (figures.loss, figures.grad_norm, figures.skipped) == (0.0, math.inf, True)


def test_too_many_of_them_in_a_row_stop_the_training_also_across_a_resume():
    weight, optimiser = one_weight(max_nonfinite_steps=3)
    for step in (7, 8):
        take_step(weight, optimiser, step, math.nan)
    _, resumed = one_weight(max_nonfinite_steps=3)
    resumed.restore_counters(optimiser.counters())
    loss = torch.tensor(math.nan)
    with pytest.raises(GexError, match=r"no step from 7 to 9 had a finite loss .* mean loss nan.* before step 7"):
        resumed.step(9, loss)


def test_weights_in_half_precision_are_refused_and_why():
    held = nn.Parameter(torch.full((2, 2), 0.02, dtype=torch.bfloat16))
    groups = [{"params": [held], "lr": 1e-6, "weight_decay": 0.0}]
    with pytest.raises(GexError, match=r"held in bfloat16; hold them in float32 .* learning rate 1e-06"):
        GuardedOptimiser(groups, OptimSettings(), num_steps=1)
    # what the sentence says
    assert torch.equal(held - 1e-6, held)


def test_a_step_at_the_towers_rate_moves_weights_of_32_bits():
    weight = nn.Parameter(torch.full((4, 4), 0.02))
    settings = OptimSettings()
    optimiser = GuardedOptimiser([{"params": [weight], "lr": 1e-6, "weight_decay": 0.0}], settings, num_steps=100)
    with autocast(settings, weight.device):
        product = weight @ torch.ones(4, 4)
    assert product.dtype == torch.bfloat16
    product.float().sum().backward()
    optimiser.step(0, product.float().sum())
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.02 - 1e-6), rtol=1e-7, atol=0)
    assert (weight != 0.02).all()


def test_precision_fp32_computes_in_32_bits():
    with autocast(OptimSettings(precision="fp32"), torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_nothing_to_train_is_an_error():
    with pytest.raises(GexError, match="no parameter is left to train"):
        GuardedOptimiser([], OptimSettings(), num_steps=1)


def test_one_process_is_rank_0_of_1():
    assert rank_and_size() == (0, 1)


def test_bf16_that_a_device_only_emulates_is_refused_with_what_to_set(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100-SXM2-32GB")
    device = torch.device("cuda", 0)
    with pytest.raises(GexError, match=r'Tesla V100-SXM2-32GB only emulates bf16.* optim\.precision to "fp32"'):
        check_precision(OptimSettings(precision="bf16"), device)
    check_precision(OptimSettings(precision="fp32"), device)
    check_precision(OptimSettings(precision="bf16"), torch.device("cpu"))
