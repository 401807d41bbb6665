"""What recipes that end in a classifier of whole pictures share: the loss, and the look at val.

N pictures; K categories; S side of a picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracesight.bundle import Bundle
from tracesight.data.batch import Loaded
from tracesight.data.dataset import Dataset
from tracesight.data.image_labels import ImageLabels
from tracesight.evaluation import best_temperature, evaluate_classes
from tracesight.models.pixels import standardised
from tracesight.ops.chances import probabilities
from tracesight.ops.collectives import mean_loss
from tracesight.predict import dataset_scores
from tracesight.training.liveness import patient
from tracesight.training.measure import Validation
from tracesight.training.progress import Display
from tracesight.training.ranks import Ranks, gathered
from tracesight.training.run import Run

LOSS = "loss_class"


def class_losses(
    network: nn.Module, model: nn.Module, loaded: Loaded, *, several: bool, smoothing: float
) -> dict[str, Tensor]:
    """The loss of one part of a batch, by name.

    network: what is called with standardised pictures and keys, `model` or a wrapper around it; `model` knows the mean
    and deviation of its pictures. several: multi-label. smoothing: as in `class_loss`.
    """
    logits = network(standardised(model, loaded.batch.images), loaded.batch.keys)
    return {LOSS: class_loss(logits, loaded.targets.shares, several=several, smoothing=smoothing)}


def class_loss(logits: Tensor, shares: Tensor, *, several: bool, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of logits (N, K), its mean over the pictures of all ranks.

    shares: (N, K) in 0–1, how much of each category a picture shows. several: each category is a question of its own,
    and the mean is over categories too. smoothing: the truth is mixed with so much of the uniform distribution (Szegedy
    et al., "Rethinking the Inception Architecture", 2016, section 7).
    """
    logits = logits.float()
    if several:
        truth = shares * (1 - smoothing) + smoothing / 2
        total = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
        return mean_loss(total, torch.full_like(total, logits.numel()))
    truth = shares * (1 - smoothing) + smoothing / logits.shape[1]
    total = -(truth * F.log_softmax(logits, dim=1)).sum()
    return mean_loss(total, torch.full_like(total, len(logits)))


def figures_of(several: bool, categories: int) -> tuple[str, ...]:
    """Names of the figures in the history, the deciding one first."""
    if several:
        return ("mAP", "f1")
    return ("top1", "top5") if categories > 5 else ("top1",)


def validate_classes(
    bundle: Bundle, val: Dataset, train: Dataset | None, labels: ImageLabels, run: Run, display: Display
) -> Validation | None:
    """Figures of `bundle` on `val`, and the temperature and threshold that are best there.

    Each rank takes every so-many-th picture; the first rank gets the figures and the others None. train: pictures that
    were learnt from, to see how well they are known; None: not looked at.
    """
    with display.job("validate", -(-len(val) // run.ranks.count)) as job:
        scored = scores_of_all(bundle, val, labels, run.ranks, lambda _: job.advance())
        known = None if train is None else scores_of_all(bundle, train, labels, run.ranks)
    if scored is None:
        return None
    scores, truth = scored
    with patient():
        temperature = best_temperature(scores, truth, labels.several)
        metrics = evaluate_classes(
            scores, truth, bundle.categories, several=labels.several, temperature=temperature
        )  # fmt: skip
    image = metrics["image"]
    thresholds = {"operating": image.get("threshold", 0.0), "temperature": temperature}
    operating = {name: image[name] for name in ("threshold", "f1", "precision", "recall") if labels.several}
    names = figures_of(labels.several, len(bundle.categories))
    figures = {f"val_image_{name}": image[name] for name in names}
    if known is not None:
        image_known = evaluate_classes(*known, bundle.categories, several=labels.several)["image"]
        figures[f"train_image_{names[0]}"] = image_known[names[0]]
    return Validation(
        metrics, thresholds, operating, figures, f"val_image_{names[0]}", loss_of(scores, truth, labels.several), scored
    )


def scores_of_all(
    bundle: Bundle, dataset: Dataset, labels: ImageLabels, ranks: Ranks, progress: Any = None, **options: Any
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores and truth of `predict.dataset_scores`, each picture looked at by one rank; None on all but the first."""
    mine = dataset.subset(range(ranks.rank, len(dataset), ranks.count))
    every = gathered(ranks, dataset_scores(bundle, mine, labels, progress=progress, **options))
    if every is None:
        return None
    scores, truth = (np.empty((len(dataset), part.shape[1]), part.dtype) for part in every[0])
    for rank, (theirs, shown) in enumerate(every):
        scores[rank :: ranks.count], truth[rank :: ranks.count] = theirs, shown
    return scores, truth


def loss_of(scores: np.ndarray, truth: np.ndarray, several: bool) -> float:
    """The training loss of scores (n, K), without smoothing or mixing."""
    chances = probabilities(scores, several)
    likely = np.where(truth, chances, 1 - chances) if several else chances[truth]
    return float(-np.log(np.maximum(likely, 1e-30)).mean())
