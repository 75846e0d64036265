from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from tests.trainer.tiny_models import TINY_IAM
from trainer.iam import Iam, TemporalPosition, new_base, start_values_at
from trainer.settings import IamSettings

CHOICES = [
    {"mlp_ratio": mlp, "residual": residual, "norm": norm}
    for mlp, residual, norm in itertools.product((0, 2), (True, False), ("pre", "none"))
]
LITERAL = {"mlp_ratio": 0, "residual": False, "norm": "none", "final_norm": False}


def make_iam(**settings):
    torch.manual_seed(0)
    return Iam(IamSettings(**(TINY_IAM | settings)), feature_dim=12).double()


def draw_features(num_features=7, rows=3):
    return torch.randn(rows, num_features, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_any_length_becomes_n_by_d(choice):
    iam = make_iam(**choice)
    for num_features in (1, 5, 40):
        for n_iter in (0, 1, 3):
            assert iam(draw_features(num_features), n_iter).shape == (3, 4, 16)
    assert iam.pool(iam(draw_features(), 1)).shape == (3, 16)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_zero_iterations_are_the_unrolled_block(choice):
    iam, features = make_iam(**choice), draw_features()
    a_0 = iam.unrolled(iam.base[None], *iam.unrolled.project_features(features), None)
    assert torch.equal(iam(features, 0), a_0)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_three_iterations_are_the_loop_written_out_with_keys_and_values_made_anew_in_every_pass(choice):
    iam, features = make_iam(**choice), draw_features()
    embeddings = iam.unrolled(iam.base[None], *iam.unrolled.project_features(features), None)
    for _ in range(3):
        embeddings = iam.shared(embeddings, *iam.shared.project_features(features), None)
    assert torch.equal(iam(features, 3), embeddings)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8])
def test_a_mask_of_numbers_is_refused(dtype):
    """One of floats, as Hugging Face's tokenizers lead to, was added to the scores: what it hides took part."""
    iam, features = make_iam(), draw_features(5)
    mask = torch.tensor([[1, 1, 1, 0, 0]] * 3)
    assert torch.allclose(iam(features, 1, mask.bool()), iam(features[:, :3], 1))
    with pytest.raises(ValueError, match=f"key_mask_BM is of {dtype}; expected torch.bool"):
        iam(features, 1, mask.to(dtype))


@pytest.mark.parametrize("residual", [False, True])
def test_the_literal_module_is_the_formula_of_the_paper_and_residuals_add_what_came_in(residual):
    iam, features = make_iam(**(LITERAL | {"residual": residual})), draw_features()

    def attend(queries, keys, values, output):
        heads = []
        for q, k, v in zip(queries.chunk(2, -1), keys.chunk(2, -1), values.chunk(2, -1), strict=True):
            heads.append(torch.softmax(q @ k.mT / 8**0.5, dim=-1) @ v)
        return output(torch.cat(heads, dim=-1))

    def block(weights, a):
        cross, own = weights.cross, weights.self_attention
        a = residual * a + attend(cross.query(a), cross.key(features), cross.value(features), cross.output)
        return residual * a + attend(own.query(a), own.key(a), own.value(a), own.output)

    a = block(iam.unrolled, iam.base.expand(3, -1, -1))
    a = block(iam.shared, block(iam.shared, a))
    torch.testing.assert_close(iam(features, 2), a, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(iam.pool(a), a.mean(1), rtol=0, atol=0)


@pytest.mark.parametrize("residual", [True, False])
def test_an_mlp_is_two_maps_with_a_gelu_between_and_adds_what_came_in_where_residuals_are_on(residual):
    mlp = make_iam(mlp_ratio=2, residual=residual).unrolled.cross_mlp
    for parameter in mlp.parameters():
        torch.nn.init.normal_(parameter)
    a = torch.randn(3, 4, 16, dtype=torch.float64)
    normed = (a - a.mean(-1, keepdim=True)) / (a.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    hidden = (normed * mlp.norm.weight + mlp.norm.bias) @ mlp.up.weight.mT + mlp.up.bias
    assert hidden.shape == (3, 4, 2 * 16)
    result = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2 @ mlp.down.weight.mT + mlp.down.bias
    torch.testing.assert_close(mlp(a), a + result if residual else result, rtol=1e-12, atol=1e-12)


def test_parameters_are_two_blocks_and_the_base_whatever_the_number_of_iterations():
    iam = make_iam()
    before = count(iam)
    iam(draw_features(), 5)
    assert count(iam) == before
    assert count(iam.unrolled) == count(iam.shared)
    assert before == 2 * count(iam.unrolled) + 4 * 16 + 2 * 16


@pytest.mark.parametrize(("n_iter", "has_gradient"), [(0, False), (1, True), (3, True)])
def test_the_shared_block_has_a_gradient_only_where_it_ran(n_iter, has_gradient):
    iam = make_iam()
    iam.pool(iam(draw_features(), n_iter)).square().sum().backward()
    assert {parameter.grad is not None for parameter in iam.shared.parameters()} == {has_gradient}
    assert all(parameter.grad is not None for parameter in iam.unrolled.parameters())
    assert iam.base.grad is not None


def test_masked_features_change_nothing_and_are_as_if_they_were_not_there():
    iam, features = make_iam(), draw_features(num_features=9)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[:, 6:] = False
    masked = iam(features, 2, mask)
    other = features.clone()
    other[:, 6:] = 1e3
    assert torch.equal(iam(other, 2, mask), masked)
    torch.testing.assert_close(masked, iam(features[:, :6], 2), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(masked, iam(features, 2))


def test_features_are_a_set():
    iam, features = make_iam(), draw_features()
    torch.testing.assert_close(iam(features.flip(1), 3), iam(features, 3), rtol=1e-12, atol=1e-12)


def test_a_negative_number_of_iterations_is_an_error():
    with pytest.raises(ValueError, match=r"n_iter is -1; expected 0"):
        make_iam()(draw_features(), -1)


def test_positions_are_zero_at_the_start_and_interpolated_for_another_number_of_frames():
    positions = TemporalPosition(4, 3)
    features = torch.randn(2, 4, 5, 3)
    assert torch.equal(positions(features), features)
    with torch.no_grad():
        positions.position.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None].expand(4, 3))
    zeros = torch.zeros(1, 4, 2, 3)
    assert positions(zeros)[0, :, 1, 2].tolist() == [0, 1, 2, 3]
    assert positions(zeros[:, :2])[0, :, 0, 0].tolist() == [0.5, 2.5]
    assert positions(zeros[:, :1])[0, :, 0, 0].tolist() == [1.5]
    wide = functional.interpolate(torch.arange(4.0)[None, None], size=8, mode="linear")[0, 0]
    assert torch.equal(positions(torch.zeros(1, 8, 1, 3))[0, :, 0, 0], wide)


def test_the_base_starts_small_and_bounded_or_at_unit_scale():
    torch.manual_seed(0)
    small = new_base(IamSettings())
    assert small.abs().max() <= 0.04
    assert 0.015 < small.std() < 0.02
    assert 0.98 < new_base(IamSettings(base_init="normal")).std() < 1.02


def test_values_start_as_the_projection_of_clip():
    iam = make_iam(**(LITERAL | {"residual": False}))
    projection = torch.randn(16, 12, dtype=torch.float64)
    start_values_at(iam, projection)
    cross, features = iam.unrolled.cross, torch.randn(1, 1, 12, dtype=torch.float64).expand(2, 5, 12)
    # all features alike: whatever the attention, what is read is the projection of any of them
    read = cross(iam.base[None], *cross.project_features(features), None)
    torch.testing.assert_close(read, (features @ projection.T)[:, :4], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"needs a projection \(16, 12\), found one of \(8, 12\)"):
        start_values_at(iam, projection[:8])
