"""Labelled pictures at the size of the network, so that both peers learn from the very same pixels and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracesight.data.batch import Batch, Targets, collate
from tracesight.data.formats import read_dataset
from tracesight.data.pictures import open_picture
from tracesight.data.record import Annotation
from tracesight.data.sample import Sample, decoded, load_sample
from tracesight.data.transforms import resize, resized_size


def photograph_batch(paths: list[Path], side: int) -> tuple[Batch, Targets]:
    """Photographs of `coco64` resized to this short side, their polygons drawn at that size. Keys are (0, position)."""
    return _batch([_photograph(path, side) for path in paths])


def nuclei_batch(train: Path, count: int, side: int = 256) -> tuple[Batch, Targets]:
    """The first `count` pictures of `nuclei/train` that are `side` pixels high and wide and hold an object."""
    dataset, samples = read_dataset(train), []
    for record in dataset:
        if (record.height, record.width) == (side, side) and record.annotations:
            samples.append(decoded(load_sample(record, dataset.labels)))
            if len(samples) == count:
                break
    return _batch(samples)


def _batch(samples: list[Sample]) -> tuple[Batch, Targets]:
    return collate(samples, [(0, position) for position in range(len(samples))])


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
