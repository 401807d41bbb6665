"""What is done to pictures between file and network: resize, cut, flip, transpose, colours. Objects follow exactly.

Letters: H, W height and width of the picture; a window is (top, left, height, width) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tracesight.data.colour import jitter
from tracesight.data.sample import Sample, decoded

Transform = Callable[[Sample, np.random.Generator], Sample]
Window = tuple[int, int, int, int]

# An object that the edge cuts is dropped where less of it is left: pixels of the new picture, or share of the object.
MIN_VISIBLE_PIXELS = 6.0
MIN_VISIBLE_SHARE = 0.02
MIN_PROPOSAL_SIDE = 1.0  # pixels of the new picture, of what the edge leaves of a proposal
LARGE_SCALES = (0.1, 2.0)  # of `large_scale_jitter`, as published

_DRAWS = 10  # numbers of one picture: its scale, the place of the cut (2), flips and transposition (3), colours (4)
_NO_CROP = np.zeros((0, 0), np.uint8)
_BLOCK = 64  # rows that are resized at a time, so that what lies between stays in the processor's cache
_EDGE = 1e-4  # of a mask cell: what rounding can move its edge by


def resized_size(height: int, width: int, image_size: float, max_size: float | None = None) -> tuple[int, int]:
    """(height, width) after the short side has become `image_size`, or the long side `max_size` where that is less.

    The arithmetic, rounding included, is that of torchvision's GeneralizedRCNNTransform run eagerly (double precision,
    sides rounded down). max_size: 5/3 of `image_size`, rounded down, unless given. Sides are at least 1.
    """
    if max_size is None:
        max_size = int(image_size * 5 / 3)
    scale = min(image_size / min(height, width), max_size / max(height, width))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) uint8, or float32 in 0–1, to (*size, C) float32 in 0–1: bilinear, without antialiasing.

    Equal to torch's `F.interpolate(mode="bilinear", align_corners=False)` but for rounding. That function itself gives
    other last bits with another number of threads, so with another number of workers.
    """
    return _unit(resize_window(image, size, (0, 0, *size)))


def resize_window(image: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """`resize(image, size)` cut to `window`, bit for bit, computed for the window alone.

    Returns uint8 as it was where nothing is resized, else float32 in 0–1.
    """
    top, left, height, width = window
    if image.shape[:2] == tuple(size):
        return image[top : top + height, left : left + width]
    above, below, down = _taps(image.shape[0], size[0], top, height)
    before, after, across = _taps(image.shape[1], size[1], left, width)
    first, last = before[0], after[-1] + 1
    source, down, across = image[:, first:last], down[:, None, None], across[None, :, None]
    before, after = before - first, after - first
    pixels = np.empty((height, width, image.shape[2]), np.float32)
    for start in range(0, height, _BLOCK):
        rows = slice(start, start + _BLOCK)
        lines = _between(source[above[rows]], source[below[rows]], down[rows])
        pixels[rows] = _between(np.take(lines, before, axis=1), np.take(lines, after, axis=1), across)
    if image.dtype == np.uint8:
        pixels /= np.float32(255)
    return pixels


def _between(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """first + (second - first) * weight, float32."""
    first, second = first.astype(np.float32, copy=False), second.astype(np.float32, copy=False)
    second = second - first
    second *= weight
    second += first
    return second


def _taps(length: int, resized: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For `count` pixels from `start` of a resized side: the two pixels they come from, and the second's weight."""
    # In single precision, as torch has it: on a long side its rounding shows in the fifth digit of a weight. Where
    # torch fuses product and difference (AVX2) it rounds once; twice is the same on every processor.
    half, ratio = np.float32(0.5), np.float32(length) / np.float32(resized)
    at = np.maximum((np.arange(start, start + count, dtype=np.float32) + half) * ratio - half, np.float32(0))
    low = np.minimum(at.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), at - low.astype(np.float32)


def _unit(image: np.ndarray) -> np.ndarray:
    """Pixels as float32 in 0–1."""
    return image / np.float32(255) if image.dtype == np.uint8 else image


def resize_crop(
    sample: Sample, size: tuple[int, int], window: Window | None = None, *, seam: float | None = None
) -> Sample:
    """Resize the picture to `size` and keep `window` of it, without computing the rest or decoding masks outside.

    Crops of masks stay whole and at their own resolution; `mask_boxes` says where they now lie. An object that the
    window cuts gets the box of what remains visible of its mask, or of its box where it has none, and is dropped where
    too little remains (`MIN_VISIBLE_PIXELS`, `MIN_VISIBLE_SHARE`). Crowds are kept as long as any of them is inside.
    seam: of which less than this share remains becomes a region to ignore, like a crowd; None: nothing does.
    A keypoint outside the window is one that nobody labelled.
    """
    window = window or (0, 0, *size)
    top, left, height, width = window
    scale = np.array([size[1] / sample.size[1], size[0] / sample.size[0]] * 2)
    offset, limit = np.array([left, top] * 2), np.array([width, height] * 2)
    whole = sample.boxes * scale - offset
    clipped = np.clip(whole, 0, limit)
    inside = np.flatnonzero((clipped[:, 2:] > clipped[:, :2]).all(axis=1))
    sample, whole, clipped = decoded(sample.select(inside)), whole[inside], clipped[inside]
    mask_boxes = sample.mask_boxes * scale - offset
    keep, ignored = np.ones(len(clipped), np.bool_), np.zeros(len(clipped), np.bool_)
    for i in np.flatnonzero((np.abs(whole - clipped) > _EDGE).any(axis=1) & ~sample.crowd):
        crop = _NO_CROP if sample.masks is None else sample.masks[i]
        visible = _visible(crop, mask_boxes[i], height, width)  # type: ignore[arg-type]
        box, pixels, share = visible or (clipped[i], _area(clipped[i]), _area(clipped[i]) / _area(whole[i]))
        if seam is not None and share < seam:
            ignored[i] = True  # all of the box that may be of it, not only what its mask shows
            continue
        keep[i] = pixels >= MIN_VISIBLE_PIXELS and share >= MIN_VISIBLE_SHARE
        clipped[i] = box
    if ignored.any():
        masks = sample.masks
        if masks is not None:
            masks = tuple(_NO_CROP if none else mask for mask, none in zip(masks, ignored))
        sample = replace(sample, crowd=sample.crowd | ignored, masks=masks)
    image = resize_window(sample.image, size, window)
    proposals = sample.proposals
    if proposals is not None:
        proposals = np.clip(proposals * scale - offset, 0, limit).astype(np.float32)
        proposals = proposals[(proposals[:, 2:] - proposals[:, :2] >= MIN_PROPOSAL_SIDE).all(axis=1)]
    points = sample.keypoints.copy()
    points[..., :2] = points[..., :2] * scale[:2] - offset[:2]
    points[((points[..., :2] < 0) | (points[..., :2] > limit[:2])).any(axis=-1), 2] = 0
    sample = replace(
        sample,
        proposals=proposals,
        image=image,
        boxes=clipped.astype(np.float32),
        mask_boxes=mask_boxes.astype(np.float32),
        keypoints=points,
    )
    return sample if keep.all() else sample.select(np.flatnonzero(keep))


def _visible(
    crop: np.ndarray, box: np.ndarray, height: int, width: int
) -> tuple[tuple[float, float, float, float], float, float] | None:
    """(box, pixels, share) of what a (height, width) window shows of a mask that spans `box`; None without a crop."""
    if crop.size == 0:
        return None
    h, w = crop.shape
    x1, y1, x2, y2 = (float(v) for v in box)
    cell_x, cell_y = (x2 - x1) / w, (y2 - y1) / h
    first_row, last_row = _cells(y1, cell_y, h, height)
    first_column, last_column = _cells(x1, cell_x, w, width)
    part = crop[first_row:last_row, first_column:last_column]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if rows.size == 0:
        return (0.0, 0.0, 0.0, 0.0), 0.0, 0.0
    count = np.count_nonzero(part)
    visible = (
        max(0.0, x1 + (first_column + int(columns[0])) * cell_x),
        max(0.0, y1 + (first_row + int(rows[0])) * cell_y),
        min(float(width), x1 + (first_column + int(columns[-1]) + 1) * cell_x),
        min(float(height), y1 + (first_row + int(rows[-1]) + 1) * cell_y),
    )
    return visible, count * cell_x * cell_y, count / np.count_nonzero(crop)


def _cells(start: float, cell: float, count: int, limit: int) -> tuple[int, int]:
    """The half-open range of `count` cells from `start` on that lie inside 0 to `limit`, if only in part."""
    first = math.floor(-start / cell + _EDGE)
    last = math.ceil((limit - start) / cell - _EDGE)
    return min(max(first, 0), count), min(max(last, 0), count)


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def flip_horizontal(sample: Sample) -> Sample:
    """Left becomes right."""
    return _mirrored(sample, axis=1)


def flip_vertical(sample: Sample) -> Sample:
    """Top becomes bottom."""
    return _mirrored(sample, axis=0)


def _mirrored(sample: Sample, axis: int) -> Sample:
    sample, low = decoded(sample), 1 - axis  # boxes hold x at 0 and 2, y at 1 and 3
    length = np.float32(sample.size[axis])

    def boxes(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[:, [low, low + 2]] = length - values[:, [low + 2, low]]
        return values

    masks = None if sample.masks is None else tuple(np.flip(mask, axis) for mask in sample.masks)  # type: ignore[arg-type]
    points = _swapped(sample)
    points[..., low] = length - points[..., low]
    return replace(
        sample, image=np.flip(sample.image, axis), boxes=boxes(sample.boxes), masks=masks,
        mask_boxes=boxes(sample.mask_boxes), proposals=None if sample.proposals is None else boxes(sample.proposals),
        keypoints=points,
    )  # fmt: skip


def _swapped(sample: Sample) -> np.ndarray:
    """The keypoints (n, K, 3) in a mirror's order. All of the turns here are mirrors: upside down is one and a half
    turn, and in both a left hand becomes a right one."""
    return np.take_along_axis(sample.keypoints, sample.mirrored[..., None], axis=1)


def transpose(sample: Sample) -> Sample:
    """Rows become columns; with the flips this gives all eight positions a picture can lie in."""
    sample, swap = decoded(sample), [1, 0, 3, 2]
    masks = None if sample.masks is None else tuple(mask.T for mask in sample.masks)  # type: ignore[union-attr]
    return replace(
        sample, image=sample.image.transpose(1, 0, 2), boxes=sample.boxes[:, swap], masks=masks,
        mask_boxes=sample.mask_boxes[:, swap], keypoints=_swapped(sample)[..., [1, 0, 2]],
        proposals=None if sample.proposals is None else sample.proposals[:, swap],
    )  # fmt: skip


def train_transform(
    sample: Sample,
    rng: np.random.Generator,
    *,
    image_size: int | None,
    max_size: int | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
    crop_size: int | None = None,
    flip: bool = True,
    vertical_flip: bool = False,
    transpose: bool = False,
    colour: float = 0.0,
) -> Sample:
    """Resize with scale jitter, cut at a uniformly random place, flip, transpose, change colours.

    image_size, max_size: the size before jitter, as in `resized_size`; image_size None keeps the picture's own.
    scales: factor on both, drawn so that its logarithm is uniform between the two.
    crop_size: side of the square that is cut out; a picture that is smaller stays as it is and is padded in the batch.
    flip, vertical_flip, transpose: each done half the time. colour: strength, see `colour.jitter`; 0 leaves it out.
    Each choice has a random number of its own: switching one on or off changes no other.
    """
    draws = rng.random(_DRAWS)
    low, high = scales
    factor = low * (high / low) ** draws[0]
    size = _jittered_size(sample, image_size, max_size, factor)
    turns = (flip, vertical_flip, transpose)
    return _cut_and_turned(sample, size, crop_size, draws, turns, colour)


def large_scale_jitter(
    sample: Sample,
    rng: np.random.Generator,
    *,
    image_size: int,
    scales: tuple[float, float] = LARGE_SCALES,
    flip: bool = True,
    vertical_flip: bool = False,
    transpose: bool = False,
    colour: float = 0.0,
) -> Sample:
    """Resize by a factor from a wide range, cut a square at a random place, flip, transpose, change colours.

    Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021,
    section 3, with the arithmetic of detectron2's `ResizeScale` and `FixedSizeCrop`.

    image_size: side of the square; at factor 1 the long side of the picture (in `train_transform` the short one).
    scales: the factor is drawn uniformly between the two, both above 0. The picture is resized until it just fits a
    square of `image_size` × factor; sides are rounded, and at least 1.
    flip, vertical_flip, transpose, colour: as in `train_transform`.

    Only what remains after the cut is computed. An object of which the cut leaves too little is dropped, as
    `resize_crop` says; one that has only become small stays.
    A side that is smaller than the square stays so, where the paper pads it: the batch pads to its largest picture,
    with what is 0 after standardisation. The square itself holds nothing more, but two things follow: batches vary in
    shape, up to `image_size` rounded up to a multiple of 32, and fewer of the anchors that are sampled as background
    lie on padding, where there is nothing to learn.
    """
    draws = rng.random(_DRAWS)
    low, high = scales
    scale = image_size * (low + (high - low) * draws[0]) / max(sample.size)
    height, width = (max(1, round(side * scale)) for side in sample.size)
    turns = (flip, vertical_flip, transpose)
    return _cut_and_turned(sample, (height, width), image_size, draws, turns, colour)


def _cut_and_turned(
    sample: Sample,
    size: tuple[int, int],
    crop_size: int | None,
    draws: np.ndarray,
    turns: tuple[bool, bool, bool],
    colour: float,
) -> Sample:
    """Resized to `size`, cut where draws (10,) say, then flipped, transposed and coloured as they say.

    turns: whether to flip, flip vertically and transpose half the time.
    """
    height, width = (min(side, crop_size) for side in size) if crop_size else size
    top, left = (math.floor(u * (side - kept + 1)) for u, side, kept in zip(draws[1:3], size, (height, width)))
    sample = resize_crop(sample, size, (top, left, height, width))
    for turn, wanted, number in zip((flip_horizontal, flip_vertical, transpose), turns, draws[3:6]):
        if wanted and number < 0.5:
            sample = turn(sample)
    if colour:
        sample = replace(sample, image=jitter(_unit(sample.image), draws[6:10], colour))
    return sample


def _jittered_size(sample: Sample, image_size: int | None, max_size: int | None, factor: float) -> tuple[int, int]:
    if image_size is None:
        height, width = sample.size
        return max(1, math.floor(height * factor)), max(1, math.floor(width * factor))
    limit = int(image_size * 5 / 3) if max_size is None else max_size
    return resized_size(*sample.size, image_size * factor, limit * factor)


def eval_transform(
    sample: Sample, rng: np.random.Generator | None = None, *, image_size: int, max_size: int | None = None
) -> Sample:
    """Resize only; `rng` is there so that both transforms are called alike."""
    return resize_crop(sample, resized_size(*sample.size, image_size, max_size))
