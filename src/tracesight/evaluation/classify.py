"""How good a classifier of whole pictures is: top-1 and top-5, by class, confusions, calibration; mAP of multi-label.

Letters: n pictures, K categories. Scores (n, K) are logits or log-probabilities: of one category each (multi-class)
softmax makes probabilities of them, of several (multi-label) the sigmoid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tracesight.ops.chances import probabilities

BINS = 15  # of the calibration error: Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2
MATRIX = 100  # categories up to which the whole confusion matrix is given
CONFUSED = 30  # pairs of categories that are listed
_TEMPERATURES = (0.05, 20.0)


def evaluate_classes(
    scores: np.ndarray, truth: np.ndarray, categories: Mapping[int, str], *, several: bool, temperature: float = 1.0
) -> dict[str, Any]:
    """{"image": figures, "warnings": sentences}.

    Args:
        scores: (n, K), columns in ascending order of the categories' ids.
        truth: (n, K) bool, what each picture shows; exactly one category unless `several`.
        several: multi-label. temperature: what scores are divided by before they become probabilities.

    Of one category each: "top1", "top5" (None for five categories or fewer), "nll", "ece", and "ece_raw" at temperature
    1, "temperature", "per_class" (name → pictures, recall, precision), "confusion" ("classes", and "counts" by truth
    and answer, for at most 100 categories) and "confused" (the commonest mistakes). Of several: "mAP", "nll", "ece",
    "f1", "precision", "recall" at "threshold", "per_class" (name → pictures, AP). Nothing to measure is None.
    """
    names = [categories[number] for number in sorted(categories)]
    counts = truth.sum(axis=0)
    missing = [name for name, count in zip(names, counts) if not count]
    warnings = []
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        warnings.append(f"no picture shows {shown}: no figure of these classes")
    figures = _several(scores, truth, names, temperature) if several else _one(scores, truth, names, temperature)
    figures |= {"pictures": len(scores), "temperature": temperature}
    return {"image": figures, "warnings": warnings}


def best_temperature(scores: np.ndarray, truth: np.ndarray, several: bool) -> float:
    """The temperature at which the truth is likeliest (Guo et al., section 4.2), between 0.05 and 20.

    The likelihood is concave in 1 / temperature, whose derivative is followed by halving. Where no answer is wrong
    there is nothing to learn it from, and it is 1.
    """
    right = (scores > 0) == truth if several else scores.argmax(axis=1) == truth.argmax(axis=1)
    if right.all():
        return 1.0
    scores, truth = scores.astype(np.float64), truth.astype(np.float64)
    low, high = (1 / bound for bound in reversed(_TEMPERATURES))
    for _ in range(40):
        middle = (low * high) ** 0.5
        slope = float(((probabilities(scores, several, 1 / middle) - truth) * scores).sum())
        low, high = (low, middle) if slope > 0 else (middle, high)
    return round(1 / (low * high) ** 0.5, 4)


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float | None:
    """Expected calibration error: how far confidence (n,) in 0–1 and share of right answers (n,) are apart, on average
    over `BINS` equal bins, weighted by what lies in each."""
    if not len(sure):
        return None
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    apart = np.abs(np.bincount(place, right, BINS) - np.bincount(place, sure, BINS))
    return float(apart.sum() / counts.sum())


def average_precision(scores: np.ndarray, shown: np.ndarray) -> float | None:
    """Area under precision over recall, by steps; scores (n,) that are equal count together. None without examples."""
    total = int(shown.sum())
    if not total:
        return None
    order = np.argsort(-scores, kind="stable")
    found, last = np.cumsum(shown[order]), np.r_[np.diff(scores[order]) != 0, True]
    found, answered = found[last], np.flatnonzero(last) + 1
    return float((np.diff(found, prepend=0) / total * (found / answered)).sum())


def best_threshold(chances: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Threshold with the best F1 over all pictures and categories together, with its F1, precision and recall.

    It lies between the last probability that is shown and the next one that is not.
    """
    flat, shown = chances.ravel(), truth.ravel()
    if not shown.any():
        return {"threshold": 0.5, "f1": None, "precision": None, "recall": None}
    order = np.argsort(-flat, kind="stable")
    values, last = flat[order], np.r_[np.diff(flat[order]) != 0, True]
    found, answered = np.cumsum(shown[order])[last], np.flatnonzero(last) + 1
    f1 = 2 * found / (answered + shown.sum())
    best = int(np.argmax(f1))
    edge = values[answered[best] - 1]
    following = values[answered[best]] if answered[best] < len(values) else 0.0
    return {"threshold": float((edge + following) / 2), **_at(int(found[best]), int(answered[best]), int(shown.sum()))}


def _at(found: int, answered: int, total: int) -> dict[str, float | None]:
    return {
        "f1": 2 * found / (answered + total) if answered + total else None,
        "precision": found / answered if answered else None,
        "recall": found / total if total else None,
    }


def _one(scores: np.ndarray, truth: np.ndarray, names: list[str], temperature: float) -> dict[str, Any]:
    right, count = truth.argmax(axis=1), len(names)
    own = np.take_along_axis(scores, right[:, None], axis=1)
    # Of equal scores the first counts as the higher one, so that answers and ranks agree.
    ranks = (scores > own).sum(axis=1) + ((scores == own) & (np.arange(count) < right[:, None])).sum(axis=1)
    chances = probabilities(scores, False, temperature)
    answers, sure = scores.argmax(axis=1), chances.max(axis=1)
    raw = probabilities(scores, False).max(axis=1)
    matrix = np.bincount(right * count + answers, minlength=count * count).reshape(count, count)
    likely = np.take_along_axis(chances, right[:, None], axis=1)
    return {
        "top1": _mean(ranks == 0),
        "top5": _mean(ranks < 5) if count > 5 else None,
        "nll": _mean(-np.log(np.maximum(likely, 1e-300))),
        "ece": calibration_error(sure, ranks == 0),
        "ece_raw": calibration_error(raw, ranks == 0),
        "per_class": {
            name: {
                "pictures": int(matrix[i].sum()),
                "recall": _share(matrix[i, i], matrix[i].sum()),
                "precision": _share(matrix[i, i], matrix[:, i].sum()),
            }
            for i, name in enumerate(names)
        },
        "confusion": {"classes": names, "counts": matrix.tolist()} if count <= MATRIX else None,
        "confused": _confused(matrix, names),
    }


def _several(scores: np.ndarray, truth: np.ndarray, names: list[str], temperature: float) -> dict[str, Any]:
    chances = probabilities(scores, True, temperature)
    precisions = [average_precision(scores[:, i], truth[:, i]) for i in range(len(names))]
    known = [value for value in precisions if value is not None]
    likely = np.where(truth, chances, 1 - chances)
    return {
        "mAP": float(np.mean(known)) if known else None,
        "nll": _mean(-np.log(np.maximum(likely, 1e-300))),
        "ece": calibration_error(chances.ravel(), truth.ravel()),
        "ece_raw": calibration_error(probabilities(scores, True).ravel(), truth.ravel()),
        **best_threshold(chances, truth),
        "per_class": {name: {"pictures": int(truth[:, i].sum()), "AP": precisions[i]} for i, name in enumerate(names)},
    }


def _confused(matrix: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong.ravel(), kind="stable")[:CONFUSED]
    pairs = [(int(place) // len(names), int(place) % len(names)) for place in order]
    return [{"label": names[i], "answer": names[j], "pictures": int(wrong[i, j])} for i, j in pairs if wrong[i, j] > 0]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None
