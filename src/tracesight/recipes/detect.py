"""Train a detector or instance segmenter on labelled pictures: batch → losses → update → validate.

A training is a folder. `best/` and `last/` are bundles (with averaged weights if `ema` is on), `checkpoints/` is what
`--resume` goes on from, and the other files say how it went; `metrics.json` comes last and marks the run as finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, field_validator
from torch import nn

from tracesight.bundle import Bundle, load
from tracesight.data.batch import Loaded
from tracesight.data.dataset import Dataset
from tracesight.data.loader import training_batches
from tracesight.data.one_class import one_class
from tracesight.data.sampling import picture_weights
from tracesight.data.tiles import Tiling, one_tile, tile_weights
from tracesight.data.transforms import LARGE_SCALES, large_scale_jitter, train_transform
from tracesight.errors import UserError
from tracesight.lineage.record import run_record
from tracesight.models.keypoint_head import keypoints_of
from tracesight.models.proposals import GivenProposals, proposes_only
from tracesight.recipes.around import begin_run, finish, open_run, opened, rate_of
from tracesight.training.compiled import Compile
from tracesight.training.history import History
from tracesight.training.initial import (
    build_detector,
    channel_args,
    detector_args,
    freeze,
    keypoint_args,
    learns_keypoints,
    widened,
)
from tracesight.training.measure import Validation, measure
from tracesight.training.precision import autocast, autocast_dtype
from tracesight.training.prepare import Data, Splits, read_labelled, with_proposals
from tracesight.training.progress import Display, Say
from tracesight.training.ranks import Ranks, of_first
from tracesight.training.run import Run, due, kept
from tracesight.training.signals import Stop
from tracesight.training.steps import steps, update
from tracesight.training.validate import FIGURES, kinds_of, proposal_figures, validate
from tracesight.training.watch import NORM, LossWatch

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
HEADS = {"segm": "loss_mask", "keypoints": "loss_keypoint"}  # the loss of each further kind


class Config(BaseModel, extra="forbid", frozen=True):
    """Every key of a training; lengths in pixels, `lr` belongs to `batch_size` and is never rescaled."""

    model: str = "mask_rcnn_resnet50_fpn"
    model_args: dict[str, Any] = {}  # the builder's own: norm, fpn_channels, anchor_sizes, …
    max_objects: int = Field(100, ge=1)  # most objects found in a picture
    in_channels: int = Field(3, ge=1)  # of a picture; 3: RGB of 8 bits, whatever the file holds
    proposals: str | None = None  # file of proposals, for models that find none of their own
    training: Literal["joint", "alternating"] = "joint"  # alternating: a Faster R-CNN in four steps (`alternate.py`)
    freeze: tuple[str, ...] = ()  # parameters whose names begin so are not trained, such as "backbone."
    seed: int = Field(0, ge=0)

    epochs: int = Field(12, ge=1)
    max_steps: int | None = Field(None, ge=1)  # overrides epochs
    batch_size: int = Field(4, ge=1)  # pictures an update, over all ranks
    accumulate: int = Field(1, ge=1)  # parts that a batch is cut into, one after another, to save memory
    sampling: Literal["uniform", "repeat_factor", "class_balanced"] = "uniform"  # which pictures come more often
    repeat_threshold: float = Field(0.001, gt=0, le=1)  # of repeat_factor: classes on a smaller share of the pictures
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.005, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd
    weight_decay: float = Field(1e-4, ge=0)  # of weights; norms and biases do not decay
    warmup_steps: int = Field(500, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.67, 0.89)  # of schedule=step: fractions of the run at which lr falls tenfold
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    clip_norm: float = Field(0.0, ge=0)  # 0: the gradient is not clipped
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the averaged weights; 0: no average

    image_size: int = Field(800, ge=32)  # short side
    max_size: int | None = Field(None, ge=32)  # long side; None: 5/3 of image_size
    jitter: Literal["short_side", "large_scale"] = "short_side"  # large_scale: into a square of image_size
    scales: tuple[float, float] | None = None  # factors of the jitter; None: (1, 1), of large_scale (0.1, 2)
    crop_size: int | None = Field(None, ge=32)  # of short_side; None: training pictures are not cropped
    tile: int | None = Field(None, ge=32)  # side of the tiles that pictures are cut into, in their own pixels
    tile_overlap: float = Field(0.2, ge=0, lt=1)  # share of a tile that its neighbour shows too
    flip: bool = True
    vertical_flip: bool = False
    transpose: bool = False
    colour: float = Field(0.0, ge=0, le=1)  # strength of jitter in brightness, contrast, saturation and hue

    validate_every: int = Field(1000, ge=0)  # steps; 0: at the end only
    val_loss_pictures: int = Field(32, ge=0)  # the validation loss is taken on so many
    patience: int = Field(0, ge=0)  # validations without a better figure that end the run; 0: none do
    checkpoint_every: int = Field(500, ge=0)  # steps; 0: at the end only
    keep_checkpoints: int = Field(2, ge=1)
    samples: int = Field(8, ge=0)  # pictures drawn at the end, truth beside prediction

    tensorboard: bool = False  # event files beside history.csv, by the extra `log`

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    distributed: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: whole copies of the network, or shards
    compile: Compile = "none"  # kernels: operations joined by torch.compile; graphs: replayed as CUDA graphs too
    workers: int = Field(1, ge=0)  # processes that read pictures
    threads: int = Field(0, ge=0)  # of the CPU; 0: as many as torch takes

    @field_validator("scales")
    @classmethod
    def _ordered(cls, scales: tuple[float, float] | None) -> tuple[float, float] | None:
        if scales is not None and not 0 < scales[0] <= scales[1]:
            raise ValueError("the scales are (smallest, largest), both above 0")
        return scales

    @field_validator("model_args")
    @classmethod
    def _no_limit(cls, args: dict[str, Any]) -> dict[str, Any]:
        if "max_objects" in (args.get("roi") or {}):
            raise ValueError("the most objects of a picture are set by max_objects")
        if "in_channels" in args:
            raise ValueError("the channels of a picture are set by in_channels")
        return args


def for_task(config: Config, task: str) -> Config:
    """`config` for `--task detect` (boxes) or `segment` (boxes and masks): the same network without or with masks.

    Keypoints are learned in either where the network has a head for them.

    Raises UserError for "segment" with a network that has no masks.
    """
    if task == "segment" and not config.model.startswith("mask_rcnn_"):
        raise UserError(f"model={config.model} draws no masks; use a mask_rcnn model or --task detect")
    if task == "segment":
        return config
    name = config.model.replace("mask_rcnn_", "faster_rcnn_", 1)
    args = {key: value for key, value in config.model_args.items() if not key.startswith("mask_")}
    return config.model_copy(update={"model": name, "model_args": args})


def train(
    config: Config,
    data: Data,
    out: str | Path,
    *,
    init: str | Path | None = None,
    resume: bool = False,
    format: str | None = None,
    allow: Sequence[str] = (),
    beside: Sequence[str] = (),
    progress: Say | None = None,
) -> dict[str, Any]:
    """Train on `data` into the folder `out` and return the metrics that `out/metrics.json` holds.

    Args:
        data: a folder with train and val, COCO's layout, a label file, or {"train": …, "val": …}.
        init: a bundle whose weights the training begins from; without it they are random.
        resume: go on with the run in `out`; a finished one is left as it is.
        format: how the data is labelled; None: recognised.
        allow: codes of errors in the data that are put right or left out, not refused.
        beside: names that may lie in `out` before the run begins.
        progress: receives each line; None writes to standard error.

    Raises:
        UserError: anything wrong with data, config or folder; nothing has been written then.
        PartialFailure: a loss that is not finite; step, pictures and the saved batch are named.
    """
    out = Path(out)
    with opened(config, progress) as opening:
        ranks, device, stop, display = opening
        begun = load(init) if init is not None else None
        args = detector_args(config.model, config.model_args, begun, config.in_channels)
        config, note = config.model_copy(update={"model_args": args}), widened(begun, config.in_channels)
        if (metrics := opening.finished(out, config, resume=resume, allow=beside)) is not None:
            return metrics
        masks, channels = config.model.startswith("mask_"), config.in_channels
        splits = read_labelled(
            data, config.seed, masks=masks, channels=channels, display=display, ranks=ranks, format=format, allow=allow,
            keypoints=learns_keypoints(config.model, config.model_args),
        )  # fmt: skip
        if note:
            display.say(f"note: {note}")
            splits = replace(splits, notes=(*splits.notes, note))
        if config.model.startswith("rpn_"):
            val = None if splits.val is None else one_class(splits.val)
            splits = replace(splits, train=one_class(splits.train), val=val)
        splits = with_proposals(splits, config.model, config.proposals, display)
        run = start(config, splits, begun, device, ranks, stop)
        with open_run(run, config, out, resume, display, *columns_of(run.model)) as history:
            return learn(run, config, splits, history, out, display)


def learn(
    run: Run, config: Config, splits: Splits, history: History | None, out: Path, display: Display
) -> dict[str, Any]:
    """The loop: batch → losses → update → validate, to the end of the run; its metrics."""
    dtype, rate = autocast_dtype(config.precision, run.device), partial(rate_of, config, run.total)
    checkpoints = out / "checkpoints"

    def losses_of(network: nn.Module, loaded: Loaded) -> dict[str, torch.Tensor]:
        with autocast(run.device, dtype):
            return network(loaded.batch, loaded.targets)

    def note(step: int, row: dict[str, float]) -> None:
        if history is not None:
            loss = sum(value for name, value in row.items() if name != NORM)
            history.add(step=step + 1, seconds=run.seconds, lr=rate(step), loss=loss, **row)

    def look(history: History | None = history) -> tuple[Bundle, Validation | None]:
        run.settle()
        bundle = bundle_of(run, config, splits)
        looked = None if splits.val is None else partial(
            validate, keys=config, splits=splits, val=splits.val, losses_of=partial(losses_of, bundle.model), run=run,
            display=display,
        )  # fmt: skip
        return measure(run, bundle, out, history, looked, display)

    watch, reached = LossWatch(run, splits.train, out, losses_of, note), None
    weights = weights_of(config, splits.train)
    batches = partial(batches_of, config, splits, weights, run.ranks, keypoints_of(run.model), display.say)
    with kept(run, checkpoints, config.keep_checkpoints, display.say):
        if run.measured < run.step and due(run, config.validate_every):  # it was stopped before it could look
            reached = look()
        for _, part in steps(run, batches, rate, display):
            losses = losses_of(run.network, part)
            if not update(run, losses, watch, clip_norm=config.clip_norm, ema_decay=config.ema):
                continue  # with the next part of the batch
            if due(run, config.validate_every):
                reached = look()
            if due(run, config.checkpoint_every):
                run.save(checkpoints, config.keep_checkpoints)
        # A run that was killed after its last checkpoint is measured once more.
        reached = reached or look(history=None)
        return of_first(run.ranks, lambda: finish(run, splits, reached, out, display))


def start(config: Config, splits: Splits, begun: Bundle | None, device: torch.device, ranks: Ranks, stop: Stop) -> Run:
    """The run before its first step. Raises UserError for a model that cannot be built or filled."""
    args = of_first(ranks, lambda: channel_args(config.model_args, config.in_channels, splits.train, config.seed))
    model = build_detector(
        config.model,
        keypoint_args(config.model, args, splits.train.keypoints),
        categories=splits.train.categories,
        max_objects=config.max_objects,
        seed=config.seed,
        begun=begun,
        points=splits.train.keypoints,
    )
    freeze(model, config.freeze)
    identity: dict[str, Any] = {} if splits.proposals is None else {"proposals": splits.proposals.digest}
    return begin_run(
        config, model, splits, weights_of(config, splits.train), begun, device, ranks, stop, **identity
    )  # fmt: skip


def weights_of(config: Config, train: Dataset) -> np.ndarray | None:
    """How often each picture, or each of its tiles, comes in an epoch; None: once each."""
    tiling = None if config.tile is None else Tiling(config.tile, config.tile_overlap)
    return tile_weights(train, tiling, picture_weights(train, config.sampling, config.repeat_threshold))


def columns_of(model: nn.Module) -> tuple[list[str], list[str]]:
    """Columns of the history: losses, and figures on val."""
    kinds = kinds_of(model)
    losses = LOSSES
    if isinstance(getattr(model, "rpn", None), GivenProposals):
        losses = losses[2:]
    if proposes_only(model):
        losses = losses[:2]
    figures = [f"val_{kind}_{name}" for kind in kinds for name in FIGURES]
    further = [loss for kind, loss in HEADS.items() if kind in kinds]
    return [*losses, *further], [*figures, *(f"val_{name}" for name in proposal_figures(model))]


def batches_of(
    config: Config,
    splits: Splits,
    weights: np.ndarray | None,
    ranks: Ranks,
    keypoints: int,
    say: Say,
    first: int,
    count: int,
) -> Iterator[Loaded]:
    """This rank's share of the training batches of `count` steps from step `first`.

    weights: how often each picture comes in an epoch; None: once each. keypoints: points of an object to learn.
    """
    same = {
        "image_size": config.image_size,
        "flip": config.flip,
        "vertical_flip": config.vertical_flip,
        "transpose": config.transpose,
        "colour": config.colour,
    }
    if config.jitter == "large_scale":
        transform = partial(large_scale_jitter, scales=config.scales or LARGE_SCALES, **same)
    else:
        transform = partial(
            train_transform, max_size=config.max_size, scales=config.scales or (1.0, 1.0), crop_size=config.crop_size,
            **same,
        )  # fmt: skip
    if config.tile is not None:
        transform = partial(one_tile, tiling=Tiling(config.tile, config.tile_overlap), then=transform)
    return training_batches(
        splits.train,
        proposals=None if splits.proposals is None else splits.proposals.of(splits.train),
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first,
        steps=count,
        transform=transform,
        workers=config.workers,
        with_masks=config.model.startswith("mask_"),
        channels=config.in_channels,
        weights=weights,
        rank=ranks.rank,
        ranks=ranks.count,
        keypoints=keypoints,
        say=say,
    )


def bundle_of(run: Run, config: Config, splits: Splits) -> Bundle:
    """The bundle as it stands, on every rank."""
    bundle = Bundle.of(
        run.result,
        splits.train.categories,
        image_size=config.image_size,
        max_size=config.max_size,
        max_objects=config.max_objects,
        keypoints=splits.train.keypoints,
        lineage=run_record(recipe="detect", **run.identity, steps=run.step, seconds=run.seconds, notes=splits.notes),
    )
    if config.tile is None:
        return bundle
    tile = {"size": config.tile, "overlap": config.tile_overlap}
    return replace(bundle, preprocessing={**bundle.preprocessing, "tile": tile})
