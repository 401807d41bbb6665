"""One picture on its way into a batch: pixels and labels that every transform changes together.

Letters: H, W height and width of the picture now; n objects; (h, w) of one mask crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tracesight.data.checks.picture_size import size_message
from tracesight.data.pictures import open_picture
from tracesight.data.points import Keypoints
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError

_NO_CROP = np.zeros((0, 0), np.uint8)


@dataclass(frozen=True)
class Undecoded:
    """A mask that is still as its label has it, run lengths or polygons: where a picture is cut, most stay so."""

    annotation: Annotation
    size: tuple[int, int]  # (height, width) of the picture it was drawn on


@dataclass(frozen=True)
class Sample:
    """A picture and its objects.

    image: (H, W, C), RGB or other channels, uint8, or float32 in 0–1.
    boxes: (n, 4) float32 (x1, y1, x2, y2), in pixels of `image`.
    labels: (n,) int64, 1 to C.
    crowd: (n,) bool, regions to ignore. They have no crop: (0, 0).
    masks: for each object its pixels, uint8 0 or 1 (h, w), in the crop that tightly holds them and at the resolution
        they were drawn at; (0, 0) where it has none; `Undecoded` as long as no transform has asked. None altogether
        where masks are not learned.
    mask_boxes: (n, 4) float32, the box in pixels of `image` that each crop spans. It may reach outside the picture,
        where the picture was cut after the mask was drawn. The object's box where there is no crop.
    proposals: (p, 4) float32, where an object may be, in pixels of `image`, best first; None where none are given.
    keypoints: (n, K, 3) float32, x and y in pixels of `image`, and visibility: 0 where there is no such point or nobody
        labelled it, 1 hidden, 2 visible. K is 0 where points are not learned.
    mirrored: (n, K) int64, which point each of them is in a mirror.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    masks: tuple[np.ndarray | Undecoded, ...] | None
    mask_boxes: np.ndarray
    proposals: np.ndarray | None = None
    keypoints: np.ndarray = None  # type: ignore[assignment]
    mirrored: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.keypoints is None:
            object.__setattr__(self, "keypoints", np.zeros((len(self.boxes), 0, 3), np.float32))
            object.__setattr__(self, "mirrored", np.zeros((len(self.boxes), 0), np.int64))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]

    def select(self, indices: np.ndarray) -> Sample:
        """The objects at these positions, in this order."""
        masks = None if self.masks is None else tuple(self.masks[i] for i in indices)
        return replace(
            self, boxes=self.boxes[indices], labels=self.labels[indices], crowd=self.crowd[indices], masks=masks,
            mask_boxes=self.mask_boxes[indices], keypoints=self.keypoints[indices], mirrored=self.mirrored[indices],
        )  # fmt: skip


def load_sample(
    record: Record,
    labels: Mapping[int, int],
    with_masks: bool = True,
    channels: int = 3,
    keypoints: int = 0,
    points: Mapping[int, Keypoints] | None = None,
) -> Sample:
    """The picture and objects of a record; masks stay undecoded.

    labels: detector label by category id, as `Dataset.labels`. channels: as in `open_picture`. keypoints: points of an
    object that are learned, K; 0: none. points: what they are called, as `Dataset.keypoints`.
    Raises UserError: the picture cannot be read, has other channels, or is not of the size its labels say; an object
    has more points than are learned.
    """
    image = open_picture(record.path, channels)
    problem = size_message(record, *image.shape[:2])
    if problem is not None:
        raise UserError(f"{record.path}: {problem}; correct the labels")
    objects, size = record.annotations, (record.height, record.width)
    boxes = np.array([a.box for a in objects], np.float32).reshape(-1, 4)
    found, mirrored = _keypoints(record, keypoints, points or {})
    return Sample(
        image, boxes, np.array([labels[a.category_id] for a in objects], np.int64),
        np.array([a.ignored for a in objects], np.bool_),
        tuple(Undecoded(a, size) for a in objects) if with_masks else None, boxes,
        keypoints=found, mirrored=mirrored,
    )  # fmt: skip


def _keypoints(record: Record, count: int, points: Mapping[int, Keypoints]) -> tuple[np.ndarray, np.ndarray]:
    """`Sample.keypoints` and `Sample.mirrored` of a record."""
    found = np.zeros((len(record.annotations), count, 3), np.float32)
    mirrored = np.tile(np.arange(count), (len(found), 1))
    for row, places, a in zip(found, mirrored, record.annotations):
        if not count or a.keypoints is None:
            continue
        if len(a.keypoints) > count:
            raise UserError(
                f"{record.path}: annotation {a.id} has {len(a.keypoints)} keypoints, and {count} are learned; "
                "correct its labels or set model_args.num_keypoints"
            )
        row[: len(a.keypoints)] = a.keypoints
        known = points[a.category_id].mirrored if a.category_id in points else ()
        places[: len(known)] = known[:count]
    return found, mirrored


def decoded(sample: Sample) -> Sample:
    """The sample with every mask as a crop, and `mask_boxes` tight around them.

    Masks are drawn on the picture as it was read, so this comes before any change to `image`. Raises ValueError for a
    mask that does not fit its picture.
    """
    if sample.masks is None or not any(isinstance(mask, Undecoded) for mask in sample.masks):
        return sample
    crops, boxes = [], sample.mask_boxes.copy()
    for i, mask in enumerate(sample.masks):
        crop = mask
        if isinstance(mask, Undecoded):
            crop, box = _crop(mask)
            boxes[i] = boxes[i] if box is None else box
        crops.append(crop)
    return replace(sample, masks=tuple(crops), mask_boxes=boxes)


def _crop(undecoded: Undecoded) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """The (h, w) uint8 pixels of one mask and the box they span, None where there are none."""
    if undecoded.annotation.ignored:
        return _NO_CROP, None
    mask = undecoded.annotation.mask(*undecoded.size)
    if mask is None:
        return _NO_CROP, None
    crop, (top, left) = mask.to_crop()
    if crop.size == 0:
        return _NO_CROP, None
    return crop.view(np.uint8), (left, top, left + crop.shape[1], top + crop.shape[0])
