"""The weights that a training begins from: random, or those of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tracesight.data.dataset import Dataset
from tracesight.data.points import Keypoints
from tracesight.data.statistics import channel_spread
from tracesight.errors import UserError
from tracesight.models.build import CATALOGUE, build
from tracesight.models.vit import heads_of

if TYPE_CHECKING:
    from tracesight.bundle import Bundle

_FIRST = ("backbone.body.conv1.weight", "roi_heads.box_roi_pool.body.conv1.weight", "conv1.weight",
          "patch_embed.proj.weight")  # fmt: skip
# Where a detector has the stages of a classifier: a pyramid's or C4's, R-CNN's, and C4's last one.
_BODIES = ("backbone.body.", "roi_heads.box_roi_pool.body.", "roi_heads.box_head.")
_HEADS = ("fc.", "head.")  # of classifiers
# The layers whose rows are categories.
_PER_CATEGORY = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")


def detector_args(name: str, args: dict[str, Any], begun: Bundle | None, in_channels: int = 3) -> dict[str, Any]:
    """The builder's arguments for a detector: `args`, completed from the bundle that it begins from.

    Mean and deviation of the bundle's channels are taken over with their number, not from one number to another.

    Raises:
        UserError: frozen norms without a bundle, whose statistics would be those of random weights.
    """
    if begun is None:
        if args.get("norm") == "frozen":
            raise UserError(
                "model_args.norm=frozen needs --init: random weights have no statistics to freeze; use group"
            )
        # Heads with batch norm would learn nothing of pictures one by one.
        return {"norm": "group", **({"head_norm": "group"} if name.endswith("_v2") else {}), **args}
    if begun.spec["name"] == name:
        other = ("in_channels",) if begun.in_channels == in_channels else ("in_channels", "pixels")
        return {**{key: value for key, value in begun.spec["args"].items() if key not in other}, **args}
    return args


def keypoint_args(name: str, args: dict[str, Any], points: Mapping[int, Keypoints]) -> dict[str, Any]:
    """`args` with the number of keypoints that objects have, for a detector that finds any (`learns_keypoints`)."""
    if not learns_keypoints(name, args):
        return args
    return {**args, "num_keypoints": max((len(named.names) for named in points.values()), default=1)}


def learns_keypoints(name: str, args: dict[str, Any]) -> bool:
    """Whether a detector finds keypoints: one called so, or one that is told how many."""
    return bool(args.get("num_keypoints", name.startswith("keypoint_")))


def channel_args(args: dict[str, Any], in_channels: int, train: Dataset, seed: int) -> dict[str, Any]:
    """`args` with the number of channels, and mean and deviation of each in `train`; as they are for RGB.

    Mean and deviation that are among them already, in "pixels", are kept.
    """
    if in_channels == 3:
        return args
    pixels = args.get("pixels") or channel_spread(train, in_channels, seed)
    return {**args, "in_channels": in_channels, "pixels": pixels}


def widened(begun: Bundle | None, in_channels: int) -> str | None:
    """A sentence for the report where the bundle's first convolution takes another number of channels; else None.

    Raises:
        UserError: the bundle is not of RGB either, so there is no mean of colours to begin from.
    """
    if begun is None or begun.in_channels == in_channels:
        return None
    if begun.in_channels != 3:
        raise UserError(
            f"--init: the bundle takes {begun.in_channels} channels; train with in_channels={begun.in_channels}"
        )
    return (
        f"the first convolution was of RGB: each of its {in_channels} channels begins as the mean of the three, "
        f"times 3/{in_channels}"
    )


def build_detector(
    name: str,
    args: dict[str, Any],
    *,
    categories: dict[int, str],
    max_objects: int,
    seed: int,
    begun: Bundle | None,
    points: Mapping[int, Keypoints] | None = None,
) -> nn.Module:
    """A detector for `categories`, its random weights drawn from `seed`, then filled from `begun` where that is given.

    A first convolution of RGB becomes one of other channels as `widened` says, so that grey light gives what it gave.

    Raises:
        UserError: no such model or argument, or a bundle that does not fit.
    """
    conventions = "tracesight" if begun is None else begun.spec["conventions"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = {**args, "roi": {**(args.get("roi") or {}), "max_objects": max_objects}}
        model = build(name, len(categories) + 1, conventions, **settings)
    if begun is not None:
        _fill_detector(model, begun, categories, points or {})
    return model


def build_classifier(
    name: str, args: dict[str, Any], *, categories: dict[int, str], seed: int, begun: Bundle | None
) -> nn.Module:
    """A classifier for `categories`, as `build_detector` makes detectors; its last layer is made anew if they differ.

    Raises:
        UserError: no such model or argument, a model that finds objects, or a bundle that does not fit.
    """
    if name in CATALOGUE and CATALOGUE[name].task != "classify":
        does = "learns without labels" if CATALOGUE[name].task == "pretrain" else "finds objects"
        raise UserError(f"model={name} {does}; choose a classifier (`tracesight models`) or --task detect")
    conventions = "tracesight" if begun is None else begun.spec["conventions"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(name, len(categories), conventions, **args)
    if begun is not None:
        if begun.task not in ("classify", "features"):
            raise UserError(f"--init: the bundle ({begun.spec['name']}) finds objects; begin from that of a classifier")
        if begun.spec["name"] == name and heads_of(model) != heads_of(begun.model):
            raise UserError(
                f"--init: {name} has {heads_of(begun.model)} heads of attention in the bundle and {heads_of(model)} in "
                "the model; leave out model_args.heads"
            )
        source = begun.model.state_dict()
        heads = {name for name in model.state_dict() if name.startswith(_HEADS)}
        same = list(begun.categories.items()) == list(categories.items()) and heads <= source.keys()
        # The norm behind a mean over patches is new where the bundle had its norm before it.
        behind = () if any(name.startswith("fc_norm.") for name in source) else ("fc_norm.",)
        _fill(model, begun, source, behind if same else (*_HEADS, *behind))
    return model


def _point_names(points: Mapping[int, Keypoints]) -> set[tuple[str, ...]]:
    return {named.names for named in points.values()}


def _fill_detector(
    model: nn.Module, begun: Bundle, categories: dict[int, str], points: Mapping[int, Keypoints]
) -> None:
    """Copy the bundle's tensors; layers a category or keypoint wide only if these are the same."""
    source, state = begun.model.state_dict(), model.state_dict()
    if begun.task in ("classify", "features"):  # its body is the detector's
        source = _as_body(source, begun, state)
        new = tuple(name for name in state if name not in source)
    else:
        # What the bundle's system does not have begins at random: mask and keypoint heads, an RPN, or all heads.
        heads = ("mask_head.", "mask_predictor.", "keypoint_head.", "keypoint_predictor.")
        parts = ("rpn.", "roi_heads.", *(f"roi_heads.{head}" for head in heads))
        new = tuple(part for part in parts if not any(name.startswith(part) for name in source))
        source = {name: tensor for name, tensor in source.items() if name in state}
        _check_masks(source, state, begun)
        if _point_names(begun.keypoints) != _point_names(points):
            new += ("roi_heads.keypoint_predictor.",)
        if list(begun.categories.items()) != list(categories.items()):
            new += _PER_CATEGORY
    _fill(model, begun, source, new)


def _as_body(source: dict[str, torch.Tensor], begun: Bundle, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A classifier's tensors under the names that its stages have in a detector. Raises UserError: one has no place."""
    named = {}
    for name, tensor in source.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        # Of a pre-activation network the norm that ends the last stage goes with it.
        last = name.replace("norms.3.", "norm.") if name.startswith("norms.3.") else name
        places = [place + n for place, n in zip(_BODIES, (name, name, last)) if place + n in state]
        if not places:
            raise UserError(f"--init: {name} of the bundle ({begun.spec['name']}) has no place in the model")
        named[places[0]] = tensor
    return named


def _check_masks(source: dict[str, torch.Tensor], state: dict[str, torch.Tensor], begun: Bundle) -> None:
    """Raise UserError where one draws a mask for each class and the other one for all."""
    name = "roi_heads.mask_predictor.mask_fcn_logits.weight"
    if name not in source or (source[name].shape[0] == 1) == (state[name].shape[0] == 1):
        return
    if source[name].shape[0] == 1:
        raise UserError(
            f"--init: the bundle ({begun.spec['name']}) is class-agnostic: it has one mask whatever the class, "
            "and none of each class; say model_args.mask_agnostic=true"
        )
    raise UserError(
        f"--init: the bundle ({begun.spec['name']}) has a mask of each class; say model_args.mask_agnostic=false"
    )


def all_but_last(model: nn.Module, blocks: int) -> tuple[str, ...]:
    """What to freeze (beginnings of names) of a transformer whose last `blocks` are trained, and what follows them.

    MAE, section 5.3, "Partial fine-tuning". 0: the classifier alone. Raises UserError: no transformer, or no so many.
    """
    names = [name for name, _ in model.named_parameters()]
    there = sorted({int(name.split(".")[1]) for name in names if name.startswith("blocks.")})
    if blocks > len(there) or not there:
        has = f"{len(there)} blocks" if there else "no blocks of a transformer"
        raise UserError(f"tune_blocks={blocks}: {model.spec['name']} has {has}")  # type: ignore[index]
    kept = ("head.", "fc_norm.", *(f"blocks.{block}." for block in there[len(there) - blocks :]))
    kept += ("norm.",) if blocks else ()
    return tuple(name for name in names if not name.startswith(kept))


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Train no parameter whose name begins with one of `prefixes`. Raises UserError: one meets nothing, or all do."""
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            raise UserError(f"freeze={prefix}: no parameter of {model.spec['name']} begins so; the first is {names[0]}")  # type: ignore[index]
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(prefixes)):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze={','.join(prefixes)}: nothing is left to train")


def _fill(model: nn.Module, begun: Bundle, source: dict[str, torch.Tensor], new: tuple[str, ...]) -> None:
    """Copy `source`, the bundle's tensors, but for what begins with one of `new`."""
    state = model.state_dict()
    # Group norm and batch norm share the names of their weights; the statistics alone tell them apart.
    statistics = {name for name in source if name.endswith("running_mean") and not name.startswith(new)}
    if statistics != {name for name in state if name.endswith("running_mean") and not name.startswith(new)}:
        said = "has batch norm and the model has not" if statistics else "has no batch norm and the model has"
        detects = any(name.startswith("roi_heads.") or name.startswith("rpn.") for name in state)
        wanted = ("frozen" if detects else "batch") if statistics else "group"
        raise UserError(f"--init: the bundle ({begun.spec['name']}) {said}; say model_args.norm={wanted}")
    for name, tensor in state.items():
        if name.startswith(new):
            continue
        if name not in source:
            raise UserError(f"--init: the bundle ({begun.spec['name']}) has no {name}; choose the same model=")
        if name in _FIRST and source[name].shape[1] == 3 != tensor.shape[1]:
            mean = source[name].mean(dim=1, keepdim=True) * (3 / tensor.shape[1])
            source[name] = mean.expand(-1, tensor.shape[1], -1, -1)
        if source[name].shape != tensor.shape:
            raise UserError(
                f"--init: {name} is {tuple(source[name].shape)} in the bundle and {tuple(tensor.shape)} in the model; "
                "choose the same model= and model_args"
            )
        state[name] = source[name]
    model.load_state_dict(state)
