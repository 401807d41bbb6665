from __future__ import annotations

import math
import re
from typing import NamedTuple

import pytest
import torch
from small_step import PICTURES, batch, network
from torch import nn

from tracesight.training.diagnose import first_bad_input, first_bad_tensor


def searched(model, loaded):
    return first_bad_tensor(model, lambda: model(loaded.batch, loaded.targets))


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def model():
    return network()


def test_a_sound_step_has_nothing_to_find_and_nothing_is_changed(model):
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    before, random = snapshot(model), torch.get_rng_state()
    model.backbone.eval()
    assert searched(model, batch()) is None
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.training and not model.backbone.training
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(parameter.grad is None for parameter in list(model.parameters())[1:])
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_weight_is_named_first_with_how_many(model):
    with torch.no_grad():
        model.backbone.body.layer1[0].conv1.weight[0, :, 0, 0][:3] = torch.tensor([math.nan, math.inf, -math.inf])
        model.roi_heads.box_predictor.cls_score.bias[0] = math.nan
    assert searched(model, batch()) == ("weight backbone.body.layer1.0.conv1.weight holds 3 values that are not finite")


def test_a_statistic_is_a_buffer(model):
    model.backbone.body.bn1.running_var[0] = math.inf
    assert searched(model, batch()) == "buffer backbone.body.bn1.running_var holds 1 value that is not finite"


def test_the_first_module_that_overflows_is_named_and_statistics_are_put_back(model):
    with torch.no_grad():
        model.backbone.body.layer2[0].conv1.weight.mul_(3e38)
        model.rpn.head.cls_logits.weight.fill_(3e38)
    before = snapshot(model)
    found = searched(model, batch())
    assert found.startswith("output of backbone.body.layer2.0.conv1: ") and "values are not finite" in found
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_head_that_overflows(model):
    with torch.no_grad():
        model.rpn.head.cls_logits.weight.zero_()[0].fill_(3e38)
        model.rpn.head.cls_logits.bias.copy_(torch.tensor([3e38, 3.2e38, 0]))
    found = searched(model, batch())
    # The first level has 2 × 16 × 24 cells of 3 anchors.
    assert re.match(
        r"output of rpn\.head\.cls_logits: \d+ of 2304 values are not finite, the greatest .* 3\.\d*e\+38", found
    )


def test_a_picture_and_a_box_are_named(model):
    loaded = batch()
    assert first_bad_input(loaded, PICTURES) is None
    loaded.targets.boxes[0, 1, 2] = math.inf
    assert first_bad_input(loaded, PICTURES) == (
        "boxes of a.png: 1 of 128 values is not finite, the greatest finite one is 40"
    )
    loaded.batch.images[1, :, 0, :2] = math.nan
    assert first_bad_input(loaded, PICTURES).startswith("images of b.png: 6 of 18432 values are not finite")
    assert searched(model, loaded).startswith("images of picture 2: 6 of 18432 values are not finite")


def test_a_failure_on_the_way_leaves_no_hook_and_no_statistic(model):
    before = snapshot(model)

    def broken():
        model(batch().batch, batch().targets)
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        first_bad_tensor(model, broken)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_memory_that_runs_out_ends_the_search_with_what_was_found(model):
    def starved():
        model(batch().batch, batch().targets)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert first_bad_tensor(model, starved) == "too little memory is left to look for the first tensor"
    with torch.no_grad():
        model.backbone.fpn.inner_blocks[0][0].weight.fill_(3e38)
    assert first_bad_tensor(model, starved).startswith("output of backbone.fpn.inner_blocks.0.0: ")


class Pair(NamedTuple):
    good: torch.Tensor
    bad: torch.Tensor


class Step(nn.Module):
    """y = act(first(x)), whose sum is the loss."""

    def __init__(self, first=None, act=None, between=None) -> None:
        super().__init__()
        self.first, self.act, self.between = first or nn.Linear(3, 4), act or nn.Identity(), between
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(1)

    def forward(self, x):
        hidden = self.first(x)
        return {"loss": self.act(hidden if self.between is None else self.between(hidden)).sum()}


class Act(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def of(step: Step) -> str | None:
    return first_bad_tensor(step, lambda: step(torch.zeros(2, 3)))


def test_what_happens_between_modules_is_the_input_of_the_next():
    assert of(Step(between=lambda hidden: hidden / 0)) == "input of act: none of its 8 values is finite"


def test_nested_outputs_are_searched_and_the_place_is_named():
    first = Act(lambda x: {"maps": [x, Pair(x, x / 0)]})
    found = of(Step(first=first, between=lambda hidden: hidden["maps"][1].bad))
    assert found == "output of first (maps.1.bad): none of its 6 values is finite"


def test_a_module_inside_is_named_and_not_the_one_around_it():
    inner = nn.Sequential(nn.Linear(3, 4), Act(torch.log), nn.ReLU())
    with torch.no_grad():
        inner[0].weight.fill_(0)
    step = Step(first=inner)
    with torch.no_grad():
        inner[0].bias.fill_(-1)
    assert of(step) == "output of first.1: none of its 8 values is finite"


def test_a_loss_alone():
    step = Step()
    found = first_bad_tensor(step, lambda: {"fine": step(torch.zeros(2, 3))["loss"], "loss": torch.tensor(math.nan)})
    assert found == "loss itself: all that goes into it is finite"


def test_a_gradient_alone():
    step = Step(act=Act(torch.sqrt))
    with torch.no_grad():
        step.first.bias[2] = 0  # the root of 0 has the slope infinity, and 0 × infinity is no number
    assert of(step) == "gradient of first.bias: 1 of 4 values is not finite, the greatest finite one is 1"


def test_a_gradient_too_large_for_its_norm():
    step = Step(act=Act(lambda x: x * 1e25))
    with torch.no_grad():
        step.first.bias.fill_(1e-5)
    found = of(step)
    assert found == "norm of the gradient, whose values are finite, the greatest of them 2e+25 in first.bias"


def test_minus_infinity_on_purpose_is_not_to_blame():
    mask = Act(lambda x: x.masked_fill(torch.arange(4) > 1, -math.inf))
    assert of(Step(between=lambda x: mask(x).softmax(1))) is None
    sound = nn.Sequential(nn.Linear(3, 4), mask)
    assert of(Step(first=sound, act=nn.Softmax(1))) is None
    later = nn.Sequential(nn.Softmax(1), Act(lambda x: x[:, 2:]), Act(torch.log), Act(torch.exp), Act(lambda x: 1 / x))
    assert of(Step(first=nn.Sequential(nn.Linear(3, 4), mask), act=later)).startswith("output of act.4: ")
    only = Step(first=nn.Sequential(nn.Linear(3, 4), mask))
    assert of(only) == "output of first.1: 4 of 8 values are not finite, the greatest finite one is 1"


def test_a_mask_in_a_buffer_is_no_bad_weight():
    step = Step()
    step.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    assert of(step) is None


def test_networks_that_learn_nothing_have_no_gradient_to_search():
    assert of(Step().requires_grad_(False)) is None
