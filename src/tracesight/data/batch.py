"""Samples into tensors of few, fixed shapes.

Letters: N pictures; C channels; H, W padded height and width; M objects a picture, padded; P mask pixels of the batch,
padded; K keypoints an object, 0 where they are not learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tracesight.data.sample import Sample, Undecoded
from tracesight.data.transforms import resize, resized_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STRIDE = 32  # pictures are padded to multiples of it
_COUNTS = (32, 128, 512, 2048)


class Batch(NamedTuple):
    """Pictures for a network.

    images: (N, C, H, W) float32, RGB or other channels, in 0–1, channels last in memory; H and W are multiples of 32,
        what is beyond a picture is 0. sizes: (N, 2) int64, (height, width) of the real picture inside. keys: (N, 2)
        int64, (seed, draw number), to which every random number of the step belongs.
    proposals: (N, P, 4) float32 (x1, y1, x2, y2) in network pixels, where to look, best first, and proposals_valid
        (N, P) bool, which of them are there and not padding; None for a model that finds its own.
    """

    images: Tensor
    sizes: Tensor
    keys: Tensor
    proposals: Tensor | None = None
    proposals_valid: Tensor | None = None


class Targets(NamedTuple):
    """What is to be found on the pictures of a `Batch`.

    boxes: (N, M, 4) float32 (x1, y1, x2, y2) in network pixels. labels: (N, M) int64, 1 to C, 0 where there is none.
    valid: (N, M) bool, objects to learn from: neither crowds nor padding. crowd: (N, M) bool, regions to ignore.
    mask_boxes: (N, M, 4) float32, what each mask crop spans in network pixels. mask_sizes: (N, M, 2) int64, (h, w) of
    the crop at the resolution it was drawn at, (0, 0) where there is none. mask_offsets: (N, M) int64, where the crop
    starts in mask_pixels, row by row. mask_pixels: (P,) uint8, 0 or 1; P is a power of two. keypoints: (N, M, K, 3)
    float32, x and y in network pixels and visibility: 0 (not labelled), 1 (hidden) or 2 (visible).
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    mask_boxes: Tensor
    mask_sizes: Tensor
    mask_offsets: Tensor
    mask_pixels: Tensor
    keypoints: Tensor


class ImageTargets(NamedTuple):
    """What the pictures of a `Batch` show as wholes.

    shares: (N, K) float32, how much of each of K categories: 1 for each that a picture shows, less where two pictures
    were mixed.
    """

    shares: Tensor


class Loaded(NamedTuple):
    """A batch as the loader gives it.

    indices: position in the dataset of each picture. original_sizes: its (height, width) before any transform.
    targets: None where nothing is to be learned.
    """

    batch: Batch
    targets: Any
    indices: list[int]
    original_sizes: list[tuple[int, int]]


def moved(columns: Any, device: torch.device | str, *, non_blocking: bool = False) -> Any:
    """A batch or targets on a device."""
    return type(columns)(*(c if c is None else c.to(device, non_blocking=non_blocking) for c in columns))


def padded_count(count: int) -> int:
    """The least of 32, 128, 512, 2048 and the multiples of 2048 that `count` fits into."""
    for size in _COUNTS:
        if count <= size:
            return size
    return -(-count // _COUNTS[-1]) * _COUNTS[-1]


def collate(
    samples: Sequence[Sample], keys: Sequence[tuple[int, int]] | np.ndarray, with_masks: bool = True
) -> tuple[Batch, Targets]:
    """Pad samples to one shape. keys: (seed, draw number) of each.

    Raises ValueError when there are no samples, or masks are asked for and a sample has none or has not decoded them.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    given = [sample.proposals for sample in samples if sample.proposals is not None]
    if given and len(given) < len(samples):
        raise ValueError("some samples have proposals and some have none")
    return _batch([sample.image for sample in samples], keys, given), _targets(samples, with_masks)


def predict_batch(
    images: Sequence[np.ndarray],
    image_size: int,
    max_size: int | None = None,
    proposals: Sequence[np.ndarray] = (),
) -> Batch:
    """Pictures (H, W, C), uint8 or float32 in 0–1, of any size, each resized as `eval_transform` does; keys are 0.

    proposals: (p, 4) of each, in pixels of the picture as it is; none for a model that finds its own.
    """
    resized, scaled = [], []
    for row, image in enumerate(images):
        height, width = image.shape[:2]
        size = resized_size(height, width, image_size, max_size)
        resized.append(resize(image, size))
        if len(proposals):
            scaled.append(proposals[row] * np.array([size[1] / width, size[0] / height] * 2, np.float32))
    return _batch(resized, np.zeros((len(images), 2), np.int64), scaled)


def _batch(
    images: Sequence[np.ndarray],
    keys: Sequence[tuple[int, int]] | np.ndarray,
    proposals: Sequence[np.ndarray] = (),
) -> Batch:
    import torch

    sizes = np.array([image.shape[:2] for image in images], np.int64)
    height, width = (-(-int(side) // STRIDE) * STRIDE for side in sizes.max(axis=0))
    channels = images[0].shape[2]
    pixels = np.zeros((len(images), height, width, channels), np.float32)
    for image, place in zip(images, pixels):
        h, w = image.shape[:2]
        unit = np.float32(255 if image.dtype == np.uint8 else 1)
        # By channel: numpy's inner loop would be as long as a pixel where a picture is flipped.
        for channel in range(channels):
            np.divide(image[..., channel], unit, out=place[:h, :w, channel])
    # (N, H, W, C) seen as (N, C, H, W) is what torch calls channels last: nothing is copied.
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    given = map(torch.from_numpy, _padded(proposals)) if len(proposals) else (None, None)
    return Batch(planes, torch.from_numpy(sizes), torch.from_numpy(np.array(keys, np.int64).reshape(-1, 2)), *given)


def _padded(proposals: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, P, 4) float32 and which of them are there (N, P), P as `padded_count` has it."""
    most = padded_count(max(map(len, proposals)))
    boxes, valid = np.zeros((len(proposals), most, 4), np.float32), np.zeros((len(proposals), most), np.bool_)
    for row, some in enumerate(proposals):
        boxes[row, : len(some)], valid[row, : len(some)] = some, True
    return boxes, valid


def _targets(samples: Sequence[Sample], with_masks: bool) -> Targets:
    import torch

    count, objects = len(samples), padded_count(max(len(sample.boxes) for sample in samples))
    boxes, mask_boxes = np.zeros((2, count, objects, 4), np.float32)
    labels, mask_offsets = np.zeros((2, count, objects), np.int64)
    valid, crowd = np.zeros((2, count, objects), np.bool_)
    mask_sizes = np.zeros((count, objects, 2), np.int64)
    keypoints = np.zeros((count, objects, samples[0].keypoints.shape[1], 3), np.float32)
    for i, sample in enumerate(samples):
        n = len(sample.boxes)
        boxes[i, :n], labels[i, :n], crowd[i, :n] = sample.boxes, sample.labels, sample.crowd
        valid[i, :n] = ~sample.crowd
        mask_boxes[i, :n] = sample.mask_boxes
        keypoints[i, :n] = sample.keypoints * (sample.keypoints[..., 2:] > 0)
    crops = [_crops(sample) for sample in samples] if with_masks else []
    used = 0
    for i, masks in enumerate(crops):
        for j, mask in enumerate(masks):
            mask_sizes[i, j], mask_offsets[i, j] = mask.shape, used
            used += mask.size
    mask_pixels = np.zeros(1 << max(0, used - 1).bit_length(), np.uint8)
    flat = [mask.ravel() for masks in crops for mask in masks]
    if flat:
        np.concatenate(flat, out=mask_pixels[:used])
    arrays = (boxes, labels, valid, crowd, mask_boxes, mask_sizes, mask_offsets, mask_pixels, keypoints)
    return Targets(*(torch.from_numpy(array) for array in arrays))


def _crops(sample: Sample) -> tuple[np.ndarray, ...]:
    masks = sample.masks
    if masks is None or any(isinstance(mask, Undecoded) for mask in masks):
        raise ValueError("masks are asked for, but a sample has none, or they were not decoded: call sample.decoded")
    return masks  # type: ignore[return-value]
