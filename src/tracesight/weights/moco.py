"""Checkpoints of MoCo v1 and v2, as the authors' code writes them: the query encoder alone, without its head.

A file is {"epoch", "arch", "state_dict", "optimizer"}, with `module.` before each name, since the network was trained
under DistributedDataParallel. Below `module.encoder_q.` the names are torchvision's. The networks are torchvision's
too: the stride is on the 3×3 convolutions, batch norm's eps is 1e-5, pictures are RGB in 0–1 standardised by ImageNet's
mean and deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tracesight.errors import UserError

CONVENTIONS = ("torchvision",)  # in every row that a classifier has

DROPPED_SUFFIX = "num_batches_tracked"

# The encoder's names; whatever does not begin so (the key encoder, the queue) is dropped on purpose, and the head is.
PREFIX, HEAD = "module.encoder_q.", "fc."
KEYS: dict[str, str | None] = {}

BACKBONE = "backbone.body."
BACKBONE_LEAVES: tuple[str, ...] = ()

WRAPPER: str | None = "state_dict"

LICENCE_UNKNOWN = "unknown: the file states none (the authors' code and weights come under CC BY-NC 4.0: no commerce)"


def published(sha256: str) -> None:
    """The authors' files are known by their MD5 only: b251726a (v1), 59fd9945 (v2), a04e12f8 (v2, 800 epochs)."""
    return


def keeps(name: str) -> bool:
    """Whether a tensor of the file is of the encoder."""
    return name.startswith(PREFIX) and not name.startswith(PREFIX + HEAD) and not name.endswith(DROPPED_SUFFIX)


def to_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors under Tracesight's names. Raises UserError: there is none."""
    return without_prefix(state, PREFIX, HEAD)


def from_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's state under this source's names, as the authors' linear probe and detection scripts read it."""
    return with_prefix(state, PREFIX)


def without_prefix(state: Mapping[str, Tensor], prefix: str, head: str | tuple[str, ...]) -> dict[str, Tensor]:
    """What stands below `prefix`, but for the head and for counters. Raises UserError: nothing does."""
    if not any(name.startswith(prefix) for name in state):
        raise UserError(f"no tensor's name begins with '{prefix}': another method's checkpoint, or no whole one")
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return {n: tensor for n, tensor in inner.items() if not n.startswith(head) and not n.endswith(DROPPED_SUFFIX)}


def with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The other way, without counters and last layer."""
    kept = {n: tensor for n, tensor in state.items() if not n.startswith(HEAD) and not n.endswith(DROPPED_SUFFIX)}
    return {prefix + name: tensor for name, tensor in kept.items()}
