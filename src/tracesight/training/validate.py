"""Measuring a detector on held-out pictures the way a user will: through the bundle, predict, scenes and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from tracesight.bundle import Bundle
from tracesight.data.batch import Loaded
from tracesight.data.loader import validation_batches
from tracesight.data.record import Dataset
from tracesight.data.transforms import eval_transform
from tracesight.evaluation import evaluate, operating_threshold
from tracesight.ops.collectives import alone
from tracesight.predict import dataset_results
from tracesight.training.history import History
from tracesight.training.liveness import patient
from tracesight.training.prepare import Splits
from tracesight.training.progress import Display
from tracesight.training.ranks import Ranks, gathered, of_first, share
from tracesight.training.run import Run
from tracesight.training.steps import to_device

FIGURES = ("AP@all", "AP50@all")  # in history.csv and on the progress line

LossesOf = Callable[[Loaded], dict[str, torch.Tensor]]


class Keys(Protocol):
    """The keys of a recipe that measuring needs."""

    @property
    def model(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def max_size(self) -> int | None: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def val_loss_pictures(self) -> int: ...


@dataclass(frozen=True)
class Validation:
    """What a bundle reached on val.

    Attributes:
        metrics: as `evaluation.evaluate` gives them.
        operating: as `evaluation.operating_threshold` gives it.
        results: COCO results, `image_id` being `Record.id`.
    """

    metrics: dict[str, Any]
    operating: dict[str, float | None]
    results: list[dict[str, Any]]


def measure(
    run: Run,
    bundle: Bundle,
    keys: Keys,
    splits: Splits,
    out: Path,
    history: History | None,
    losses_of: LossesOf,
    display: Display,
) -> tuple[Bundle, Validation | None]:
    """The bundle with its figures on val; the best one so far is kept in `out/best`.

    All ranks find objects, each on its share of val. The first one has the figures, and decides for all.
    """
    if splits.val is None:
        of_first(run.ranks, lambda: bundle.save(out / "best"))
        run.measured = run.step
        return bundle, None
    reached = validate(bundle, splits.val, splits.train_pictures, display, run.ranks)
    if reached is not None:
        bundle = replace(bundle, thresholds={"operating": reached.operating["threshold"]}, metrics=reached.metrics)
        with alone():
            val_loss = validation_loss(keys, splits.val, losses_of, run.device)
        figure = _told(run, bundle, reached.metrics, val_loss, history, display)
        with run.stop.whole():
            _compare(run, bundle, figure, out, display)
            run.measured = run.step  # in here, or a signal would have it counted twice
    run.best, run.stale = share(run.ranks, (run.best, run.stale))
    run.measured = run.step
    return bundle, reached


def validate(
    bundle: Bundle, val: Dataset, train_pictures: dict[int, int], display: Display, ranks: Ranks
) -> Validation | None:
    """Figures and operating threshold of `bundle` on `val`; masks count where the bundle draws them.

    Each rank takes every so-many-th picture, so each picture is looked at once; the first rank gets the figures and the
    others None.

    Args:
        train_pictures: category id → pictures that the bundle has learnt it from.

    Raises:
        UserError: a picture that could be read before the training cannot be read any more.
    """
    with display.job("validate", -(-len(val) // ranks.count)) as job:
        results = results_of_all(bundle, val, ranks, lambda _: job.advance())
    if results is None:
        return None
    kinds = kinds_of(bundle.model)
    with patient():
        metrics = evaluate(results, val, max_objects=bundle.max_objects, kinds=kinds, train_pictures=train_pictures)
        return Validation(metrics, operating_threshold(results, val, kind=kinds[-1]), results)


def results_of_all(
    bundle: Bundle, dataset: Dataset, ranks: Ranks, progress: Callable[[Any], None], **options: Any
) -> list[dict[str, Any]] | None:
    """The results of `predict.dataset_results`, each picture looked at by one of the ranks; None on all but the first.

    progress: called with each scene that this rank has found. options: those of `dataset_results`.
    """
    mine = dataset.subset(range(ranks.rank, len(dataset), ranks.count))
    every = gathered(ranks, dataset_results(bundle, mine, progress=progress, **options))
    if every is None:
        return None
    # In the order of one process: where scores are equal, the order decides.
    place = {record.id: index for index, record in enumerate(dataset)}
    return sorted((row for part in every for row in part), key=lambda row: place[row["image_id"]])


def kinds_of(model: nn.Module) -> tuple[str, ...]:
    """ "bbox", and "segm" if the model draws masks; the last one is the one that counts."""
    masks = any(name.startswith("roi_heads.mask_head.") for name, _ in model.named_parameters())
    return ("bbox", "segm") if masks else ("bbox",)


def validation_loss(keys: Keys, val: Dataset, losses_of: LossesOf, device: torch.device) -> float | None:
    """The mean training loss on the first `val_loss_pictures` of val, not augmented; None if that is 0."""
    if not keys.val_loss_pictures:
        return None
    batches = validation_batches(
        val.subset(range(min(len(val), keys.val_loss_pictures))),
        batch_size=keys.batch_size,
        transform=partial(eval_transform, image_size=keys.image_size, max_size=keys.max_size),
        with_masks=keys.model.startswith("mask_"),
        channels=keys.in_channels,
    )
    return sum(mean_losses(losses_of, batches, device).values())


@torch.no_grad()
def mean_losses(losses_of: LossesOf, batches: Iterator[Loaded], device: torch.device) -> dict[str, float]:
    """Each loss of `losses_of`, averaged over `batches` with the number of pictures as weight."""
    sums: dict[str, torch.Tensor] = {}
    pictures = 0
    for loaded in batches:
        count = len(loaded.indices)
        pictures += count
        for name, loss in losses_of(to_device(loaded, device)).items():
            sums[name] = sums.get(name, 0) + loss.float() * count
    return {name: float(total) / pictures for name, total in sums.items()}


def _told(
    run: Run,
    bundle: Bundle,
    metrics: dict[str, Any],
    val_loss: float | None,
    history: History | None,
    display: Display,
) -> float:
    """Write the figures into the history and onto the display; the one that decides which bundle is the best."""
    kinds = kinds_of(bundle.model)
    figures = {f"val_{kind}_{name}": metrics[kind][name] for kind in kinds for name in FIGURES}
    if history is not None:
        history.add(step=run.step, seconds=run.seconds, val_loss=val_loss, **figures)
    shown = "  ".join(f"{name.removeprefix('val_')} {value or 0:.3f}" for name, value in figures.items())
    display.say(f"step {run.step}/{run.total}: " + (f"val loss {val_loss:.3f}  " if val_loss else "") + shown)
    # Where val has no object there is no figure, and the newest is as good as any.
    return figures[f"val_{kinds[-1]}_AP@all"] or 0.0


def _compare(run: Run, bundle: Bundle, figure: float, out: Path, display: Display) -> None:
    """Keep the bundle if it is the best so far, else count how long there was none."""
    if run.best is None or figure > run.best or not (out / "best").exists():
        bundle.save(out / "best")
        run.best, run.stale = figure, 0
    elif run.measured < run.step:  # not where the end is measured a second time
        run.stale += 1
        if 0 < run.patience <= run.stale:
            display.say(f"step {run.step}: no better figure for {run.stale} validations: the run ends here")
