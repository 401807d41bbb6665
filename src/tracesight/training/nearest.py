"""Looking at features while they are learnt: weighted k nearest neighbours among labelled pictures.

N pictures asked about, M with labels in the bank, K categories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from tracesight.bundle import Bundle
from tracesight.data.dataset import Dataset
from tracesight.data.image_labels import ImageLabels
from tracesight.evaluation.knn import Neighbours, accuracy, neighbours, votes
from tracesight.predict.features import dataset_features
from tracesight.training.measure import Validation
from tracesight.training.prepare import Splits
from tracesight.training.progress import Display
from tracesight.training.ranks import Ranks, gathered
from tracesight.training.run import Run

SHOWN = 5  # neighbours of a picture that a report draws


class Labelled(NamedTuple):
    """Pictures and the place of each one's category among the K, (n,) int64."""

    dataset: Dataset
    labels: torch.Tensor


@dataclass(frozen=True)
class Known:
    """What is asked about, what is known, and how: k neighbours, weighted by exp(similarity / temperature)."""

    asked: Labelled
    bank: Labelled
    k: int
    temperature: float


class Found(NamedTuple):
    """What a report draws: pictures asked about and known, and the nearest of each."""

    known: Known
    near: Neighbours


def labelled(dataset: Dataset) -> Labelled | None:
    """The pictures that have exactly one label as a whole; None where none has."""
    reading, places = ImageLabels(objects=False, several=True), {i: k for k, i in enumerate(dataset.category_ids)}
    shown = [reading.of(record) for record in dataset]
    rows = [row for row, ids in enumerate(shown) if len(ids) == 1]
    if not rows:
        return None
    return Labelled(dataset.subset(rows), torch.tensor([places[shown[row][0]] for row in rows]))


def known_pictures(splits: Splits, most: int, k: int, temperature: float) -> Known | None:
    """Up to `most` labelled pictures of train to look among, and a fifth as many of val, or of train where there is no
    val, to ask about; None where there are no labels of whole pictures."""
    train = labelled(splits.train) if most else None
    if train is None or not train.dataset.categories:
        return None
    val = None if splits.val is None else labelled(splits.val.with_categories(splits.train.categories))
    if val is None:  # every fifth of train is asked about, and not known
        asked = torch.arange(0, len(train.dataset), 5)
        rest = torch.ones(len(train.dataset), dtype=torch.bool)
        rest[asked] = False
        if not bool(rest.any()):
            return None
        val, train = _rows(train, asked), _rows(train, rest.nonzero()[:, 0])
    return Known(_evenly(val, max(1, most // 5)), _evenly(train, most), k, temperature)


def look_around(bundle: Bundle, known: Known, run: Run, display: Display) -> Validation | None:
    """kNN figures of `bundle`; each rank takes every so-many-th picture, and the first gets the figures."""
    count = len(known.asked.dataset) + len(known.bank.dataset)
    with display.job("look around", -(-count // run.ranks.count)) as job:

        def advance(done: int) -> None:
            for _ in range(done):
                job.advance()

        asked = _features(bundle, known.asked.dataset, run.ranks, advance)
        bank = _features(bundle, known.bank.dataset, run.ranks, advance)
    if asked is None or bank is None:
        return None
    near = neighbours(asked, bank, known.k)
    metrics = {"knn": knn_figures(near, known)}
    figures: dict[str, float | None] = {"val_image_knn": metrics["knn"]["top1"]}
    thresholds = {"operating": 0.0, "temperature": 1.0}
    shown = Neighbours(near.indices[:, :SHOWN], near.similarities[:, :SHOWN])
    return Validation(metrics, thresholds, {}, figures, "val_image_knn", None, Found(known, shown))


def knn_figures(near: Neighbours, known: Known) -> dict[str, float]:
    """Top-1 and top-5, and how they were had."""
    categories = len(known.bank.dataset.categories)
    scores = votes(near, known.bank.labels, categories, known.temperature)
    figures = {"top1": accuracy(scores, known.asked.labels)}
    if categories > 5:
        figures["top5"] = accuracy(scores, known.asked.labels, 5)
    pictures = {"pictures": len(known.asked.dataset), "bank": len(known.bank.dataset)}
    return {**figures, "k": min(known.k, len(known.bank.dataset)), "temperature": known.temperature, **pictures}


def _features(bundle: Bundle, dataset: Dataset, ranks: Ranks, advance: Callable[[int], None]) -> torch.Tensor | None:
    mine = dataset.subset(range(ranks.rank, len(dataset), ranks.count))
    every = gathered(ranks, dataset_features(bundle, mine, progress=advance))
    if every is None:
        return None
    rows = torch.empty((len(dataset), every[0].shape[1]))
    for rank, part in enumerate(every):
        rows[rank :: ranks.count] = part
    return rows


def _rows(pictures: Labelled, rows: torch.Tensor) -> Labelled:
    return Labelled(pictures.dataset.subset(rows.numpy()), pictures.labels[rows])


def _evenly(pictures: Labelled, count: int) -> Labelled:
    count = min(count, len(pictures.dataset))
    return _rows(pictures, torch.arange(count) * len(pictures.dataset) // max(1, count))
