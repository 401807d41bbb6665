"""How often each picture is drawn: weights that raise rare categories, and the order of an epoch that follows them.

An epoch has a fixed length, so that (epoch, position) = divmod(draw, length) and what stands there are functions of the
draw's number alone: a run is taken up again without any state of a sampler.

Letters: n pictures, L the length of an epoch, C categories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tracesight.data.dataset import Dataset
from tracesight.data.random import generator, order
from tracesight.data.record import Record

KINDS = ("uniform", "repeat_factor", "class_balanced")


def epoch_length(count: int, weights: np.ndarray | None) -> int:
    """Draws in one epoch: `count` pictures where `weights` is None, else their sum (n,) rounded, at least 1."""
    return count if weights is None else max(1, round(float(weights.sum())))


def weighted_order(seed: int, epoch: int, weights: np.ndarray) -> np.ndarray:
    """Positions (L,) int64 of one epoch, shuffled, L = `epoch_length`; weights (n,), 0 or more, one of them above 0.

    Picture i occurs floor or ceil of L × weights[i] / sum(weights) times and that number is its expectation: systematic
    sampling (Madow, "On the Theory of Systematic Sampling, II", 1949) of the pictures in random order, L equally spaced
    points with one random offset. A picture of weight 0 never occurs. Raises ValueError for weights that are negative,
    not finite, or all 0.
    """
    total = float(weights.sum())
    if not (np.isfinite(total) and total > 0 and (weights >= 0).all()):
        raise ValueError("weights must be finite and 0 or more, and one of them above 0")
    length = epoch_length(len(weights), weights)
    numbers = generator(seed, epoch, "sampling").random(len(weights) + 1)
    queue = np.argsort(numbers[1:], kind="stable")
    queue = queue[weights[queue] > 0]  # so that no rounding can pick a picture of weight 0
    ends = np.cumsum(weights[queue], dtype=np.float64)
    ends = ends / ends[-1] * length
    at = np.searchsorted(ends, np.arange(length) + numbers[0], side="right")
    # Rounding may put the last point at or past the last end.
    drawn = queue[np.minimum(at, len(queue) - 1)]
    return drawn[order(seed, epoch, length)]


def picture_weights(
    dataset: Dataset, kind: str, threshold: float, shown: Callable[[Record], Iterable[int]] | None = None
) -> np.ndarray | None:
    """How often each picture is drawn per epoch, on average: (n,) float64, or None where all are drawn once.

    kind: one of
        "uniform": None.
        "repeat_factor": r(i) = max over the categories c of picture i of r(c) = max(1, sqrt(threshold / f(c))), f(c)
            being the share of pictures that show c; 1 for a picture without objects. Gupta, Dollár, Girshick, "LVIS: A
            Dataset for Large Vocabulary Instance Segmentation", CVPR 2019, appendix B.2 of the second version, where
            the threshold is 0.001.
        "class_balanced": n / C' × the sum of 1 / n(c) over the categories c of the picture, n(c) being how many
            pictures show c: as if each time a category were drawn and then a picture that shows it. Pictures without
            objects are a category of their own, and C' categories occur. The weights sum to n. Shen, Lin, Huang, "Relay
            Backpropagation for Effective Learning of Deep Convolutional Neural Networks", ECCV 2016.
    threshold: above 0, at most 1; "repeat_factor" alone uses it. A category on a smaller share of pictures is repeated.
    shown: ids of the categories that a picture shows; None: those of its objects, of which crowds do not count.
    Each record is unpickled once. Raises ValueError for another kind or threshold.
    """
    if kind not in KINDS:
        raise ValueError(f"sampling must be one of {', '.join(KINDS)}, not {kind!r}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    if kind == "uniform":
        return None
    labels = dataset.labels
    of = shown or (lambda record: (a.category_id for a in record.annotations if not a.ignored))
    sets = [{labels[number] for number in of(record)} or {0} for record in dataset]
    flat = np.array([label for picture in sets for label in sorted(picture)], np.int64)
    starts = np.cumsum([0] + [len(picture) for picture in sets[:-1]])
    counts = np.bincount(flat, minlength=len(labels) + 1)  # of pictures by label; 0: without objects
    if kind == "class_balanced":
        return np.add.reduceat(1 / counts[flat], starts) * (len(sets) / np.count_nonzero(counts))
    repeats = np.sqrt(threshold * len(sets) / np.maximum(counts, 1)).clip(min=1)
    repeats[0] = 1
    return np.maximum.reduceat(repeats[flat], starts)
