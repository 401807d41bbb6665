"""The catalogue: every network by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from tracesight.errors import UserError
from tracesight.models.conventions import CONVENTIONS
from tracesight.models.rcnn import rcnn_resnet_fpn
from tracesight.models.resnet import resnet


@dataclass(frozen=True)
class Entry:
    """builder(num_classes, **arguments); task "classify", "detect" or "segment"; classes it has by default."""

    builder: Callable[..., nn.Module]
    task: str
    num_classes: int
    paper: str
    weights: tuple[str, ...]


_RESNET = "He et al. 2016, Deep Residual Learning for Image Recognition"
_FASTER = "Ren et al. 2015, Faster R-CNN; Lin et al. 2017, Feature Pyramid Networks"
_MASK = "He et al. 2017, Mask R-CNN; Lin et al. 2017, Feature Pyramid Networks"

CATALOGUE: dict[str, Entry] = {
    "resnet18": Entry(partial(resnet, 18), "classify", 1000, _RESNET, ("torchvision",)),
    "resnet34": Entry(partial(resnet, 34), "classify", 1000, _RESNET, ("torchvision",)),
    "resnet50": Entry(partial(resnet, 50), "classify", 1000, _RESNET, ("torchvision",)),
    "resnet101": Entry(partial(resnet, 101), "classify", 1000, _RESNET, ("torchvision",)),
    "resnet152": Entry(partial(resnet, 152), "classify", 1000, _RESNET, ("torchvision",)),
    "faster_rcnn_resnet18_fpn": Entry(partial(rcnn_resnet_fpn, 18, False), "detect", 91, _FASTER, ("torchvision",)),
    "faster_rcnn_resnet34_fpn": Entry(partial(rcnn_resnet_fpn, 34, False), "detect", 91, _FASTER, ("torchvision",)),
    "faster_rcnn_resnet50_fpn": Entry(partial(rcnn_resnet_fpn, 50, False), "detect", 91, _FASTER, ("torchvision",)),
    "faster_rcnn_resnet101_fpn": Entry(partial(rcnn_resnet_fpn, 101, False), "detect", 91, _FASTER, ("torchvision",)),
    "faster_rcnn_resnet152_fpn": Entry(partial(rcnn_resnet_fpn, 152, False), "detect", 91, _FASTER, ("torchvision",)),
    "mask_rcnn_resnet18_fpn": Entry(partial(rcnn_resnet_fpn, 18, True), "segment", 91, _MASK, ("torchvision",)),
    "mask_rcnn_resnet34_fpn": Entry(partial(rcnn_resnet_fpn, 34, True), "segment", 91, _MASK, ("torchvision",)),
    "mask_rcnn_resnet50_fpn": Entry(partial(rcnn_resnet_fpn, 50, True), "segment", 91, _MASK, ("torchvision",)),
    "mask_rcnn_resnet101_fpn": Entry(partial(rcnn_resnet_fpn, 101, True), "segment", 91, _MASK, ("torchvision",)),
    "mask_rcnn_resnet152_fpn": Entry(partial(rcnn_resnet_fpn, 152, True), "segment", 91, _MASK, ("torchvision",)),
}


def build(name: str, num_classes: int | None = None, conventions: str = "tracesight", **args: Any) -> nn.Module:
    """Build the network called `name` with random weights.

    num_classes: detectors count background, classifiers have none; None takes the catalogue's (COCO's 91, ImageNet's
    1000). conventions: "tracesight", "torchvision" or "torchvision-coco-v1". args: the builder's own arguments.
    The result's `spec` says how to build it again. Raises UserError for an unknown name, convention or argument.
    """
    if name not in CATALOGUE:
        raise UserError(f"no model is called {name!r}{_nearest(name, CATALOGUE)}; `tracesight models` lists all")
    if conventions not in CONVENTIONS:
        raise UserError(f"no conventions are called {conventions!r}; there are {', '.join(CONVENTIONS)}")
    entry = CATALOGUE[name]
    classes = entry.num_classes if num_classes is None else num_classes
    least = 1 if entry.task == "classify" else 2
    if not isinstance(classes, int) or classes < least:
        raise UserError(f"num_classes is {classes!r}; {name} needs a whole number of at least {least}")
    parameters = inspect.signature(entry.builder).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"norm_eps"}
    for key in args:
        if key not in known:
            raise UserError(
                f"{name} has no argument {key!r}{_nearest(key, known)}; it takes {', '.join(sorted(known))}"
            )
    extra = (
        {"norm_eps": CONVENTIONS[conventions].norm_eps} if entry.task == "classify" else {"conventions": conventions}
    )
    try:
        model = entry.builder(classes, **extra, **args)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be built: {error}") from error
    model.spec = {"name": name, "num_classes": classes, "conventions": conventions, "args": args}  # type: ignore[assignment]
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _nearest(word: str, words) -> str:
    close = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
