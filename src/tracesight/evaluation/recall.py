"""How many objects proposals find: average recall at a number of proposals a picture.

Hosang et al., "What Makes for Effective Detection Proposals?" (2016), section 3.4, with COCO's thresholds: the mean of
the recall at IoU 0.50, 0.55 … 0.95. Each proposal finds one object at most, as in COCO's evaluation without categories.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset

LIMITS = (100, 300, 1000)
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def proposal_recall(
    results: Sequence[Mapping[str, Any]], dataset: Dataset, limits: Sequence[int] = LIMITS
) -> dict[str, float | None]:
    """{"AR@100": …, "AR@300": …, "AR@1000": …}, each 0 to 1, and "recall@1000", the share found at IoU 0.5.

    results: COCO results whose categories have no say; the best of each picture by score, as many as the limit says.
    Crowds and difficult objects do not count. None where there are no objects. `dataset` is labelled.
    """
    boxes: dict[int, list[Sequence[float]]] = defaultdict(list)
    for result in sorted(results, key=lambda result: -result["score"]):
        boxes[result["image_id"]].append(result["bbox"])
    found, objects = np.zeros((len(limits), len(THRESHOLDS)), np.int64), 0
    for record in dataset:
        truth = np.array([a.box for a in record.annotations if not a.ignored], np.float64).reshape(-1, 4)
        objects += len(truth)
        proposed = np.array(boxes[record.id][: max(limits)], np.float64).reshape(-1, 4)
        if not len(truth) or not len(proposed):
            continue
        proposed[:, 2:] += proposed[:, :2]
        iou = _iou(proposed, truth)
        for row, threshold in enumerate(THRESHOLDS):
            places = _matched(iou, threshold)
            for column, limit in enumerate(limits):
                found[column, row] += int((places < limit).sum())
    if not objects:
        return {**{f"AR@{limit}": None for limit in limits}, f"recall@{max(limits)}": None}
    share = found / objects
    most = list(limits).index(max(limits))
    figures = {f"AR@{limit}": float(row.mean()) for limit, row in zip(limits, share)}
    return {**figures, f"recall@{max(limits)}": float(share[most, 0])}


def _matched(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Places (m,) of the proposals that find an object: one after the other takes the free object it overlaps most."""
    free, places = np.ones(iou.shape[1], np.bool_), []
    for place in np.flatnonzero((iou >= threshold).any(axis=1)):
        best = int(np.where(free, iou[place], -1.0).argmax())
        if free[best] and iou[place, best] >= threshold:
            free[best] = False
            places.append(place)
            if not free.any():
                break
    return np.array(places, np.int64)


def _iou(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(p, n) of boxes (p, 4) and (n, 4)."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = [(side[:, 2:] - side[:, :2]).prod(axis=1) for side in (left, right)]
    return shared / np.maximum(area[0][:, None] + area[1][None] - shared, 1e-12)
