"""Which detection finds which object: COCO's greedy matching at one IoU, kept readable for people and thresholds.

As pycocotools' `evaluateImg`: within a picture and a category the best-scoring detection chooses first, takes the
free object that it overlaps most, and a detection that only finds a crowd region counts neither way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracesight.evaluation.coco import check_results, coco_truth, scored_positions

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset

FREE, IGNORED = -1, -2


@dataclass(frozen=True)
class Matching:
    """The matching of one picture and category.

    Attributes:
        image_id: `Record.id`.
        category_id: of the detections and objects.
        results: positions in the list of results, best score first.
        scores: (D,) of these.
        objects: positions in the picture's annotations, crowds excluded.
        matched: (D,) for each detection the position within `objects`, `FREE` (-1: a false positive) or
            `IGNORED` (-2: it lies in a crowd region).
        ious: (D, len(objects)) overlap of every detection with every object.
    """

    image_id: int
    category_id: int
    results: tuple[int, ...]
    scores: np.ndarray
    objects: tuple[int, ...]
    matched: np.ndarray
    ious: np.ndarray


def matchings(
    results: Sequence[Mapping[str, Any]], dataset: Dataset, *, kind: str = "bbox", iou: float = 0.5
) -> Iterator[Matching]:
    """Match picture by picture, category by category; pairs without detections and objects are passed over.

    Args:
        results: COCO results; those of categories that the data does not have are passed over.
        dataset: the labelled pictures.
        kind: "bbox" or "segm".
        iou: least overlap, 0 to 1.

    Raises:
        ValueError: a result that cannot be scored, named by its position.
    """
    check_results(results, dataset, (kind,))
    shape = "segmentation" if kind == "segm" else "bbox"
    truth, _ = coco_truth(dataset, kind)
    if kind == "segm":
        _rasterise_boxes(truth)
    places: dict[tuple[int, int], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    within: dict[int, int] = defaultdict(int)
    for row in truth["annotations"]:
        places[row["image_id"], row["category_id"]].append((within[row["image_id"]], row))
        within[row["image_id"]] += 1
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position in scored_positions(results, dataset):
        found[results[position]["image_id"], results[position]["category_id"]].append(position)
    for record in dataset:
        for category_id in dataset.category_ids:
            key = (record.id, category_id)
            rows, positions = places.get(key, []), found.get(key, [])
            if not rows and not positions:
                continue
            positions = sorted(positions, key=lambda p: -results[p]["score"])
            shapes = [results[p][shape] for p in positions]
            objects = [(place, row) for place, row in rows if not row["iscrowd"]]
            crowds = [row for _, row in rows if row["iscrowd"]]
            ious = _overlaps(shapes, [row[shape] for _, row in objects], 0)
            in_crowd = _overlaps(shapes, [row[shape] for row in crowds], 1)
            yield Matching(
                *key,
                results=tuple(positions),
                scores=np.array([float(results[p]["score"]) for p in positions]),
                objects=tuple(place for place, _ in objects),
                matched=greedy(ious, in_crowd, iou),
                ious=ious,
            )


def greedy(ious: np.ndarray, in_crowd: np.ndarray, least: float) -> np.ndarray:
    """COCO's choice for overlaps (D, G) with objects and (D, C) with crowd regions; detections best score first.

    Returns:
        (D,) int: object's index, `FREE` or `IGNORED`. Of equal overlaps the last is taken, as pycocotools does.
    """
    matched = np.full(len(ious), FREE)
    free = np.ones(ious.shape[1], bool)
    least = min(least, 1 - 1e-10)
    for d in range(len(ious)):
        row = np.where(free, ious[d], -1.0)
        best = row.size - 1 - int(row[::-1].argmax()) if row.size else FREE
        if best >= 0 and row[best] >= least:
            matched[d], free[best] = best, False
        elif in_crowd.shape[1] and in_crowd[d].max() >= least:
            matched[d] = IGNORED
    return matched


def _overlaps(shapes: list[Any], others: list[Any], crowd: int) -> np.ndarray:
    """IoU (len(shapes), len(others)); for crowds the intersection over the detection's own area."""
    from faster_coco_eval.core import mask

    if not shapes or not others:
        return np.zeros((len(shapes), len(others)))
    if not isinstance(shapes[0], Mapping):
        shapes, others = ([[float(v) for v in box] for box in boxes] for boxes in (shapes, others))
    return np.asarray(mask.iou(shapes, others, [crowd] * len(others)), dtype=float)


def _rasterise_boxes(truth: dict[str, Any]) -> None:
    """Give the boxes that stand in for missing masks an RLE, in place."""
    from faster_coco_eval.core import mask

    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for row in truth["annotations"]:
        if isinstance(row["segmentation"], list):
            row["segmentation"] = mask.frPyObjects(row["segmentation"], *sizes[row["image_id"]])[0]
