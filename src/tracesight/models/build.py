"""The catalogue: every network by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from tracesight.errors import UserError
from tracesight.models.cifar_resnet import (
    cifar_plain,
    cifar_preact_bottleneck,
    cifar_preact_resnet,
    cifar_resnet,
    cifar_resnet18,
)
from tracesight.models.conventions import CONVENTIONS
from tracesight.models.mae import mae_vit
from tracesight.models.pixels import pixel_statistics, remember_pixels
from tracesight.models.preact_resnet import preact_resnet
from tracesight.models.rcnn import rcnn, rcnn_c4, rcnn_dc5, rcnn_fpn
from tracesight.models.resnet import plain, resnet
from tracesight.models.resnext import resnext
from tracesight.models.vit import vit
from tracesight.models.wide_resnet import wide_resnet


@dataclass(frozen=True)
class Entry:
    """builder(num_classes, **arguments); task "classify", "detect", "segment" or "pretrain" (no classes at
    all); classes it has by default."""

    builder: Callable[..., nn.Module]
    task: str
    num_classes: int
    paper: str
    weights: tuple[str, ...]


_RESNET = "He et al. 2016, Deep Residual Learning for Image Recognition"
_PREACT = "He et al. 2016, Identity Mappings in Deep Residual Networks"
_RESNEXT = "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks"
_WIDE = "Zagoruyko and Komodakis 2016, Wide Residual Networks"
_VIT = "Dosovitskiy et al. 2021, An Image is Worth 16x16 Words"
_DEIT = "Touvron et al. 2021, Training data-efficient image transformers"
_MAE = "He et al. 2022, Masked Autoencoders Are Scalable Vision Learners"
_RCNN = "Girshick et al. 2014, Rich Feature Hierarchies (R-CNN)"
_FAST = "Girshick 2015, Fast R-CNN"
_FASTER = "Ren et al. 2015, Faster R-CNN"
_FPN = "Ren et al. 2015, Faster R-CNN; Lin et al. 2017, Feature Pyramid Networks"
_MASK = "He et al. 2017, Mask R-CNN"
_MASK_FPN = "He et al. 2017, Mask R-CNN; Lin et al. 2017, Feature Pyramid Networks"
_VITS, _MAES = ("timm", "mae", "huggingface", "moco_v3"), ("mae", "huggingface")
_TV, _TIMM, _BOTH = ("torchvision",), ("timm",), ("torchvision", "timm", "moco", "moco_v3")
# Heads as torchvision's v2 detectors have them.
_V2 = {"head_norm": "batch", "rpn_convs": 2, "box_convs": 4}

# What is a classifier of its own and the body of detectors.
_R18, _R34, _R50 = partial(resnet, 18, "v1.5"), partial(resnet, 34, "v1.5"), partial(resnet, 50, "v1.5")
_R101, _R152 = partial(resnet, 101, "v1.5"), partial(resnet, 152, "v1.5")
_R50_V1, _R101_V1, _R152_V1 = (partial(resnet, depth, "v1") for depth in (50, 101, 152))
_PLAIN18, _PLAIN34 = partial(plain, 18), partial(plain, 34)
_P18, _P34, _P50, _P101, _P152, _P200 = (partial(preact_resnet, depth) for depth in (18, 34, 50, 101, 152, 200))
_X50_32, _X101_32, _X101_64 = partial(resnext, 50, 32, 4), partial(resnext, 101, 32, 8), partial(resnext, 101, 64, 4)
_W50, _W101 = partial(wide_resnet, 50, 2), partial(wide_resnet, 101, 2)

# The bodies of detectors, and where the names of their parameters are torchvision's.
_RESNETS = {"resnet18": _R18, "resnet34": _R34, "resnet50": _R50, "resnet101": _R101, "resnet152": _R152}
_TORCHVISION = {
    **_RESNETS,
    "resnext50_32x4d": _X50_32,
    "resnext101_32x8d": _X101_32,
    "resnext101_64x4d": _X101_64,
    "wide_resnet50_2": _W50,
    "wide_resnet101_2": _W101,
}
_BODIES = {
    **_TORCHVISION,
    "resnet50_v1": _R50_V1,
    "resnet101_v1": _R101_V1,
    "resnet152_v1": _R152_V1,
    "plain18": _PLAIN18,
    "plain34": _PLAIN34,
    "preact_resnet18": _P18,
    "preact_resnet34": _P34,
    "preact_resnet50": _P50,
    "preact_resnet101": _P101,
    "preact_resnet152": _P152,
    "preact_resnet200": _P200,
}


def _systems(
    pattern: str,
    builder: Callable[..., nn.Module],
    *system: str,
    task: str = "detect",
    classes: int = 91,
    paper: str,
    bodies: Mapping[str, Callable[..., nn.Module]] = _RESNETS,
    torchvision: bool = False,
    **args: Any,
) -> dict[str, Entry]:
    """A line of the catalogue for each body: names of `pattern`, with its name in the place of "{}"."""
    return {
        pattern.format(name): Entry(
            partial(builder, body, *system, **args),
            task,
            classes,
            paper,
            _TV if torchvision and name in _TORCHVISION else (),
        )
        for name, body in bodies.items()
    }


CATALOGUE: dict[str, Entry] = {
    "resnet18": Entry(_R18, "classify", 1000, _RESNET, _BOTH),
    "resnet34": Entry(_R34, "classify", 1000, _RESNET, _BOTH),
    "resnet50": Entry(_R50, "classify", 1000, _RESNET, _BOTH),
    "resnet101": Entry(_R101, "classify", 1000, _RESNET, _BOTH),
    "resnet152": Entry(_R152, "classify", 1000, _RESNET, _BOTH),
    "resnet50_v1": Entry(_R50_V1, "classify", 1000, _RESNET, ()),
    "resnet101_v1": Entry(_R101_V1, "classify", 1000, _RESNET, ()),
    "resnet152_v1": Entry(_R152_V1, "classify", 1000, _RESNET, ()),
    "plain18": Entry(_PLAIN18, "classify", 1000, _RESNET, ()),
    "plain34": Entry(_PLAIN34, "classify", 1000, _RESNET, ()),
    "preact_resnet18": Entry(_P18, "classify", 1000, _PREACT, ()),
    "preact_resnet34": Entry(_P34, "classify", 1000, _PREACT, ()),
    "preact_resnet50": Entry(_P50, "classify", 1000, _PREACT, ()),
    "preact_resnet101": Entry(_P101, "classify", 1000, _PREACT, ()),
    "preact_resnet152": Entry(_P152, "classify", 1000, _PREACT, ()),
    "preact_resnet200": Entry(_P200, "classify", 1000, _PREACT, ()),
    "resnext50_32x4d": Entry(_X50_32, "classify", 1000, _RESNEXT, _BOTH),
    "resnext101_32x4d": Entry(partial(resnext, 101, 32, 4), "classify", 1000, _RESNEXT, _TIMM),
    "resnext101_32x8d": Entry(_X101_32, "classify", 1000, _RESNEXT, _BOTH),
    "resnext101_32x16d": Entry(partial(resnext, 101, 32, 16), "classify", 1000, _RESNEXT, _TIMM),
    "resnext101_32x32d": Entry(partial(resnext, 101, 32, 32), "classify", 1000, _RESNEXT, _TIMM),
    "resnext101_64x4d": Entry(_X101_64, "classify", 1000, _RESNEXT, _BOTH),
    "wide_resnet50_2": Entry(_W50, "classify", 1000, _WIDE, _BOTH),
    "wide_resnet101_2": Entry(_W101, "classify", 1000, _WIDE, _BOTH),
    "cifar_resnet20": Entry(partial(cifar_resnet, 20), "classify", 10, _RESNET, ("cifar",)),
    "cifar_resnet32": Entry(partial(cifar_resnet, 32), "classify", 10, _RESNET, ("cifar",)),
    "cifar_resnet44": Entry(partial(cifar_resnet, 44), "classify", 10, _RESNET, ("cifar",)),
    "cifar_resnet56": Entry(partial(cifar_resnet, 56), "classify", 10, _RESNET, ("cifar",)),
    "cifar_resnet110": Entry(partial(cifar_resnet, 110), "classify", 10, _RESNET, ("cifar",)),
    "cifar_resnet1202": Entry(partial(cifar_resnet, 1202), "classify", 10, _RESNET, ("cifar",)),
    "cifar_resnet18": Entry(cifar_resnet18, "classify", 10, _RESNET, ()),
    "cifar_plain20": Entry(partial(cifar_plain, 20), "classify", 10, _RESNET, ()),
    "cifar_plain32": Entry(partial(cifar_plain, 32), "classify", 10, _RESNET, ()),
    "cifar_plain44": Entry(partial(cifar_plain, 44), "classify", 10, _RESNET, ()),
    "cifar_plain56": Entry(partial(cifar_plain, 56), "classify", 10, _RESNET, ()),
    "cifar_plain110": Entry(partial(cifar_plain, 110), "classify", 10, _RESNET, ()),
    "cifar_plain1202": Entry(partial(cifar_plain, 1202), "classify", 10, _RESNET, ()),
    "cifar_preact_resnet110": Entry(partial(cifar_preact_resnet, 110), "classify", 10, _PREACT, ()),
    "cifar_preact_resnet164": Entry(partial(cifar_preact_bottleneck, 164), "classify", 10, _PREACT, ()),
    "vit_tiny_patch16": Entry(partial(vit, "tiny", 16), "classify", 1000, _DEIT, _VITS),
    "vit_small_patch16": Entry(partial(vit, "small", 16), "classify", 1000, _DEIT, _VITS),
    "vit_base_patch16": Entry(partial(vit, "base", 16), "classify", 1000, _VIT, _VITS),
    "vit_large_patch16": Entry(partial(vit, "large", 16), "classify", 1000, _VIT, _VITS),
    "vit_huge_patch14": Entry(partial(vit, "huge", 14), "classify", 1000, _VIT, _VITS),
    "vit_tiny_patch8": Entry(partial(vit, "tiny", 8), "classify", 1000, _DEIT, _VITS),
    "vit_tiny_patch4": Entry(partial(vit, "tiny", 4, image_size=32), "classify", 10, _DEIT, _VITS),
    "mae_vit_tiny_patch16": Entry(partial(mae_vit, "tiny", 16), "pretrain", 0, _MAE, _MAES),
    "mae_vit_tiny_patch8": Entry(partial(mae_vit, "tiny", 8), "pretrain", 0, _MAE, _MAES),
    "mae_vit_tiny_patch4": Entry(partial(mae_vit, "tiny", 4, image_size=32), "pretrain", 0, _MAE, _MAES),
    "mae_vit_small_patch16": Entry(partial(mae_vit, "small", 16), "pretrain", 0, _MAE, _MAES),
    "mae_vit_base_patch16": Entry(partial(mae_vit, "base", 16), "pretrain", 0, _MAE, _MAES),
    "mae_vit_large_patch16": Entry(partial(mae_vit, "large", 16), "pretrain", 0, _MAE, _MAES),
    "mae_vit_huge_patch14": Entry(partial(mae_vit, "huge", 14), "pretrain", 0, _MAE, _MAES),
    **_systems("rcnn_{}", rcnn, paper=_RCNN),
    **_systems("fast_rcnn_{}", rcnn_c4, "fast", paper=_FAST, pool="pool"),
    **_systems("fast_rcnn_{}_dc5", rcnn_dc5, "fast", paper=_FAST),
    **_systems("fast_rcnn_{}_fpn", rcnn_fpn, "fast", paper=_FPN),
    **_systems("rpn_{}_c4", rcnn_c4, "rpn", classes=2, paper=_FASTER),
    **_systems("rpn_{}_dc5", rcnn_dc5, "rpn", classes=2, paper=_FASTER),
    **_systems("rpn_{}_fpn", rcnn_fpn, "rpn", classes=2, paper=_FPN),
    **_systems("faster_rcnn_{}_c4", rcnn_c4, "faster", paper=_FASTER, bodies=_BODIES),
    **_systems("faster_rcnn_{}_dc5", rcnn_dc5, "faster", paper=_FASTER, bodies=_BODIES),
    **_systems("faster_rcnn_{}_fpn", rcnn_fpn, "faster", paper=_FPN, bodies=_BODIES, torchvision=True),
    **_systems("faster_rcnn_{}_fpn_v2", rcnn_fpn, "faster", paper=_FPN, torchvision=True, **_V2),
    **_systems("mask_rcnn_{}_c4", rcnn_c4, "mask", task="segment", paper=_MASK),
    **_systems("mask_rcnn_{}_fpn", rcnn_fpn, "mask", task="segment", paper=_MASK_FPN, bodies=_BODIES, torchvision=True),
    **_systems("mask_rcnn_{}_fpn_v2", rcnn_fpn, "mask", task="segment", paper=_MASK_FPN, torchvision=True, **_V2),
    # Of COCO's only class with points, the person, as torchvision has it; "mask_rcnn" takes `num_keypoints` too.
    **_systems(
        "keypoint_rcnn_{}_fpn",
        rcnn_fpn,
        "faster",
        classes=2,
        paper=_MASK_FPN,
        bodies=_BODIES,
        torchvision=True,
        num_keypoints=17,
    ),
}


def build(name: str, num_classes: int | None = None, conventions: str = "tracesight", **args: Any) -> nn.Module:
    """Build the network called `name` with random weights.

    num_classes: detectors count background, classifiers have none; None takes the catalogue's (COCO's 91, ImageNet's
    1000). 0 leaves a classifier's last layer out: an encoder, of which `features(x)` can be had. conventions:
    "tracesight", "torchvision", "torchvision-coco-v1" or "huggingface". args: the builder's own arguments.
    The result's `spec` says how to build it again, `pixel_mean` and `pixel_std` what pictures in 0–1 are standardised
    by: a detector does so itself, a classifier takes them standardised (`models/pixels.py`).
    Raises UserError for an unknown name, convention or argument.
    """
    if name not in CATALOGUE:
        raise UserError(f"no model is called {name!r}{_nearest(name, CATALOGUE)}; `tracesight models` lists all")
    if conventions not in CONVENTIONS:
        raise UserError(f"no conventions are called {conventions!r}; there are {', '.join(CONVENTIONS)}")
    entry = CATALOGUE[name]
    classes = entry.num_classes if num_classes is None else num_classes
    least = 2 if entry.task in ("detect", "segment") else 0
    if not isinstance(classes, int) or classes < least:
        raise UserError(f"num_classes is {classes!r}; {name} needs a whole number of at least {least}")
    if entry.task == "pretrain" and classes:
        raise UserError(f"{name} learns without labels and has no classes; leave num_classes out")
    parameters = inspect.signature(entry.builder).parameters.values()
    keywords = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    known = keywords - {"norm_eps"}
    for key in args:
        if key not in known:
            raise UserError(
                f"{name} has no argument {key!r}{_nearest(key, known)}; it takes {', '.join(sorted(known))}"
            )
    extra: dict[str, Any] = {"conventions": conventions} if least else {}
    if "norm_eps" in keywords and not least:
        extra = {"norm_eps": CONVENTIONS[conventions].norm_eps}
    try:
        model = entry.builder(classes or None, **extra, **args)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be built: {error}") from error
    for layer in model.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = CONVENTIONS[conventions].layer_norm_eps
    if not least:
        remember_pixels(model, *pixel_statistics(args.get("in_channels", 3)))
    model.spec = {"name": name, "num_classes": classes, "conventions": conventions, "args": args}  # type: ignore[assignment]
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _nearest(word: str, words) -> str:
    close = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
