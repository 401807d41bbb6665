"""The methods that learn without labels, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from tracesight.errors import UserError
from tracesight.models.build import CATALOGUE, build
from tracesight.models.mae import mae_on
from tracesight.models.moco import MoCo
from tracesight.models.moco_v3 import MoCoV3
from tracesight.models.pixels import pixel_statistics, remember_pixels
from tracesight.models.vit import ViT

# Name -> method(encoder, **numbers); `encoder` makes an encoder, once for each that the method has.
METHODS: dict[str, Callable[..., nn.Module]] = {
    "moco-v1": partial(MoCo, mlp=False),
    "moco-v2": MoCo,
    "moco-v3": MoCoV3,
    "mae": mae_on,
}


def build_method(
    name: str,
    encoder: str,
    encoder_args: Mapping[str, Any],
    numbers: Mapping[str, Any],
    pixels: Mapping[str, Sequence[float]] | None = None,
) -> nn.Module:
    """The method called `name` around an encoder of the catalogue, with random weights.

    numbers: the method's own arguments. pixels: "mean" and "std" of each channel, None for the usual. The result's
    `spec` says how to build it again, `pixel_mean` and `pixel_std` what its views are standardised by. Raises
    UserError: no such method, encoder or number, or one that does not fit.
    """
    if name not in METHODS:
        raise UserError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
    if encoder in CATALOGUE and CATALOGUE[encoder].task != "classify":
        does = "is a method of its own" if CATALOGUE[encoder].task == "pretrain" else "finds objects"
        raise UserError(f"model={encoder} {does}; choose a classifier, whose body is pretrained")
    make = METHODS[name]
    known = {p.name for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY}
    if unknown := sorted(set(numbers) - known):
        raise UserError(f"{name} has no {unknown[0]}; it has {', '.join(sorted(known))}")
    whole = build(encoder, 0, **dict(encoder_args))
    if isinstance(whole, ViT) and name in ("moco-v1", "moco-v2"):
        raise UserError(f"{name} is for residual networks; for model={encoder} use method=moco-v3 or mae")
    try:
        method = make(lambda: build(encoder, 0, **dict(encoder_args)), **dict(numbers))
    except ValueError as error:
        raise UserError(f"{name} cannot be built: {error}") from None
    try:
        remember_pixels(method, *pixel_statistics(encoder_args.get("in_channels", 3), pixels))
    except ValueError as error:
        raise UserError(f"config key {error}") from None
    method.spec = {  # type: ignore[assignment]
        "name": name, "num_classes": 0, "conventions": "tracesight", "args": dict(numbers), "encoder": whole.spec
    }  # fmt: skip
    return method


def numbers_of(name: str) -> set[str]:
    """Names of the numbers that a method has. Raises KeyError for another name."""
    return {p.name for p in inspect.signature(METHODS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY}
