"""Two processes that share a batch learn what one learns from all of it, also where one of them has nothing to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gloo_ranks import on_ranks
from small_networks import small_model
from torch.nn.parallel import DistributedDataParallel

from tracesight.data.batch import Batch, Targets, collate
from tracesight.data.sample import Sample

# Few enough of the candidates for chance to matter, so that the draws must agree as well.
SETTINGS: dict[str, Any] = {"rpn": {"batch": 64}, "roi": {"batch": 24, "max_objects": 12}}
# Objects of the four pictures of each step; each rank has two of them.
STEPS = [(5, 1, 0, 2), (3, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 7)]
NORMS = ("frozen", "batch")


def sample(objects: int, seed: int) -> Sample:
    """A picture with that many ellipses."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(33, 64, 2).tolist()
    corners = rng.uniform(0, 0.6, (objects, 2)) * (width, height)
    boxes = np.concatenate((corners, corners + rng.uniform(0.15, 0.4, (objects, 2)) * (width, height)), axis=1)
    y, x = np.mgrid[-1:1:12j, -1:1:9j]
    return Sample(
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8), boxes.astype(np.float32),
        rng.integers(1, 3, objects), np.zeros(objects, np.bool_), ((x**2 + y**2 <= 1).astype(np.uint8),) * objects,
        boxes.astype(np.float32),
    )  # fmt: skip


def made(counts: tuple[int, ...], step: int = 0) -> tuple[Batch, Targets]:
    """A batch in double precision."""
    draws = range(step * len(counts), (step + 1) * len(counts))
    batch, targets = collate([sample(*pair) for pair in zip(counts, draws)], [(3, draw) for draw in draws])
    return doubled(batch), doubled(targets)


def doubled(values):
    return type(values)(*(v.double() if v is not None and v.is_floating_point() else v for v in values))


def part(values, pictures: slice):
    """These pictures, padded as all of them are; the crops of masks are in one row for all."""
    return type(values)(*(v if v is None or v.ndim == 1 else v[pictures] for v in values))


def learned(norm: str, pictures: slice, wrap=lambda model: model) -> list[tuple[dict, dict, dict]]:
    """Losses, gradients and buffers of each step on these pictures of its batch."""
    model = small_model(norm=norm, **SETTINGS).double().train()
    network, found = wrap(model), []
    for step, counts in enumerate(STEPS):
        model.zero_grad()
        losses = network(*(part(values, pictures) for values in made(counts, step)))
        torch.stack(list(losses.values())).sum().backward()
        found.append((
            {key: value.detach() for key, value in losses.items()},
            {key: value.grad for key, value in model.named_parameters()},
            {key: value.clone() for key, value in model.named_buffers()},
        ))  # fmt: skip
    return found


def on_half(rank: int) -> dict[str, list]:
    def wrap(model):
        return DistributedDataParallel(model, broadcast_buffers=False)

    return {norm: learned(norm, slice(2 * rank, 2 * rank + 2), wrap) for norm in NORMS}


@pytest.fixture(scope="module")
def halves():
    return on_ranks(on_half)


def assert_near(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (found[key] - value).abs().max() <= 1e-6 * value.abs().max(), key


@pytest.mark.parametrize("norm", NORMS)
def test_two_processes_equal_one(halves, norm):
    whole = learned(norm, slice(4))
    for counts, one, first, second in zip(STEPS, whole, *(half[norm] for half in halves), strict=True):
        losses, gradients, buffers = one
        assert_near({key: (first[0][key] + second[0][key]) / 2 for key in losses}, losses)
        for half in (first, second):
            assert_near(half[1], gradients)
            assert_near(half[2], buffers)
        # Whether masks were learnt is as the case says: two ranks could also agree on nothing.
        for half, mine in zip((first, second), (counts[:2], counts[2:])):
            assert bool(half[0]["loss_mask"] > 0) == any(mine)


def nothing(how: str) -> tuple[Batch, Targets]:
    """A batch that has, one way or another, no object."""
    batch, targets = made((2, 0))
    none = torch.zeros_like(targets.valid)
    if how == "no masks":
        return batch, targets._replace(mask_sizes=torch.zeros_like(targets.mask_sizes))
    if how == "crowds alone":
        return batch, targets._replace(valid=none, crowd=targets.valid)
    if how == "no regions":
        batch = batch._replace(sizes=torch.zeros_like(batch.sizes))
    return batch, Targets(*(torch.zeros_like(value) for value in targets))


@pytest.mark.parametrize("model", ["mask_rcnn_resnet18_fpn", "faster_rcnn_resnet18_fpn"])
@pytest.mark.parametrize("how", ["no objects", "no masks", "crowds alone", "no regions"])
def test_without_objects_every_parameter_has_a_gradient(model, how):
    network = small_model(model, norm="batch", **SETTINGS).double().train()
    losses = network(*nothing(how))
    torch.stack(list(losses.values())).sum().backward()
    for name, value in network.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name
        if "mask" in name:
            assert not value.grad.any(), name
        if "box_predictor" in name:
            # Background teaches classes; without any region nothing does.
            assert bool(value.grad.any()) == (("cls_score" in name and how != "no regions") or how == "no masks"), name
