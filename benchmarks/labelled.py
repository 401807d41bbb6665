"""Labelled pictures at the size of the network, so that both peers learn from the very same pixels and masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tracesight.data.batch import Batch, Targets, collate
from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset
from tracesight.data.pictures import open_picture
from tracesight.data.record import Annotation
from tracesight.data.sample import Sample, decoded, load_sample
from tracesight.data.transforms import eval_transform, resize, resized_size


def photograph_batch(paths: list[Path], side: int) -> tuple[Batch, Targets]:
    """Photographs of `coco64` resized to this short side, their polygons drawn at that size. Keys are (0, position)."""
    return next(_batches((_photograph(path, side) for path in paths), len(paths)))


def nuclei_batch(train: Path, count: int, side: int = 256) -> tuple[Batch, Targets]:
    """The first `count` pictures of `nuclei/train` that are `side` pixels high and wide and hold an object."""
    return next(nuclei_batches(train, count, side))


def nuclei_batches(train: Path, size: int, side: int = 256) -> Iterator[tuple[Batch, Targets]]:
    """Batches of `size` pictures of `nuclei/train` that are `side` pixels high and wide and hold an object, in order.

    None is drawn twice, and none is smaller. Keys are (0, number of the picture).
    """
    dataset = read_dataset(train)
    fit = (r for r in dataset if (r.height, r.width) == (side, side) and r.annotations)
    return _batches((decoded(load_sample(record, dataset.labels)) for record in fit), size)


def box_batches(dataset: Dataset, size: int, side: int) -> Iterator[tuple[Batch, Targets]]:
    """The same of all pictures with objects, boxes alone, resized to this short side."""
    some = (record for record in dataset if record.annotations)
    samples = (load_sample(record, dataset.labels, with_masks=False) for record in some)
    return _batches((eval_transform(sample, image_size=side) for sample in samples), size)


def whole_masks(batch: Batch, targets: Targets) -> Tensor:
    """Ground-truth masks (N, M, H, W) bool, as large as the pictures; of a crop of another size its nearest pixels."""
    height, width = batch.images.shape[-2:]
    masks = torch.zeros(*targets.valid.shape, height, width, dtype=torch.bool)
    for n, j in targets.valid.nonzero().tolist():
        rows, columns = targets.mask_sizes[n, j].tolist()
        left, top, right, bottom = targets.mask_boxes[n, j].tolist()
        start = int(targets.mask_offsets[n, j])
        crop = targets.mask_pixels[start : start + rows * columns].view(rows, columns).bool()
        y, from_y = _nearest(height, top, bottom, rows)
        x, from_x = _nearest(width, left, right, columns)
        masks[n, j, y[:, None], x] = crop[from_y[:, None], from_x]
    return masks


def _nearest(extent: int, low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    """Which of `extent` pixels lie between `low` and `high`, and in which of `count` equal cells there."""
    cells = ((torch.arange(extent) + 0.5 - low) * (count / (high - low))).floor().long()
    pixels = ((cells >= 0) & (cells < count)).nonzero()[:, 0]
    return pixels, cells[pixels]


def for_torchvision(batch: Batch, targets: Targets, masks: Tensor) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Pictures and labels as torchvision takes them in training. masks: (N, M, H, W), the whole of each object."""
    sizes = batch.sizes.tolist()
    images = [image[:, :h, :w].contiguous() for image, (h, w) in zip(batch.images, sizes)]
    labels = [
        {"boxes": b[v], "labels": c[v], "masks": m[v.cpu(), :h, :w].to(b.device, torch.uint8), "keypoints": k[v]}
        for b, c, v, m, k, (h, w) in zip(targets.boxes, targets.labels, targets.valid, masks, targets.keypoints, sizes)
    ]
    return images, labels


def _batches(samples: Iterable[Sample], size: int) -> Iterator[tuple[Batch, Targets]]:
    drawn: list[Sample] = []
    for number, sample in enumerate(samples, 1):
        drawn.append(sample)
        if len(drawn) == size:
            keys = [(0, position) for position in range(number - size, number)]
            yield collate(drawn, keys, with_masks=drawn[0].masks is not None)
            drawn = []


def _photograph(path: Path, side: int) -> Sample:
    """One photograph. Its label file has a line an object: category id, then x and y of a polygon as fractions."""
    picture = open_picture(path)
    height, width = resized_size(*picture.shape[:2], side)
    boxes, labels, crops = [], [], []
    for line in (path.parent.parent / "labels" / f"{path.stem}.txt").read_text(encoding="utf-8").splitlines():
        category, *numbers = line.split()
        points = np.array(numbers, np.float64).reshape(-1, 2) * (width, height)
        mask = Annotation(0, int(category), (0, 0, 1, 1), [points.ravel().tolist()]).mask(height, width)
        if mask is None or not mask.area:
            continue
        crop, (top, left) = mask.to_crop()
        crops.append(crop.astype(np.uint8))
        boxes.append((left, top, left + crop.shape[1], top + crop.shape[0]))
        labels.append(int(category))
    array = np.array(boxes, np.float32).reshape(-1, 4)
    crowd = np.zeros(len(boxes), np.bool_)
    return Sample(
        resize(picture, (height, width)), array, np.array(labels, np.int64), crowd, tuple(crops), array.copy()
    )
