"""The public checkpoints of CIFAR's ResNets (20 to 1202 layers), as Idelbayev's pytorch_resnet_cifar10 has them.

Its classifier is called `linear`, all other names are torchvision's; a file is {"state_dict": …, "best_prec1": …} with
`module.` before each name, since the network was trained under `DataParallel`. What no tensor shows: shortcuts are
option A, and put the old channels in the middle of the new ones, as `models/resnet.py` does. Pictures are RGB in 0–1
less ImageNet's mean, by its deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tracesight.weights.published import Published

CONVENTIONS = ("torchvision",)  # in every row that a classifier has

DROPPED_SUFFIX = "num_batches_tracked"

# Name in the file, without `module.` -> name in Tracesight.
KEYS: dict[str, str | None] = {"linear.weight": "fc.weight", "linear.bias": "fc.bias"}
PREFIX = "module."

BACKBONE = "backbone.body."
BACKBONE_LEAVES = ("fc",)

WRAPPER: str | None = "state_dict"

LICENCE_UNKNOWN = "unknown: the file states none (those of pytorch_resnet_cifar10 come under BSD-2-Clause)"


def _cifar(name: str) -> Published:
    return Published(name, "torchvision", "CIFAR-10", 10, f"BSD-2-Clause (pytorch_resnet_cifar10's {name})")


# First eight digits of a published file's SHA-256, which are in the file names.
PUBLISHED: dict[str, Published] = {
    "12fca82f": _cifar("resnet20"),
    "d509ac18": _cifar("resnet32"),
    "014dd654": _cifar("resnet44"),
    "4bfd9763": _cifar("resnet56"),
    "1d1ed7c2": _cifar("resnet110"),
    "f3b1deed": _cifar("resnet1202"),
}


def published(sha256: str) -> Published | None:
    """The published file with this SHA-256 (64 hexadecimal digits), or None."""
    return PUBLISHED.get(sha256[:8])


def to_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under Tracesight's names; those dropped on purpose are missing."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix(PREFIX)
        new = None if name.endswith(DROPPED_SUFFIX) else KEYS.get(name, name)
        if new is not None:
            renamed[new] = tensor
    return renamed


def from_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Tracesight model's state under this source's names, without `module.`, as its networks take it."""
    back = {new: old for old, new in KEYS.items()}
    return {back.get(name, name): tensor for name, tensor in state.items() if not name.endswith(DROPPED_SUFFIX)}
