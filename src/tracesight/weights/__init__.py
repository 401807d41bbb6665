"""Other people's checkpoints: the caller names the source, every tensor is accounted for, a receipt says what happened.

Nothing is guessed from the names of tensors. A tensor that is unmapped, missing or of another shape is an error that
names it; to replace a head, its prefix goes into `skip`.
"""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tracesight.errors import UserError
from tracesight.lineage import file_digest
from tracesight.models.build import CATALOGUE
from tracesight.weights import cifar, huggingface, mae, moco, moco_v3, timm, torchvision
from tracesight.weights.receipt import Receipt

__all__ = ["SOURCES", "Receipt", "built_as", "conventions_of", "load_weights", "read_state"]

# Name that the caller gives -> the file of this room that knows it.
SOURCES: dict[str, Any] = {
    "torchvision": torchvision, "timm": timm, "huggingface": huggingface, "cifar": cifar, "mae": mae, "moco": moco,
    "moco_v3": moco_v3,
}  # fmt: skip

# Conventions that are equal in every row of the table in the design.
_SAME = {"tracesight": "torchvision"}


def load_weights(
    model: nn.Module,
    state_or_path: Mapping[str, Tensor] | str | Path,
    source: str,
    skip: Sequence[str] = (),
    *,
    conventions: str | None = None,
    part: Literal["all", "backbone"] = "all",
) -> Receipt:
    """Load a checkpoint of `source` into `model`, in place, and say what was done. An error changes nothing.

    model: built by `tracesight.build`, whose conventions must be the checkpoint's.
    state_or_path: a state dict, or a `.pth`/`.pt` (read without running code in it) or `.safetensors` file. Where the
        source's own scripts keep the state in a larger file, that file will do.
    source: "torchvision", "timm", "huggingface", "cifar", "mae", "moco" (v1, v2) or "moco_v3"; the catalogue says for
        which networks each has weights.
    skip: prefixes of the model's own names that stay as they are, e.g. ("roi_heads.box_predictor",) for a new head;
        what the checkpoint has under them is dropped. A prefix that meets nothing is an error.
    conventions: the checkpoint's, where the source has several ("torchvision": "torchvision" or
        "torchvision-coco-v1" for the published COCO v1 R-CNNs, whose batch norm has eps 0; "huggingface": that, or
        "torchvision" where config.json says layer_norm_eps 1e-6). None: what the source's published file with exactly
        this content has, otherwise the source's first.
    part: "backbone" takes a classifier into a detector's `backbone.body`, drops its `fc`, and leaves all else new.

    Raises UserError, one line: unknown source, unreadable file, disagreeing conventions, the tensor that does not fit.
    """
    table = _source(source)
    path = Path(state_or_path) if isinstance(state_or_path, str | Path) else None
    label = str(path) if path else "the state dict"
    content, sha256 = (_read(path), file_digest(path)) if path else (state_or_path, None)
    state = _checked(content, label, table.WRAPPER)
    known = table.published(sha256) if sha256 else None
    stated = _stated(source, conventions, known, label)
    _check_conventions(model, stated, label)
    if part == "all":
        _check_source(model, source)
        if hasattr(table, "check_model"):
            table.check_model(model)
    incoming = _translated(table, state, label)
    dropped = [name for name in state if not _keeps(table, name)]
    notes: list[str] = []
    if hasattr(table, "for_classifier") and CATALOGUE[model.spec["name"]].task != "pretrain":  # type: ignore[index]
        kept = table.for_classifier(incoming)
        dropped += sorted(incoming.keys() - kept.keys())
        incoming = kept
    if hasattr(table, "note") and (said := table.note(incoming)):
        notes.append(said)
    if part == "backbone":
        incoming, left = _as_backbone(incoming, table, model, label)
        dropped += left
        notes.append(f"only the backbone was loaded, into {table.BACKBONE}*; dropped: {', '.join(left) or 'nothing'}")
    target = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(table.DROPPED_SUFFIX)}
    skipped = _skipped(skip, incoming, target)
    dropped += sorted(skipped & incoming.keys())
    incoming = {name: tensor for name, tensor in incoming.items() if name not in skipped}
    new = skipped & target.keys()
    if part == "backbone":
        new |= {name for name in target if not name.startswith(table.BACKBONE)}
    _check_fit(incoming, target, new, label, part)

    with torch.no_grad():
        for name, tensor in incoming.items():
            target[name].copy_(tensor)
    return Receipt(
        source=source,
        conventions=stated,
        matched=tuple(incoming),
        dropped=tuple(dropped),
        new=tuple(name for name in target if name in new),
        licence=known.licence if known else table.LICENCE_UNKNOWN,
        notes=tuple(notes),
        file=path.name if path else None,
        sha256=sha256,
    )


def conventions_of(path: str | Path, source: str, conventions: str | None = None) -> str:
    """The conventions with which a model for this file must be built, as `load_weights` will want them.

    Raises UserError: unknown source or conventions, no such file, or a published file that has others.
    """
    table, path = _source(source), Path(path)
    return _stated(source, conventions, table.published(file_digest(path)), str(path))


def built_as(path: str | Path, source: str, model: str) -> dict[str, Any]:
    """Arguments with which `model` of the catalogue must be built for a ViT's file, as its tensors show them.

    "num_classes" (0: none), "image_size" of its table of positions, "in_channels" and "pool", and what is known of the
    source's own network; {} of other networks and of sources that have no weights for the model. Raises UserError:
    unknown source, or a file that is not its own.
    """
    table, label = _source(source), str(path)
    if model not in CATALOGUE or source not in CATALOGUE[model].weights:
        return {}
    state = _translated(table, _checked(_read(Path(path)), label, table.WRAPPER), label)
    if "pos_embed" not in state or "patch_embed.proj.weight" not in state:
        return {}
    in_channels, patch = state["patch_embed.proj.weight"].shape[1:3]
    cells = state["pos_embed"].shape[1] - 1
    side = math.isqrt(cells)
    shown: dict[str, Any] = {"num_classes": 0, "in_channels": in_channels}
    if side * side == cells:  # of an oblong grid the sides do not show
        shown["image_size"] = side * patch
    if CATALOGUE[model].task == "classify" and "head.weight" in state:
        shown["num_classes"] = state["head.weight"].shape[0]
        shown["pool"] = "mean" if "fc_norm.weight" in state else "token"
    return shown | getattr(table, "ARGS", {}).get(model, {})


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, on the CPU; never runs code in it."""
    return _checked(_read(Path(path)), str(path))


def _read(path: Path) -> Any:
    """What the file holds."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a .pth, .pt or .safetensors checkpoint")
    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if suffix not in (".pth", ".pt", ".th", ".bin"):
            raise UserError(f"{path}: unknown kind of checkpoint; expected .pth, .pt or .safetensors")
        with warnings.catch_warnings():
            # Of the pickle protocol: what cannot be read is an error below, what can needs no warning.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, because the file is damaged or a pickle that would run code; "
            "save its state_dict() alone, or better as .safetensors"
        ) from error
    except UserError:
        raise
    except Exception as error:  # safetensors and torch raise a dozen kinds for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as a checkpoint ({reason})") from error


def _translated(table: Any, state: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """The file's tensors under Tracesight's names. Raises UserError, which names the file."""
    try:
        return table.to_tracesight(state)
    except UserError as error:
        raise UserError(f"{label}: {error}") from error


def _keeps(table: Any, name: str) -> bool:
    """Whether a source takes this tensor of its files over."""
    if hasattr(table, "keeps"):
        return table.keeps(name)
    return not name.endswith(table.DROPPED_SUFFIX) and table.KEYS.get(name, name) is not None


def _source(source: str) -> Any:
    if source not in SOURCES:
        raise UserError(f"unknown source '{source}' of weights; known: {', '.join(SOURCES)}")
    return SOURCES[source]


def _checked(state: Any, label: str, wrapper: str | None = None) -> dict[str, Tensor]:
    """`state`, or what it has under `wrapper`, if it is a flat mapping of names to tensors."""
    if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
        state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{label}: holds {type(state).__name__} instead of named tensors; save a model's state_dict()")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(
                f"{label}: '{name}' is not a tensor but {type(tensor).__name__}; "
                "if the state dict lies deeper, load it and pass that part"
            )
    return dict(state)


def _stated(source: str, said: str | None, known: Any, label: str) -> str:
    """The checkpoint's conventions: as the caller said, as is known of this very file, or the source's first."""
    allowed = _source(source).CONVENTIONS
    if said is None:
        return known.conventions if known else allowed[0]
    stated = _SAME.get(said, said)
    if stated not in allowed:
        raise UserError(f"source '{source}' has no conventions '{said}'; it has {', '.join(allowed)}")
    if known and stated != known.conventions:
        raise UserError(f"{label} is {known.name}, whose conventions are '{known.conventions}', not '{stated}'")
    return stated


def _check_conventions(model: nn.Module, stated: str, label: str) -> None:
    spec: dict[str, Any] | None = getattr(model, "spec", None)  # type: ignore[assignment]
    if not isinstance(spec, dict):
        raise UserError("the model has no spec, so its conventions are unknown; build it with tracesight.build")
    built = _SAME.get(spec["conventions"], spec["conventions"])
    if built != stated:
        raise UserError(
            f"{label} has the conventions '{stated}', the model was built with '{spec['conventions']}': "
            f"build it with conventions='{stated}', or say conventions='{built}' if the checkpoint has those"
        )


def _check_source(model: nn.Module, source: str) -> None:
    """Names and shapes may fit where the networks differ, as in where a stride is: the catalogue decides."""
    name: str = model.spec["name"]  # type: ignore[index, assignment]
    if source not in (sources := CATALOGUE[name].weights):
        known = f"known for it: {', '.join(sources)}" if sources else "none are known for it"
        raise UserError(f"source '{source}' has no weights for {name}; {known}")


def _as_backbone(
    state: dict[str, Tensor], table: Any, model: nn.Module, label: str
) -> tuple[dict[str, Tensor], list[str]]:
    """A classifier's tensors under the names of a detector's backbone, and the names that were left behind."""
    if not any(name.startswith(table.BACKBONE) for name in model.state_dict()):
        raise UserError("part='backbone' is for detectors: the model has no tensors under " + table.BACKBONE)
    if any(name.startswith("backbone.") for name in state):
        raise UserError(f"{label}: part='backbone' expects a classifier, and this is a detector; use part='all'")
    left = [name for name in state if name.split(".")[0] in table.BACKBONE_LEAVES]
    return {table.BACKBONE + name: tensor for name, tensor in state.items() if name not in left}, left


def _skipped(skip: Sequence[str], incoming: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> set[str]:
    """Every name under one of the prefixes; a prefix ends at a dot."""
    names = [*incoming, *target]
    found: set[str] = set()
    for prefix in (skip,) if isinstance(skip, str) else skip:
        under = {name for name in names if name == prefix or name.startswith(prefix.rstrip(".") + ".")}
        if not under:
            raise UserError(f"skip='{prefix}' meets no tensor; prefixes are the model's names, such as "
                            f"'{next(iter(target)).rsplit('.', 1)[0]}'")  # fmt: skip
        found |= under
    return found


def _check_fit(
    incoming: Mapping[str, Tensor], target: Mapping[str, Tensor], new: set[str], label: str, part: str
) -> None:
    """Raise UserError naming the first tensor that is missing, unmapped or misshapen, and how many more there are."""
    missing = [name for name in target if name not in incoming and name not in new]
    unmapped = [name for name in incoming if name not in target]
    shapes = [
        f"'{name}' has shape {tuple(tensor.shape)} in the checkpoint and {tuple(target[name].shape)} in the model"
        for name, tensor in incoming.items()
        if name in target and tensor.shape != target[name].shape
    ]
    hint = ""
    if part == "all" and "backbone.body.conv1.weight" in missing and "conv1.weight" in unmapped:
        hint = "; to use a classifier as the backbone of a detector, say part='backbone'"
    elif missing in (["fc.weight", "fc.bias"], ["head.weight", "head.bias"]) and not unmapped and not shapes:
        last = missing[0].split(".")[0]
        hint = f"; build the model with num_classes=0, or leave its last layer new by skip=('{last}',)"
    elif "fc_norm.weight" in [*missing, *unmapped]:
        pool = "mean" if "fc_norm.weight" in unmapped else "token"
        hint = f"; the checkpoint's classifier needs a model built with pool='{pool}'"
    elif any(name.endswith("running_mean") for name in unmapped):
        hint = "; a checkpoint with batch norm needs a model built with norm='frozen' or norm='batch'"
    elif shapes:
        hint = "; to leave a part as it is, put its prefix into skip"
    problems = [*shapes]
    problems += [f"'{name}' of the checkpoint has no place in the model" for name in unmapped]
    problems += [f"'{name}' of the model is missing in the checkpoint" for name in missing]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{label}: tensor {problems[0]}{more}{hint}")
