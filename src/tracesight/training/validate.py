"""Measuring a detector on held-out pictures the way a user will: through the bundle, predict, scenes and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from tracesight.bundle import Bundle
from tracesight.data.batch import Loaded
from tracesight.data.dataset import Dataset
from tracesight.data.loader import validation_batches
from tracesight.data.proposals import ProposalSet
from tracesight.data.transforms import eval_transform
from tracesight.evaluation import evaluate, operating_threshold, proposal_recall
from tracesight.evaluation.recall import LIMITS
from tracesight.models.keypoint_head import keypoints_of
from tracesight.models.proposals import proposes_only
from tracesight.ops.collectives import alone
from tracesight.predict import dataset_results
from tracesight.training.liveness import patient
from tracesight.training.measure import Validation
from tracesight.training.prepare import Splits
from tracesight.training.progress import Display
from tracesight.training.ranks import Ranks, gathered
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


def validate(
    bundle: Bundle, keys: Keys, splits: Splits, val: Dataset, losses_of: LossesOf, run: Run, display: Display
) -> Validation | None:
    """Figures and operating threshold of `bundle` on `val`; masks count where the bundle draws them.

    Each rank takes every so-many-th picture, so each picture is looked at once; the first rank gets the figures and the
    others None.

    Args:
        losses_of: the training loss, of which the mean over some of the pictures is taken too.

    Raises:
        UserError: a picture that could be read before the training cannot be read any more.
    """
    with display.job("validate", -(-len(val) // run.ranks.count)) as job:
        results = results_of_all(
            bundle, val, run.ranks, lambda _: job.advance(), proposals=splits.proposals, **of_proposer(bundle)
        )
    if results is None:
        return None
    kinds = kinds_of(bundle.model)
    with patient():
        counts = splits.train_pictures
        metrics = evaluate(results, val, max_objects=bundle.max_objects, kinds=kinds, train_pictures=counts)
        operating = operating_threshold(results, val, kind="segm" if "segm" in kinds else "bbox")
        if proposes_only(bundle.model):
            metrics["proposals"] = proposal_recall(results, val)
    with alone():
        loss = validation_loss(keys, val, losses_of, run.device, splits.proposals, keypoints_of(bundle.model))
    figures = {f"val_{kind}_{name}": metrics[kind][name] for kind in kinds for name in FIGURES}
    figures |= {f"val_{name}": metrics["proposals"][name] for name in proposal_figures(bundle.model)}
    deciding = (proposal_figures(bundle.model) or (f"{kinds[-1]}_AP@all",))[-1]
    thresholds = {"operating": operating["threshold"]}
    return Validation(metrics, thresholds, operating, figures, f"val_{deciding}", loss, results)


def of_proposer(bundle: Bundle) -> dict[str, Any]:
    """Options of `dataset_results` with which an RPN alone gives as many proposals as are counted; {} for others."""
    return {"max_objects": max(LIMITS), "threshold": 0.0} if proposes_only(bundle.model) else {}


def proposal_figures(model: nn.Module) -> tuple[str, ...]:
    """Names of the figures that an RPN alone has besides; () for others."""
    return tuple(f"AR@{limit}" for limit in LIMITS) if proposes_only(model) else ()


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
    """ "bbox", "segm" if the model draws masks, "keypoints" if it finds any; the last one is the one that counts."""
    names = [name for name, _ in model.named_parameters()]
    heads = {"segm": "roi_heads.mask_predictor.", "keypoints": "roi_heads.keypoint_predictor."}
    return "bbox", *(kind for kind, head in heads.items() if any(name.startswith(head) for name in names))


def validation_loss(
    keys: Keys,
    val: Dataset,
    losses_of: LossesOf,
    device: torch.device,
    proposals: ProposalSet | None = None,
    keypoints: int = 0,
) -> float | None:
    """The mean training loss on the first `val_loss_pictures` of val, not augmented; None if that is 0.

    keypoints: points of an object that are learned.
    """
    if not keys.val_loss_pictures:
        return None
    some = val.subset(range(min(len(val), keys.val_loss_pictures)))
    batches = validation_batches(
        some,
        proposals=None if proposals is None else proposals.of(some),
        batch_size=keys.batch_size,
        transform=partial(eval_transform, image_size=keys.image_size, max_size=keys.max_size),
        with_masks=keys.model.startswith("mask_"),
        channels=keys.in_channels,
        keypoints=keypoints,
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
