"""Checkpoints of MoCo v3 on residual networks, as the authors' code writes them: the encoder alone, without its head.

As `moco.py` has it, but for the prefix: `module.base_encoder.`. Those of its vision transformers are another network.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tracesight.errors import UserError
from tracesight.weights.moco import with_prefix, without_prefix

CONVENTIONS = ("torchvision",)

DROPPED_SUFFIX = "num_batches_tracked"

PREFIX, HEAD = "module.base_encoder.", "fc."
KEYS: dict[str, str | None] = {}

BACKBONE = "backbone.body."
BACKBONE_LEAVES: tuple[str, ...] = ()

WRAPPER: str | None = "state_dict"

LICENCE_UNKNOWN = "unknown: the file states none (the authors' code and weights come under CC BY-NC 4.0: no commerce)"


def published(sha256: str) -> None:
    """The authors' files are known by name only."""
    return


def keeps(name: str) -> bool:
    """Whether a tensor of the file is of the encoder."""
    return name.startswith(PREFIX) and not name.startswith(PREFIX + HEAD) and not name.endswith(DROPPED_SUFFIX)


def to_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors under Tracesight's names. Raises UserError: there is none, or it is no residual network."""
    if PREFIX + "cls_token" in state:
        raise UserError(f"tensor '{PREFIX}cls_token' is of a vision transformer, and these are not read yet")
    return without_prefix(state, PREFIX, HEAD)


def from_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's state under this source's names, as the authors' linear probe reads it."""
    return with_prefix(state, PREFIX)
