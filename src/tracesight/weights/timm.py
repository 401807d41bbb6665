"""Checkpoints of timm: its ResNet, ResNeXt and Wide ResNet classifiers that are built as torchvision's, and its ViTs.

Their names are torchvision's, those of ViTs timm's own, and both are Tracesight's. Many others have these names too and
are other networks: those with a deep stem, with average pooling in the shortcuts ("d"), or with group norm, are told by
their tensors and refused; so are ViTs without class token or with more layers. Networks with anti-aliasing
(`resnetaa50`) cannot be told: nothing in the file shows it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tracesight.errors import UserError
from tracesight.weights.torchvision import from_tracesight

__all__ = ["from_tracesight", "to_tracesight"]

CONVENTIONS = ("torchvision",)  # in every row that a classifier has

DROPPED_SUFFIX = "num_batches_tracked"

KEYS: dict[str, str | None] = {}

BACKBONE = "backbone.body."
BACKBONE_LEAVES = ("fc", "head")

WRAPPER: str | None = "state_dict"  # of its training script; the files that it publishes are bare

LICENCE_UNKNOWN = (
    "unknown: the file states none (most of timm's come under Apache-2.0, those of Facebook's semi- and weakly "
    "supervised ResNets and ResNeXts under CC-BY-NC-4.0)"
)


def published(sha256: str) -> None:
    """timm's files are known by name only."""
    return


def note(state: Mapping[str, Tensor]) -> str | None:
    """What no tensor shows and a user must know."""
    if "cls_token" not in state:
        return None
    return (
        "pictures are standardised by ImageNet's mean and deviation, as DeiT's are; timm's own ViTs (augreg, in21k, "
        "orig) want 0.5 and 0.5: call tracesight.models.pixels.remember_pixels for those"
    )


def to_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors but for those dropped on purpose.

    Raises UserError, naming the tensor, for networks of timm that are built in another way.
    """
    if "conv1.0.weight" in state:
        raise UserError(f"tensor 'conv1.0.weight' is of a deep stem: {_ONLY}")
    for name, tensor in state.items():
        if ".downsample." in name and name.endswith(".1.weight") and tensor.dim() == 4:
            raise UserError(f"tensor '{name}' follows an average pooling (a \"d\" network): {_ONLY}")
    if "bn1.weight" in state and "bn1.running_mean" not in state:
        raise UserError(f"tensor 'bn1.running_mean' is missing, as in networks with group norm: {_ONLY}")
    return {name: tensor for name, tensor in state.items() if not name.endswith(DROPPED_SUFFIX)}


_ONLY = "of timm's, only networks built as torchvision's are covered, such as resnet50 and resnext50_32x4d"
