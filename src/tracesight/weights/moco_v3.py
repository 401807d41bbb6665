"""Checkpoints of MoCo v3, as the authors' code writes them: the encoder alone, without its head.

As `moco.py` has it, but for the prefix: `module.base_encoder.`. Below it a vision transformer's names are timm's, and a
head of three layers stands in the place of its classifier. Positions are a table in the file, which no rule here makes
anew. Their ViT-S has 12 heads of attention and not DeiT's 6, which no tensor shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tracesight.errors import UserError
from tracesight.models.vit import heads_of
from tracesight.weights.moco import with_prefix, without_prefix

CONVENTIONS = ("torchvision",)

DROPPED_SUFFIX = "num_batches_tracked"

PREFIX, HEADS = "module.base_encoder.", ("fc.", "head.")
KEYS: dict[str, str | None] = {}

BACKBONE = "backbone.body."
BACKBONE_LEAVES: tuple[str, ...] = ()

# How a network of the catalogue must be built for this source, where that is not the usual way.
ARGS: dict[str, dict[str, Any]] = {"vit_small_patch16": {"heads": 12}}

WRAPPER: str | None = "state_dict"

LICENCE_UNKNOWN = "unknown: the file states none (the authors' code and weights come under CC BY-NC 4.0: no commerce)"


def published(sha256: str) -> None:
    """The authors' files are known by name only."""
    return


def keeps(name: str) -> bool:
    """Whether a tensor of the file is of the encoder."""
    inner = name.removeprefix(PREFIX)
    return inner != name and not inner.startswith(HEADS) and not name.endswith(DROPPED_SUFFIX)


def check_model(model: nn.Module) -> None:
    """Raise UserError where the network has other heads of attention than the authors', which no tensor shows."""
    name: str = model.spec["name"]  # type: ignore[index, assignment]
    wanted = ARGS.get(name, {}).get("heads")
    if wanted is not None and heads_of(model) != wanted:
        raise UserError(f"the authors' {name} has {wanted} heads of attention, this one {heads_of(model)}: "
                        f"build it with heads={wanted}")  # fmt: skip


def to_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors under Tracesight's names. Raises UserError: there is none."""
    return without_prefix(state, PREFIX, HEADS)


def from_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's state under this source's names, as the authors' linear probe reads it."""
    return with_prefix({name: tensor for name, tensor in state.items() if not name.startswith(HEADS)}, PREFIX)
