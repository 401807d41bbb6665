"""The score from which a detection is shown: best F1 at one IoU, and what any threshold gives.

All categories share one threshold and count together. F1 = 2PR / (P + R), with precision P the share of shown
detections that find an object and recall R the share of objects that are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracesight.evaluation.matching import IGNORED, matchings

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset

DEFAULT_THRESHOLD = 0.5


def operating_threshold(
    results: Sequence[Mapping[str, Any]], dataset: Dataset, iou: float = 0.5, kind: str = "bbox"
) -> dict[str, float | None]:
    """The threshold with the best F1, crowds ignored, greedy matching per category as COCO does.

    It lies between the last score that is shown and the next one that is not, so that rounding moves neither.

    Args:
        results: COCO results with scores from low up; a cut at 0.05 loses nothing in practice.
        dataset: the labelled pictures.
        iou: least overlap to have found an object, 0 to 1.
        kind: "bbox" or "segm".

    Returns:
        "threshold", "f1", "precision", "recall". Where no detection finds anything the threshold is 0.5 and f1 0;
        where there are no objects at all, the other three are None.

    Raises:
        ValueError: a result that cannot be scored, named by its position.
    """
    scores, right, objects = _detections(results, dataset, iou, kind)
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(right[order])
    if not objects or not right.size or not right[-1]:
        return {"threshold": DEFAULT_THRESHOLD, **_shares(0, 0, objects)}
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are shown together
    f1 = np.where(last, 2 * right / (np.arange(1, right.size + 1) + objects), -1.0)
    best = int(f1.argmax())  # of equal ones the highest threshold
    below = float(scores[best + 1]) if best + 1 < scores.size else None
    return {"threshold": _between(below, float(scores[best])), **_shares(int(right[best]), best + 1, objects)}


def at_threshold(
    results: Sequence[Mapping[str, Any]], dataset: Dataset, threshold: float, iou: float = 0.5, kind: str = "bbox"
) -> dict[str, float | None]:
    """The same figures for the detections that score at least `threshold`.

    Arguments, keys, None and errors as in `operating_threshold`; precision is None when nothing is shown.
    """
    scores, right, objects = _detections(results, dataset, iou, kind)
    shown = scores >= threshold
    return {"threshold": float(threshold), **_shares(int(right[shown].sum()), int(shown.sum()), objects)}


def _detections(
    results: Sequence[Mapping[str, Any]], dataset: Dataset, iou: float, kind: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores (D,), whether each found an object (D,), and how many objects there are."""
    scores, right, objects = [np.zeros(0)], [np.zeros(0, bool)], 0
    for matching in matchings(results, dataset, kind=kind, iou=iou):
        counted = matching.matched != IGNORED
        scores.append(matching.scores[counted])
        right.append(matching.matched[counted] >= 0)
        objects += len(matching.objects)
    return np.concatenate(scores), np.concatenate(right), objects


def _shares(right: int, shown: int, objects: int) -> dict[str, float | None]:
    return {
        "f1": 2 * right / (shown + objects) if objects else None,
        "precision": right / shown if shown and objects else None,
        "recall": right / objects if objects else None,
    }


def _between(low: float | None, high: float) -> float:
    """The number with the fewest decimals in (low, high], nearest to their middle; below nothing, just under high."""
    low = max(0.0, high - 0.005) if low is None else low
    middle = (low + high) / 2
    for decimals in range(2, 8):
        if low < (short := round(middle, decimals)) <= high:
            return short
    return high
