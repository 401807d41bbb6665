"""Checkpoints of MAE, as the authors' code writes them: pretrained (whole, or the encoder) or fine-tuned.

A file is {"model": state, …}. Names and order of dimensions are Tracesight's. Pictures are RGB in 0–1 standardised by
ImageNet's mean and deviation, layer norm's eps is 1e-6. A model of the catalogue's `mae_vit_*` takes a whole file, with
the decoder; a `vit_*` the encoder of either (built with num_classes=0), or a fine-tuned classifier (pool="mean").
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tracesight.errors import UserError
from tracesight.models.mae import encoder_state

CONVENTIONS = ("torchvision",)  # in every row that a classifier has

DROPPED_SUFFIX = "num_batches_tracked"

KEYS: dict[str, str | None] = {}

BACKBONE = "backbone.body."
BACKBONE_LEAVES = ("head",)

WRAPPER: str | None = "model"

LICENCE_UNKNOWN = "unknown: the file states none (the authors' code and weights come under CC BY-NC 4.0: no commerce)"

# What of the names a file of this source always has.
_SHOWN = ("cls_token", "pos_embed", "patch_embed.proj.weight")


def published(sha256: str) -> None:
    """The authors' files are known by name only."""
    return


def to_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors. Raises UserError: this is no vision transformer."""
    for name in _SHOWN:
        if name not in state:
            raise UserError(f"tensor '{name}' is missing: this is no vision transformer of the authors' code")
    return dict(state)


def for_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a ViT takes of a file: all but the decoder."""
    return encoder_state(state)


def from_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state under this source's names, as the authors' code reads it below "model"."""
    return dict(state)
