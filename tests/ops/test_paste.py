"""Edges of masks without a canvas, against torchvision's canvas: the same pixels, whatever masks and boxes are like."""

from __future__ import annotations

import platform
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import expand_boxes, paste_masks_in_image

from tracesight.ops import paste
from tracesight.ops.paste import mask_runs
from tracesight.scene import Mask

# From torch 2.15 on x86, its kernels round as `paste._values` does; elsewhere the two differ by less than 1e-6.
EXACT = platform.machine() in ("x86_64", "AMD64") and tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 15)


def pasted(masks, boxes, size):
    """torchvision's canvases (D, H, W), which it cannot make for boxes that lie outside."""
    canvas = torch.zeros(len(masks), *size)
    grown = expand_boxes(boxes, (masks.shape[-1] + 2) / masks.shape[-1]).to(torch.int64)
    x1, y1, x2, y2 = grown.unbind(1)
    for i in ((x2 >= x1.clamp(min=0)) & (x1 < size[1]) & (y2 >= y1.clamp(min=0)) & (y1 < size[0])).nonzero():
        canvas[i] = paste_masks_in_image(masks[i, None], boxes[i], size)[:, 0]
    return canvas


def drawn(edges, counts, size):
    """Canvases (D, H, W) of edges, which must be as `mask_runs` promises."""
    canvases = np.zeros((len(counts), size[0] * size[1] + 1), np.int64)
    assert counts.sum() == len(edges) and not (counts % 2).any()
    for canvas, own in zip(canvases, np.split(edges, counts.cumsum()[:-1]) if len(counts) else []):
        assert (np.diff(own) > 0).all()
        canvas[own[0::2]] += 1
        canvas[own[1::2]] -= 1
    inside = torch.from_numpy(canvases.cumsum(1)[:, :-1] > 0)
    return inside.reshape(len(counts), size[1], size[0]).transpose(1, 2)


def assert_torchvisions(masks, boxes, size):
    edges, counts = mask_runs(masks, boxes, size)
    values = pasted(masks, boxes, size)
    differ = drawn(edges, counts, size) != (values > 0.5)
    assert ((values[differ] - 0.5).abs() <= 1e-6).all()
    if EXACT:
        assert not differ.any()
    return edges, counts, values > 0.5


def made(kind, count, side=28, seed=0):
    random = np.random.default_rng(seed)
    shape = (count, side, side)
    masks = {
        "smooth": lambda: torch.sigmoid(
            6 * F.interpolate(torch.from_numpy(random.normal(size=(count, 1, 5, 5))), size=(side, side), mode="bicubic")
        )[:, 0],
        "noise": lambda: random.random(shape, np.float32),
        "quarters": lambda: random.integers(0, 5, shape) / 4,
        "nearly half": lambda: 0.5 + random.normal(size=shape) * 1e-4,
        "half, rounded": lambda: 0.5 + random.integers(-20, 21, shape) * 2.0**-24,
        "half": lambda: np.full(shape, 0.5),
        "above half": lambda: np.full(shape, np.nextafter(np.float32(0.5), np.float32(1))),
    }[kind]()
    return torch.as_tensor(masks).to(torch.float32)


def boxes_around(size, count, longest, seed=0):
    """Boxes of sides from half a pixel to `longest`, half of them in whole pixels, many over the picture's edges."""
    random = np.random.default_rng(seed)
    sides = np.exp(random.uniform(np.log(0.5), np.log(longest), (count, 2)))
    centres = random.uniform(-0.1, 1.1, (count, 2)) * [size[1], size[0]]
    boxes = torch.from_numpy(np.concatenate((centres - sides / 2, centres + sides / 2), 1)).to(torch.float32)
    boxes[::2] = boxes[::2].round()
    return boxes


KINDS = ["smooth", "noise", "quarters", "nearly half", "half, rounded", "half", "above half"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "longest"), [((90, 120), 30), ((90, 120), 400), ((311, 257), 900), ((1, 40), 60)])
def test_pixels_are_torchvisions(kind, size, longest):
    for seed in range(4):
        assert_torchvisions(made(kind, 25, seed=seed), boxes_around(size, 25, longest, seed), size)


@pytest.mark.parametrize("side", [1, 2, 7, 14, 56])
def test_grids_of_any_size(side):
    assert_torchvisions(made("noise", 40, side), boxes_around((150, 200), 40, 300), (150, 200))


def test_where_torch_changes_its_kernel():
    # It has another one up to a height and width of 128 in sum; here 122 to 134.
    sides = torch.arange(54.0, 61)
    boxes = torch.stack([torch.stack((w * 0, h * 0, w, h)) for w in sides for h in sides]) + 3.3
    for kind in ("noise", "quarters", "half, rounded", "half"):
        assert_torchvisions(made(kind, len(boxes)), boxes, (70, 70))


def test_boxes_far_larger_than_the_picture():
    # 300,000 pixels high, where a step in float32 is as long as the way to the next row; narrow for the canvas's sake.
    boxes = torch.tensor([[2.0, -1e5, 9, 2e5], [3, -2.5e5, 5, 0.5e5], [0, -3e5, 4, 100]])
    for kind in ("noise", "smooth", "nearly half", "half, rounded"):
        assert_torchvisions(made(kind, 3), boxes, (400, 12))


@pytest.mark.slow
def test_hundreds_of_millions_of_pixels_are_torchvisions():
    for seed in range(60):
        kind = KINDS[seed % len(KINDS)]
        assert_torchvisions(made(kind, 20, seed=seed), boxes_around((500, 400), 20, 1500, seed), (500, 400))


values = st.sampled_from([0.0, 0.25, 0.49999997, 0.5, 0.50000006, 0.5000005, 0.75, 1.0])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(values, min_size=9, max_size=9), min_size=1, max_size=3),
    st.tuples(*(st.floats(-60, 60, width=32),) * 2, *(st.floats(0, 90, width=32),) * 2),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_any_mask_in_any_box(masks, box, size):
    x, y, w, h = box
    boxes = torch.tensor([[x, y, x + w, y + h]]).repeat(len(masks), 1)
    assert_torchvisions(torch.tensor(masks).reshape(-1, 3, 3), boxes, size)


@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_strings_are_those_of_pycocotools(kind):
    oracle = pytest.importorskip("pycocotools.mask")
    size = (200, 300)
    boxes = boxes_around(size, 40, 600)
    boxes[0] = torch.tensor([-300.0, -300, 900, 900])  # columns as high as the picture
    edges, counts, canvases = assert_torchvisions(made(kind, 40), boxes, size)
    encoded = oracle.encode(np.asfortranarray(canvases.permute(1, 2, 0).to(torch.uint8).numpy()))
    assert [mask.counts for mask in Mask.from_edges(edges, counts, size)] == [one["counts"] for one in encoded]


def test_a_mask_of_one_value_by_hand():
    # Grown three times about its centre (4, 3) the box goes from -2 to 10 and from 0 to 6: 13 and 7 pixels with the one
    # that is added. The value falls from 1 at pixel (4, 3) by 3 / 13 a column and by 3 / 7 a row, and both are
    # multiplied: 1, 0.77, 0.54, 0.31 along the row, 1, 0.57, 0.14 down the column, and 0.44 off either.
    edges, counts = mask_runs(torch.ones(1, 1, 1), torch.tensor([[2.0, 2, 6, 4]]), (10, 20))
    assert edges.tolist() == [23, 24, 33, 34, 42, 45, 53, 54, 63, 64]
    assert counts.tolist() == [10]


def test_a_mask_that_fills_the_picture_is_one_stretch():
    boxes = torch.tensor([[-100.0, -100, 200, 200]])
    edges, counts = mask_runs(torch.ones(1, 28, 28), boxes, (30, 40))
    assert (edges.tolist(), counts.tolist()) == ([0, 1200], [2])


def test_boxes_that_hold_nothing():
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor(
        [
            [nan, 0, 10, 10],
            [0, 0, inf, 10],
            [-inf, -inf, inf, inf],
            [0, 0, 1e30, 10],
            [-3e38, 0, 3e38, 10],
            [100, 100, 120, 120],
            [-50, 5, -20, 30],
            [5, -50, 30, -20],
            [41, 0, 60, 20],
            [20, 20, 10, 10],
            [20, 5, 10, 25],
        ]
    )
    edges, counts = mask_runs(torch.ones(len(boxes), 28, 28), boxes, (30, 40))
    assert (edges.size, counts.tolist()) == (0, [0] * len(boxes))
    # Among others, they change nothing.
    mixed = torch.cat((boxes, torch.tensor([[5.0, 5, 25, 25]]), boxes))
    _, counts = mask_runs(torch.ones(len(mixed), 28, 28), mixed, (30, 40))
    assert counts.nonzero()[0].tolist() == [len(boxes)]


def test_a_box_without_area_is_the_pixel_that_is_added():
    boxes = torch.tensor([[7.2, 3.9, 7.2, 3.9], [7.2, 3.9, 7.2, 6.1]])
    edges, _, canvases = assert_torchvisions(torch.ones(2, 28, 28), boxes, (30, 40))
    assert canvases[0].nonzero().tolist() == [[3, 7]]
    assert edges[:2].tolist() == [7 * 30 + 3, 7 * 30 + 4]


@pytest.mark.parametrize(("count", "size"), [(0, (30, 40)), (3, (0, 40)), (3, (30, 0))])
def test_no_masks_and_pictures_without_pixels(count, size):
    edges, counts = mask_runs(torch.ones(count, 28, 28), torch.tensor([[0.0, 0, 9, 9]]).repeat(count, 1), size)
    assert (edges.size, counts.tolist()) == (0, [0] * count)
    assert edges.dtype == counts.dtype == np.int64


def test_what_is_not_a_probability_is_made_one():
    masks = made("smooth", 3)
    wrong = masks.clone()
    wrong[0, 3:9, 4:20], wrong[1, 5, 5], wrong[2, 6, 6:9] = float("nan"), float("inf"), -float("inf")
    masks[0, 3:9, 4:20], masks[1, 5, 5], masks[2, 6, 6:9] = 0, 1, 0
    boxes = boxes_around((90, 120), 3, 100)
    for ours, expected in zip(mask_runs(wrong, boxes, (90, 120)), mask_runs(masks, boxes, (90, 120))):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("kind", ["noise", "half, rounded"])
def test_portions_have_no_say(kind, monkeypatch):
    masks, boxes = made(kind, 12), boxes_around((90, 120), 12, 200)
    whole = mask_runs(masks, boxes, (90, 120))
    for portion in (1, 50, 1000):
        monkeypatch.setattr(paste, "_COLUMNS", portion)
        monkeypatch.setattr(paste, "_PIXELS", portion)
        for ours, expected in zip(mask_runs(masks, boxes, (90, 120)), whole):
            np.testing.assert_array_equal(ours, expected)


def test_a_hundred_masks_as_large_as_a_large_picture_need_little_memory():
    boxes = torch.tensor([[0.0, 0, 4000, 3000]]).repeat(100, 1)
    masks = made("smooth", 100)
    tracemalloc.start()
    edges, counts = mask_runs(masks, boxes, (3000, 4000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts.sum() == len(edges) > 100_000
    assert peak < 100e6
