"""Measuring a detector on held-out pictures the way a user will: through the bundle, predict, scenes and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tracesight.bundle import Bundle
from tracesight.data.batch import Loaded
from tracesight.data.record import Dataset
from tracesight.evaluation import evaluate, operating_threshold
from tracesight.predict import dataset_results
from tracesight.training.progress import Display
from tracesight.training.steps import to_device


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


def validate(bundle: Bundle, val: Dataset, display: Display) -> Validation:
    """Figures and operating threshold of `bundle` on `val`; masks count where the bundle draws them.

    Raises:
        UserError: a picture that could be read before the training cannot be read any more.
    """
    with display.job("validate", len(val)) as job:
        results = dataset_results(bundle, val, progress=lambda _: job.advance())
    kinds = kinds_of(bundle.model)
    metrics = evaluate(results, val, max_objects=bundle.max_objects, kinds=kinds)
    return Validation(metrics, operating_threshold(results, val, kind=kinds[-1]), results)


def kinds_of(model: nn.Module) -> tuple[str, ...]:
    """ "bbox", and "segm" if the model draws masks; the last one is the one that counts."""
    masks = any(name.startswith("roi_heads.mask_head.") for name in model.state_dict())
    return ("bbox", "segm") if masks else ("bbox",)


@torch.no_grad()
def mean_losses(
    losses_of: Callable[[Loaded], dict[str, torch.Tensor]], batches: Iterator[Loaded], device: torch.device
) -> dict[str, float]:
    """Each loss of `losses_of`, averaged over `batches` with the number of pictures as weight."""
    sums: dict[str, torch.Tensor] = {}
    pictures = 0
    for loaded in batches:
        count = len(loaded.indices)
        pictures += count
        for name, loss in losses_of(to_device(loaded, device)).items():
            sums[name] = sums.get(name, 0) + loss.float() * count
    return {name: float(total) / pictures for name, total in sums.items()}
