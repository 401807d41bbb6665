"""Labelled pictures at the size of the network, so that both peers learn from the very same pixels and masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

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
