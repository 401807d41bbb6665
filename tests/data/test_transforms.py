"""Boxes, crops and what crops span follow the picture exactly; sizes and pixels are torchvision's and torch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sets import blob, tight
from torch.nn.functional import interpolate
from torchvision.models.detection.transform import _resize_image_and_masks

from tracesight.data import transforms
from tracesight.data.colour import jitter
from tracesight.data.random import generator
from tracesight.data.record import Annotation
from tracesight.data.sample import Sample, Undecoded, decoded
from tracesight.scene.mask import Mask

# ---- sizes and pixels


LIMITS = [(800, 1333), (256, 426), (144, 240), (512, 512), (100, 1000)]


@pytest.mark.parametrize(("image_size", "max_size"), LIMITS)
def test_sizes_are_torchvisions(image_size: int, max_size: int) -> None:
    for height, width in np.random.default_rng(0).integers(2, 200, (60, 2)).tolist():
        empty = torch.empty(1, height, width, device="meta")
        expected = tuple(_resize_image_and_masks(empty, image_size, max_size)[0].shape[-2:])
        assert transforms.resized_size(height, width, image_size, max_size) == expected, (height, width)


@pytest.mark.parametrize(("image_size", "max_size"), LIMITS)
def test_sizes_are_torchvisions_for_many_more(image_size: int, max_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's factor, and what torch makes of it (`torch.nn.functional.interpolate`), without the pixels."""

    def size_only(image: torch.Tensor, scale_factor: float, **_: object) -> torch.Tensor:
        return image[:, 0, :1, :1].new_tensor([[[math.floor(float(s) * scale_factor) for s in image.shape[2:]]]])

    monkeypatch.setattr(torch.nn.functional, "interpolate", size_only)
    rng = np.random.default_rng(0)
    sizes = [(h, w) for h in range(1, 40) for w in range(1, 40)] + rng.integers(40, 5000, (4000, 2)).tolist()
    rows = torch.zeros(1)
    for height, width in sizes:
        resized, _ = _resize_image_and_masks(rows.expand(1, height, width), image_size, max_size)
        expected = tuple(max(1, int(side)) for side in resized.flatten())
        assert transforms.resized_size(height, width, image_size, max_size) == expected, (height, width)


def test_the_long_side_is_five_thirds_unless_given() -> None:
    assert transforms.resized_size(100, 1000, 800) == transforms.resized_size(100, 1000, 800, 1333)
    assert transforms.resized_size(1, 100_000, 100) == (1, 166)


SHAPES = [(30, 40, 60, 90), (61, 47, 20, 31), (50, 50, 50, 50), (7, 90, 33, 11), (1, 1, 5, 5), (300, 401, 255, 341)]


@pytest.mark.parametrize("shape", SHAPES)
def test_resizing_is_torchs(shape: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape[:2], 3), dtype=np.uint8)
    expected = interpolate(torch.from_numpy(image).permute(2, 0, 1)[None] / 255, shape[2:], mode="bilinear")
    resized = transforms.resize(image, shape[2:])
    assert (resized.shape, resized.dtype) == ((*shape[2:], 3), np.float32)
    # torch rounds source positions in two ways, depending on its number of threads; one of them is ours to 1e-6.
    np.testing.assert_allclose(resized, expected[0].permute(1, 2, 0).numpy(), atol=5e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_window_is_resized_as_if_cut_afterwards(shape: tuple[int, int, int, int], kind: type) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*shape[:2], 3), dtype=np.uint8)
    image = image if kind is np.uint8 else image / np.float32(255)
    whole = transforms.resize(image, shape[2:])
    for _ in range(10):
        top, left = rng.integers(0, shape[2]), rng.integers(0, shape[3])
        height, width = rng.integers(1, shape[2] - top + 1), rng.integers(1, shape[3] - left + 1)
        window = transforms.resize_window(image, shape[2:], (top, left, height, width))
        window = window / np.float32(255) if window.dtype == np.uint8 else window
        np.testing.assert_array_equal(window, whole[top : top + height, left : left + width])


# ---- objects


def sample_of(masks: list[np.ndarray], height: int, width: int, seed: int = 0) -> Sample:
    """A picture of noise with undecoded masks (H, W)."""
    size = (height, width)
    objects = [Annotation(i, 1, tuple(map(float, tight(m))), Mask.from_array(m)) for i, m in enumerate(masks)]
    boxes = np.array([a.box for a in objects], np.float32).reshape(-1, 4)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(
        image, boxes, np.arange(1, len(masks) + 1), np.zeros(len(masks), bool),
        tuple(Undecoded(a, size) for a in objects), boxes,
    )  # fmt: skip


def pasted(sample: Sample, i: int) -> np.ndarray:
    """Mask i on the picture, where its box lies on whole pixels."""
    assert sample.masks is not None
    canvas, crop = np.zeros(sample.size, bool), sample.masks[i]
    assert isinstance(crop, np.ndarray)
    x1, y1, x2, y2 = sample.mask_boxes[i].astype(int)
    assert (x2 - x1, y2 - y1) == crop.shape[::-1]
    for y in range(max(y1, 0), min(y2, canvas.shape[0])):
        for x in range(max(x1, 0), min(x2, canvas.shape[1])):
            canvas[y, x] = crop[y - y1, x - x1]
    return canvas


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(0, 2), max_size=6), st.integers(0, 10**6))
def test_flips_and_transposition_are_exact(height: int, width: int, turns: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [mask for mask in (rng.random((height, width)) < 0.2 for _ in range(3)) if mask.any()]
    sample = sample_of(masks, height, width, seed)
    image = sample.image
    for turn in turns:
        sample = [transforms.flip_horizontal, transforms.flip_vertical, transforms.transpose][turn](sample)
        image, *masks = (
            [a[:, ::-1], a[::-1], a.swapaxes(0, 1)][turn] for a in (image, *masks)
        )  # fmt: skip
    sample = decoded(sample)
    np.testing.assert_array_equal(sample.image, image)
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(pasted(sample, i), mask)
        assert tuple(sample.boxes[i]) == tight(mask) == tuple(sample.mask_boxes[i])


@settings(deadline=None, max_examples=60)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(0, 10**6))
def test_a_cut_shows_what_the_cut_mask_shows(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [blob(height, width, rng) for _ in range(4)]
    h, w = rng.integers(8, height + 1), rng.integers(8, width + 1)
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    sample = sample_of(masks, height, width, seed)
    cut = transforms.resize_crop(sample, (height, width), (top, left, h, w))
    np.testing.assert_array_equal(cut.image, sample.image[top : top + h, left : left + w])
    kept = dict(zip(cut.labels.tolist(), range(len(cut.labels))))
    for label, mask in enumerate(masks, start=1):
        part = mask[top : top + h, left : left + w]
        enough = part.sum() >= 6 and part.sum() >= 0.02 * mask.sum()
        assert (label in kept) == (enough or (part.sum() == mask.sum()))
        if label in kept:
            np.testing.assert_array_equal(pasted(cut, kept[label]), part)
            assert tuple(cut.boxes[kept[label]]) == tight(part)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 4), st.integers(0, 10**6))
def test_enlarged_by_a_whole_factor_and_cut_the_pixels_agree(factor: int, seed: int) -> None:
    """Enlarged by a whole factor every mask pixel is a block, so the cut can be compared with arrays."""
    rng = np.random.default_rng(seed)
    masks = [blob(24, 30, rng) for _ in range(3)]
    size = (24 * factor, 30 * factor)
    top, left = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
    cut = transforms.resize_crop(sample_of(masks, 24, 30), size, (top, left, 20, 20))
    for label, box in zip(cut.labels, cut.boxes):
        large = masks[label - 1].repeat(factor, 0).repeat(factor, 1)[top : top + 20, left : left + 20]
        np.testing.assert_allclose(box, tight(large), atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 3), st.floats(0.3, 3), st.integers(0, 10**6))
def test_resizing_scales_boxes_by_each_axis(up: float, across: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [blob(40, 50, rng) for _ in range(3)]
    sample = sample_of(masks, 40, 50)
    size = (max(1, int(40 * up)), max(1, int(50 * across)))
    resized = transforms.resize_crop(sample, size)
    assert resized.size == size
    factor = np.array([size[1] / 50, size[0] / 40] * 2)
    np.testing.assert_allclose(resized.boxes, sample.boxes * factor, rtol=1e-6)
    np.testing.assert_allclose(resized.mask_boxes, sample.boxes * factor, rtol=1e-6)
    crops = resized.masks
    assert crops is not None
    for crop, mask in zip(crops, masks):
        x1, y1, x2, y2 = tight(mask)
        np.testing.assert_array_equal(crop, mask[y1:y2, x1:x2])  # the resolution stays the drawn one


def test_objects_without_masks_crowds_and_slivers() -> None:
    size = (100, 100)
    boxes = np.array([[0, 0, 50, 50], [40, 0, 100, 50], [0, 0, 10.5, 40], [0, 0, 11, 3], [60, 60, 90, 90]], np.float32)
    crowd = np.array([False, True, False, False, False])
    objects = [Annotation(i, 1, tuple(map(float, box)), None, bool(c)) for i, (box, c) in enumerate(zip(boxes, crowd))]
    sample = Sample(
        np.zeros((100, 100, 3), np.uint8), boxes, np.arange(1, 6), crowd, tuple(Undecoded(a, size) for a in objects),
        boxes,
    )  # fmt: skip
    cut = transforms.resize_crop(sample, size, (0, 10, 40, 31))
    assert cut.labels.tolist() == [1, 2, 3]  # 4 shows 3 pixels, 5 is outside; of the crowd one column is enough
    assert cut.boxes.tolist() == [[0, 0, 31, 40], [30, 0, 31, 40], [0, 0, 0.5, 40]]
    assert all(isinstance(mask, np.ndarray) and mask.shape == (0, 0) for mask in cut.masks or ())
    boxes_only = transforms.resize_crop(
        Sample(sample.image, boxes, sample.labels, crowd, None, boxes), size, (0, 10, 40, 31)
    )
    np.testing.assert_array_equal(boxes_only.boxes, cut.boxes)
    assert boxes_only.masks is None


def test_masks_outside_the_window_are_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.zeros((3, 60, 60), bool)
    masks[0, 5:15, 5:15] = masks[1, 40:55, 40:55] = masks[2, 20:30, 20:30] = True
    seen: list[tuple[float, ...]] = []
    original = Mask.to_crop
    monkeypatch.setattr(Mask, "to_crop", lambda mask: (seen.append(mask.box), original(mask))[1])
    transforms.resize_crop(sample_of(list(masks), 60, 60), (60, 60), (0, 0, 32, 32))
    assert seen == [(5, 5, 15, 15), (20, 20, 30, 30)]


# ---- the two recipes of transforms


def test_the_place_of_a_cut_is_uniform() -> None:
    image = np.zeros((12, 10, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:12, :10]
    none = np.zeros((0, 4), np.float32)
    sample = Sample(image, none, np.zeros(0, np.int64), np.zeros(0, bool), (), none)
    counts = np.zeros((5, 3), int)
    for draw in range(3000):
        cut = transforms.train_transform(
            sample, generator(0, draw, "augment"), image_size=None, crop_size=8, flip=False
        )
        assert cut.size == (8, 8)
        counts[tuple(cut.image[0, 0, :2])] += 1
    expected = 3000 / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < 36  # χ² of 14 degrees of freedom, 0.1%


def test_a_picture_smaller_than_the_cut_stays_as_it_is() -> None:
    sample = sample_of([np.ones((20, 30), bool)], 20, 30)
    cut = transforms.train_transform(sample, generator(0, 0, "augment"), image_size=None, crop_size=25, flip=False)
    assert cut.size == (20, 25)


def test_every_choice_has_its_own_number() -> None:
    """Switching the flips off changes neither the place of the cut nor the colours."""
    sample = sample_of([], 40, 40)
    for draw in range(8):
        plain, turned = (
            transforms.train_transform(
                sample, generator(0, draw, "augment"), image_size=36, scales=(0.8, 1.6), crop_size=20, colour=0.4,
                flip=turning, vertical_flip=turning, transpose=turning,
            ).image
            for turning in (False, True)
        )  # fmt: skip
        turns = [
            t for swap in (plain, plain.swapaxes(0, 1)) for t in (swap, swap[::-1], swap[:, ::-1], swap[::-1, ::-1])
        ]
        assert any(np.allclose(turned, turn, atol=1e-6) for turn in turns)


def test_each_turn_is_taken_half_the_time() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[0, 1], image[1, 0] = 1, 2, 3
    none = np.zeros((0, 4), np.float32)
    sample = Sample(image, none, np.zeros(0, np.int64), np.zeros(0, bool), None, none)
    seen: dict[bytes, int] = {}
    for draw in range(800):
        rng = generator(0, draw, "augment")
        turned = transforms.train_transform(
            sample, rng, image_size=None, flip=True, vertical_flip=True, transpose=True
        ).image[..., 0]
        seen[turned.tobytes()] = seen.get(turned.tobytes(), 0) + 1
    assert len(seen) == 8
    assert min(seen.values()) > 65


def test_scale_jitter_is_between_its_bounds_and_spread_in_the_logarithm() -> None:
    sample = sample_of([], 100, 140)
    factors = [
        transforms.train_transform(sample, generator(0, d, "augment"), image_size=100, scales=(0.5, 2.0)).size[0] / 100
        for d in range(300)
    ]
    assert 0.49 <= min(factors) < 0.55
    assert 1.8 < max(factors) <= 2.0
    assert abs(np.mean([math.log(f) for f in factors])) < 0.08


def test_evaluation_only_resizes() -> None:
    sample = sample_of([np.ones((50, 80), bool)], 50, 80)
    resized = transforms.eval_transform(sample, image_size=100)
    assert resized.size == (100, 160)
    assert resized.boxes.tolist() == [[0, 0, 160, 100]]
    np.testing.assert_array_equal(resized.image, transforms.resize(sample.image, (100, 160)))


# ---- colours


def test_colours() -> None:
    image = np.random.default_rng(0).random((9, 7, 3), np.float32) * 0.5 + 0.25
    np.testing.assert_allclose(jitter(image, [0.5, 0.5, 0.5, 0.5], 0.3), image, atol=1e-6)
    np.testing.assert_allclose(jitter(image, [1.0, 0.5, 0.5, 0.5], 0.1), image * 1.1, atol=1e-6)
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(jitter(image, [0.5, 0.5, 0.0, 0.5], 1.0), np.repeat(grey[..., None], 3, 2), atol=1e-6)
    np.testing.assert_allclose(jitter(image, [0.5, 0.0, 0.5, 0.5], 1.0), grey.mean(), atol=1e-6)
    turned = jitter(image, [0.5, 0.5, 0.5, 1.0], 0.2)
    assert np.abs(turned - image).max() > 0.01
    np.testing.assert_allclose(turned @ np.array([0.299, 0.587, 0.114], np.float32), grey, atol=2e-3)
    wild = jitter(image, [1.0, 1.0, 1.0, 1.0], 1.0)
    assert (wild.min() >= 0, wild.max() <= 1, wild.dtype) == (True, True, np.float32)
