from __future__ import annotations

import pytest
import torch
from torch import nn

from tracesight.errors import UserError
from tracesight.models.vit import ViT
from tracesight.training.ema import ema_of, update_ema
from tracesight.training.lars import LARS
from tracesight.training.optim import build_optimiser, parameter_groups, set_learning_rate


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1, bias=False))


def test_norms_and_biases_do_not_decay():
    model = small()
    model[2].weight.requires_grad_(False)
    decaying, plain = parameter_groups(model, 0.05)
    assert [p.shape for p in decaying["params"]] == [model[0].weight.shape] and decaying["weight_decay"] == 0.05
    assert len(plain["params"]) == 3 and plain["weight_decay"] == 0.0


def test_layers_of_a_transformer_learn_at_rates_of_their_own():
    model = ViT(8, 2, 2, 3, patch=4, image_size=8)
    groups = parameter_groups(model, 0.05, 0.5)
    held = {id(parameter): group for group in groups for parameter in group["params"]}
    expected = {
        "pos_embed": (0.125, 0.0), "patch_embed.proj.weight": (0.125, 0.05), "blocks.0.attn.qkv.weight": (0.25, 0.05),
        "blocks.0.norm1.weight": (0.25, 0.0), "blocks.1.mlp.fc2.bias": (0.5, 0.0), "norm.weight": (1.0, 0.0),
        "head.weight": (1.0, 0.05),
    }  # fmt: skip
    for name, parameter in model.named_parameters():
        if name in expected:
            assert (held[id(parameter)]["lr_scale"], held[id(parameter)]["weight_decay"]) == expected[name], name
    assert len(held) == len(list(model.parameters()))
    optimiser = build_optimiser("adamw", model, lr=1.0, beta2=0.95, layer_decay=0.5)
    set_learning_rate(optimiser, 0.2)
    assert sorted({group["lr"] for group in optimiser.param_groups}) == [0.025, 0.05, 0.1, 0.2]
    assert optimiser.defaults["betas"] == (0.9, 0.95)
    with pytest.raises(UserError, match="layer_decay is for vision transformers"):
        build_optimiser("adamw", small(), lr=1.0, layer_decay=0.5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_alone_shrinks_weights_only(name):
    model = small()
    optimiser = build_optimiser(name, model, lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser.step()
    after = model.state_dict()
    assert torch.allclose(after["0.weight"], before["0.weight"] * 0.95)
    assert torch.equal(after["1.weight"], before["1.weight"]) and torch.equal(after["0.bias"], before["0.bias"])


def test_average_follows_slowly_and_starts_fast():
    model = small()
    average = ema_of(model)
    with torch.no_grad():
        model[0].bias.add_(1.0)
    start = average[0].bias.clone()
    update_ema(average, model, 1, 0.999)
    assert torch.allclose(average[0].bias - start, torch.full((4,), 1 - 2 / 11))
    late = average[0].bias.clone()
    update_ema(average, model, 10**6, 0.9)
    assert torch.allclose(average[0].bias, late + 0.1 * (model[0].bias - late))
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_lars_by_hand():
    weight, bias = torch.nn.Parameter(torch.tensor([[3.0, 4.0]])), torch.nn.Parameter(torch.tensor([1.0]))
    optimiser = LARS([weight, bias], lr=2.0, momentum=0.5, weight_decay=0.1, trust=0.01)
    for _ in range(2):
        weight.grad, bias.grad = torch.tensor([[-0.3, 1.6]]), torch.tensor([0.25])
        optimiser.step()
    # First: g = (-0.3, 1.6) + 0.1 w = (0, 2), times 0.01 × 5 / 2 = (0, 0.05); w = (3, 3.9); b = 1 - 2 × 0.25.
    # Then:  g = (0, 1.99), times 0.01 × |w| / 1.99 = (0, 0.01 × √24.21); v = that + half of (0, 0.05).
    torch.testing.assert_close(weight.data, torch.tensor([[3.0, 3.9 - 2 * (0.01 * 24.21**0.5 + 0.025)]]))
    torch.testing.assert_close(bias.data, torch.tensor([1 - 0.5 - 2 * (0.25 + 0.125)]))
    still = torch.nn.Parameter(torch.zeros(1, 2))
    still.grad = torch.tensor([[1.0, 0.0]])
    LARS([still], lr=1.0).step()
    assert still.tolist() == [[-1.0, 0.0]]
