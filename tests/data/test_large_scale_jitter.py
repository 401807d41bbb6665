"""Large-scale jitter: its range, and pixels and objects against plain arithmetic; which number decides what."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sets import blob
from test_transforms import sample_of

from tracesight.data import transforms
from tracesight.data.batch import collate
from tracesight.data.random import generator
from tracesight.data.sample import Sample


class Numbers:
    """In place of a generator: gives the numbers it is told, and only that many."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = np.array(numbers)

    def random(self, count: int) -> np.ndarray:
        assert count == len(self.numbers)
        return self.numbers


@pytest.mark.parametrize("wide", [False, True])
def test_which_number_decides_what(wide: bool) -> None:
    """A change of this would change every training that is taken up again."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:40, :40]
    none = np.zeros((0, 4), np.float32)
    sample = Sample(image, none, np.zeros(0, np.int64), np.zeros(0, bool), None, none)

    def done(*numbers: float) -> np.ndarray:
        rng: Any = Numbers(*numbers)
        if wide:
            done = transforms.large_scale_jitter(
                sample, rng, image_size=20, scales=(1.0, 3.0), vertical_flip=True, transpose=True
            )
        else:
            done = transforms.train_transform(
                sample, rng, image_size=20, scales=(1.0, 4.0), crop_size=20, vertical_flip=True, transpose=True
            )
        return done.image[..., :2]

    rest = (0.9, 0.9, 0.9, 0.9)  # colours; 0.5 makes both factors 2, so that the picture keeps its 40 × 40
    cut = done(0.5, 0.0, 0.5, 0.9, 0.9, 0.9, *rest)
    np.testing.assert_array_equal(cut, image[:20, 10:30, :2])
    np.testing.assert_array_equal(done(0.5, 0.999, 0.25, 0.9, 0.9, 0.9, *rest), image[20:, 5:25, :2])
    np.testing.assert_array_equal(done(0.5, 0.0, 0.5, 0.4, 0.9, 0.9, *rest), cut[:, ::-1])
    np.testing.assert_array_equal(done(0.5, 0.0, 0.5, 0.9, 0.4, 0.9, *rest), cut[::-1])
    np.testing.assert_array_equal(done(0.5, 0.0, 0.5, 0.9, 0.9, 0.4, *rest), cut.swapaxes(0, 1))
    np.testing.assert_array_equal(done(0.5, 0.0, 0.5, 0.4, 0.4, 0.4, *rest), cut[::-1, ::-1].swapaxes(0, 1))


def test_a_wide_jitter_is_uniform_between_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    original = transforms.resize_crop
    monkeypatch.setattr(transforms, "resize_crop", lambda s, size, w: (sizes.append(size), original(s, size, w))[1])
    sample = sample_of([], 6, 30)
    for draw in range(1500):
        result = transforms.large_scale_jitter(sample, generator(0, draw, "augment"), image_size=100)
        height, width = sizes[-1]
        assert abs(height - width / 5) <= 0.6  # 0.5 for each rounding, of which the width's is divided by 5
        assert result.size == (height, min(width, 100))
    factors = np.sort([width / 100 for _, width in sizes])
    assert (0.1 <= factors[0] < 0.12, 1.98 < factors[-1] <= 2.0) == (True, True)
    expected = (factors - 0.1) / 1.9
    steps = np.arange(len(factors) + 1) / len(factors)
    # Kolmogorov and Smirnov, 0.1 %, and the rounding to whole pixels.
    assert max((steps[1:] - expected).max(), (expected - steps[:-1]).max()) < 1.95 / math.sqrt(1500) + 0.5 / 190


@pytest.mark.parametrize("size", [(32, 32), (1, 5000), (3000, 2), (1, 1)])
def test_the_smallest_of_pictures_have_a_pixel_left(size: tuple[int, int]) -> None:
    sample = sample_of([np.ones(size, bool)], *size)
    for draw in range(4):
        small = transforms.large_scale_jitter(
            sample, generator(0, draw, "augment"), image_size=32, scales=(0.1, 0.1), transpose=True
        )
        assert sorted(small.size) == sorted(max(1, round(3.2 * side / max(size))) for side in size)
        assert small.boxes.tolist() == [[0, 0, small.size[1], small.size[0]]]
        assert small.image.size == small.size[0] * small.size[1] * 3


def cells(mask: np.ndarray, box: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """Where each set pixel of a mask (h, w) lies that spans `box`: (pixels, 4) x1, y1, x2, y2."""
    y, x = np.nonzero(mask)
    (x1, y1, x2, y2), (h, w) = box, mask.shape
    across, down = (x2 - x1) / w, (y2 - y1) / h
    return np.stack([x1 + x * across, y1 + y * down, x1 + (x + 1) * across, y1 + (y + 1) * down], axis=1)


@settings(deadline=None, max_examples=80)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(0, 10**6))
def test_a_wide_jitter_moves_every_pixel_of_every_object(height: int, width: int, seed: int) -> None:
    """Against plain arithmetic on the corners of each mask pixel, and on the picture resized as a whole."""
    rng = np.random.default_rng(seed)
    masks = [blob(height, width, rng) for _ in range(4)]
    sample = sample_of(masks, height, width, seed)
    result = transforms.large_scale_jitter(
        sample, generator(seed, 0, "augment"), image_size=48, vertical_flip=True, transpose=True
    )
    draws = generator(seed, 0, "augment").random(10)
    scale = 48 * (0.1 + 1.9 * draws[0]) / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    h, w = min(size[0], 48), min(size[1], 48)
    top, left = int(draws[1] * (size[0] - h + 1)), int(draws[2] * (size[1] - w + 1))
    turns = draws[3:6] < 0.5
    image = transforms.resize(sample.image, size)[top : top + h, left : left + w]
    image = image[:, ::-1] if turns[0] else image
    image = image[::-1] if turns[1] else image
    image = image.swapaxes(0, 1) if turns[2] else image
    seen = result.image / np.float32(255) if result.image.dtype == np.uint8 else result.image
    np.testing.assert_array_equal(seen, image)

    kept = dict(zip(result.labels.tolist(), range(len(result.labels))))
    for label, mask in enumerate(masks, start=1):
        whole = cells(mask, (-left, -top, size[1] - left, size[0] - top))
        part = np.clip(whole, 0, [w, h, w, h])
        part = part[(part[:, 2:] - part[:, :2] > 1e-3).all(axis=1)]
        if label not in kept:
            area = np.prod(whole[0, 2:] - whole[0, :2])
            assert len(part) * area < 6.001 or len(part) < 0.021 * len(whole)
            continue
        if turns[0]:
            whole[:, [0, 2]], part[:, [0, 2]] = w - whole[:, [2, 0]], w - part[:, [2, 0]]
        if turns[1]:
            whole[:, [1, 3]], part[:, [1, 3]] = h - whole[:, [3, 1]], h - part[:, [3, 1]]
        if turns[2]:
            whole, part = whole[:, [1, 0, 3, 2]], part[:, [1, 0, 3, 2]]
        box = [*part[:, :2].min(axis=0), *part[:, 2:].max(axis=0)]
        np.testing.assert_allclose(result.boxes[kept[label]], box, atol=2e-3)
        assert result.masks is not None
        crop = result.masks[kept[label]]
        assert isinstance(crop, np.ndarray)
        moved = cells(crop, result.mask_boxes[kept[label]])
        # Sorted by place: rounded first, or the last bit of a coordinate would decide.
        whole, moved = (a[np.lexsort(a[:, :2].round(2).T)] for a in (whole, moved))
        np.testing.assert_allclose(moved, whole, atol=2e-3)


def test_nothing_of_a_wide_jitter_lies_outside_and_batches_fit_the_square() -> None:
    rng = np.random.default_rng(0)
    samples = []
    for draw in range(60):
        height, width = rng.integers(10, 90, 2)
        sample = sample_of([blob(height, width, rng, least=2) for _ in range(5)], height, width, draw)
        first, again = (
            transforms.large_scale_jitter(
                sample, generator(3, draw, "augment"), image_size=50, vertical_flip=True, transpose=True, colour=0.3
            )
            for _ in range(2)
        )
        np.testing.assert_array_equal(first.image, again.image)
        np.testing.assert_array_equal(first.boxes, again.boxes)
        assert max(first.size) <= 50
        assert (first.boxes[:, :2] >= 0).all()
        assert (first.boxes[:, 2:] <= first.size[::-1]).all()
        assert (first.boxes[:, 2:] > first.boxes[:, :2]).all()
        samples.append(first)
    batch, _ = collate(samples, [(3, draw) for draw in range(60)])
    assert batch.images.shape == (60, 3, 64, 64)
    for i, sample in enumerate(samples):
        height, width = sample.size
        assert not batch.images[i, :, height:].any()
        assert not batch.images[i, :, :, width:].any()


def test_objects_outside_a_wide_jitter_are_dropped_and_small_ones_stay() -> None:
    masks = np.zeros((2, 100, 100), bool)
    masks[0, 2:4, 2:4] = masks[1, 90:99, 90:99] = True
    sample = sample_of(list(masks), 100, 100)

    def labels(factor: float, place: float) -> list[int]:
        rng: Any = Numbers(0.0, place, place, *[0.9] * 7)
        return transforms.large_scale_jitter(sample, rng, image_size=100, scales=(factor, factor)).labels.tolist()

    assert labels(2.0, 0.0) == [1]
    assert labels(2.0, 0.999) == [2]
    assert labels(0.1, 0.0) == [1, 2]  # 0.2 px and 0.9 px wide
