"""Train a classifier of whole pictures, multi-class or multi-label: batch → losses → update → validate.

A training is a folder with the same files as that of a detector (`detect.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, field_validator, model_validator
from torch import nn

from tracesight.bundle import Bundle, load
from tracesight.data.batch import Loaded
from tracesight.data.image_batch import ImageBatches
from tracesight.data.image_labels import ImageLabels, check_image_labels, image_labels
from tracesight.data.loader import shuffled_batches
from tracesight.data.mix import Mix
from tracesight.data.sampling import picture_weights
from tracesight.data.statistics import channel_spread
from tracesight.data.whole import TrainView
from tracesight.errors import UserError
from tracesight.lineage.record import run_record
from tracesight.models.pixels import pixel_statistics, remember_pixels
from tracesight.recipes.around import begin_run, finish, open_run, opened, rate_of
from tracesight.training.classification import LOSS, class_losses, figures_of, validate_classes
from tracesight.training.compiled import Compile
from tracesight.training.history import History
from tracesight.training.initial import all_but_last, build_classifier, freeze, widened
from tracesight.training.measure import Validation, measure
from tracesight.training.precision import autocast, autocast_dtype
from tracesight.training.prepare import Data, Splits, read_labelled
from tracesight.training.progress import Display, Say
from tracesight.training.ranks import Ranks, of_first
from tracesight.training.run import Run, due, kept
from tracesight.training.signals import Stop
from tracesight.training.steps import steps, update
from tracesight.training.watch import NORM, LossWatch


class Config(BaseModel, extra="forbid", frozen=True):
    """Every key of a training; lengths in pixels, `lr` belongs to `batch_size` and is never rescaled."""

    model: str = "resnet50"
    model_args: dict[str, Any] = {}  # the builder's own: norm, shortcut, zero_init, drop_path, …
    multi_label: bool | Literal["auto"] = "auto"  # auto: multi-class where each picture has exactly one label
    max_categories: int = Field(5, ge=1)  # most categories of a picture in a scene
    in_channels: int = Field(3, ge=1)  # of a picture; 3: RGB of 8 bits, whatever the file holds
    pixels: dict[str, list[float]] | None = None  # mean and std of each channel; None: ImageNet's, or measured
    freeze: tuple[str, ...] = ()  # parameters whose names begin so are not trained, such as "layer1."
    tune_blocks: int | None = Field(None, ge=0)  # of a transformer: the last ones are trained; 0: the classifier alone
    seed: int = Field(0, ge=0)

    epochs: int = Field(90, ge=1)
    max_steps: int | None = Field(None, ge=1)  # overrides epochs
    batch_size: int = Field(256, ge=1)  # pictures an update, over all ranks
    accumulate: int = Field(1, ge=1)  # parts that a batch is cut into, one after another, to save memory
    sampling: Literal["uniform", "repeat_factor", "class_balanced"] = "uniform"  # which pictures come more often
    repeat_threshold: float = Field(0.001, gt=0, le=1)  # of repeat_factor: classes on a smaller share of the pictures
    optimiser: Literal["sgd", "lars", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd and lars
    beta2: float = Field(0.999, ge=0, lt=1)  # of adamw
    layer_decay: float = Field(1.0, gt=0, le=1)  # of a transformer: each layer learns so much slower than the next
    weight_decay: float = Field(1e-4, ge=0)  # of weights; norms and biases do not decay
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)  # of schedule=step: fractions of the run at which lr falls tenfold
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    clip_norm: float = Field(0.0, ge=0)  # 0: the gradient is not clipped
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the averaged weights; 0: no average
    label_smoothing: float = Field(0.0, ge=0, lt=1)

    image_size: int = Field(224, ge=8)  # side of what the network sees
    test_resize: int | None = Field(None, ge=8)  # short side before the middle is cut out; None: 8/7, small ones as is
    crop: Literal["resized", "short_side", "padded"] = "resized"  # see `data/whole.py`
    area: tuple[float, float] = (0.08, 1.0)  # of crop=resized: share of the picture
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # of crop=resized: width over height
    short_sides: tuple[int, int] = (256, 480)  # of crop=short_side
    padding: int = Field(4, ge=0)  # of crop=padded
    flip: bool = True
    vertical_flip: bool = False
    colour: float = Field(0.0, ge=0, le=1)  # strength of jitter in brightness, contrast, saturation and hue
    lighting: float = Field(0.0, ge=0)  # deviation of shifts along the main directions of ImageNet's colours
    rand_augment: int = Field(0, ge=0)  # operations a picture
    magnitude: int = Field(9, ge=0, le=30)  # of rand_augment
    mixup: float = Field(0.0, ge=0)  # parameter of the beta distribution; 0: none
    cutmix: float = Field(0.0, ge=0)  # the same; of both each comes half the time

    validate_every: int = Field(1000, ge=0)  # steps; 0: at the end only
    known_pictures: int = Field(0, ge=0)  # of train, looked at with val each time: how well is known what was learnt
    patience: int = Field(0, ge=0)  # validations without a better figure that end the run; 0: none do
    checkpoint_every: int = Field(500, ge=0)  # steps; 0: at the end only
    keep_checkpoints: int = Field(2, ge=1)
    samples: int = Field(12, ge=0)  # pictures drawn at the end, with truth and prediction

    tensorboard: bool = False  # event files beside history.csv, by the extra `log`

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    distributed: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: whole copies of the network, or shards
    compile: Compile = "none"  # kernels: operations joined by torch.compile; graphs: replayed as CUDA graphs too
    workers: int = Field(1, ge=0)  # processes that read pictures
    threads: int = Field(0, ge=0)  # of the CPU; 0: as many as torch takes

    @field_validator("model_args")
    @classmethod
    def _no_channels(cls, args: dict[str, Any]) -> dict[str, Any]:
        if "in_channels" in args:
            raise ValueError("the channels of a picture are set by in_channels")
        return args

    @field_validator("area", "ratio", "short_sides")
    @classmethod
    def _ordered(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not 0 < pair[0] <= pair[1]:
            raise ValueError("give (smallest, largest), both above 0")
        return pair

    @model_validator(mode="after")
    def _fitting(self) -> Config:
        if self.area[1] > 1:
            raise ValueError("area is a share of the picture, at most 1")
        if self.crop == "short_side" and self.short_sides[0] < self.image_size:
            raise ValueError("short_sides are smaller than image_size, which is cut out of them")
        if self.test_resize is not None and self.test_resize < self.image_size:
            raise ValueError("test_resize is smaller than image_size, which is cut out of it")
        if self.in_channels != 3 and (self.rand_augment or self.lighting):
            raise ValueError("rand_augment and lighting are for RGB: leave them 0 with in_channels other than 3")
        return self


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

    Arguments and errors are those of `detect.train`; data is any that has labels of whole pictures, or objects, whose
    categories are then those of their picture.
    """
    out = Path(out)
    with opened(config, progress) as opening:
        ranks, device, stop, display = opening
        begun = load(init) if init is not None else None
        config, note = begun_with(config, begun), widened(begun, config.in_channels)
        if (metrics := opening.finished(out, config, resume=resume, allow=beside)) is not None:
            return metrics
        splits = read_labelled(
            data, config.seed, masks=False, channels=config.in_channels, display=display, ranks=ranks, format=format,
            allow=allow, needs="image labels",
        )  # fmt: skip
        labels, said = labels_of(config, splits)
        for line in (*said, *([note] if note else [])):
            display.say(f"note: {line}")
            splits = replace(splits, notes=(*splits.notes, line))
        decided = decided_by(config, splits, labels, ranks)
        run = start(decided, splits, labels, begun, device, ranks, stop)
        with open_run(run, config, out, resume, display, [], columns_of(decided, splits)) as history:
            return learn(run, decided, splits, labels, history, out, display)


def learn(
    run: Run, config: Config, splits: Splits, labels: ImageLabels, history: History | None, out: Path, display: Display
) -> dict[str, Any]:
    """The loop: batch → losses → update → validate, to the end of the run; its metrics."""
    dtype, rate = autocast_dtype(config.precision, run.device), partial(rate_of, config, run.total)
    checkpoints, chosen = out / "checkpoints", {"several": labels.several, "smoothing": config.label_smoothing}

    def losses_of(network: nn.Module, loaded: Loaded) -> dict[str, torch.Tensor]:
        with autocast(run.device, dtype):
            return class_losses(network, run.model, loaded, **chosen)

    def note(step: int, row: dict[str, float]) -> None:
        if history is not None:
            values = {"lr": rate(step), "loss": row[LOSS], NORM: row[NORM]}
            history.add(step=step + 1, seconds=run.seconds, **values)

    def look(history: History | None = history) -> tuple[Bundle, Validation | None]:
        run.settle()
        known = splits.train.evenly(config.known_pictures)
        looked = None if splits.val is None else partial(
            validate_classes, val=splits.val, train=known if len(known) else None, labels=labels, run=run,
            display=display,
        )  # fmt: skip
        return measure(run, bundle_of(run, config, splits, labels), out, history, looked, display)

    watch, reached = LossWatch(run, splits.train, out, losses_of, note), None
    batches = partial(batches_of, config, splits, labels, run.ranks, display.say)
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


def begun_with(config: Config, begun: Bundle | None) -> Config:
    """`config` with what a bundle of the same model was built with, and the pixels that it was trained on."""
    if begun is None:
        return config
    args = config.model_args
    if begun.spec["name"] == config.model:
        args = {**{key: value for key, value in begun.spec["args"].items() if key != "in_channels"}, **args}
    pixels = config.pixels
    if pixels is None and begun.in_channels == config.in_channels:
        pixels = {key: begun.preprocessing[key] for key in ("mean", "std")}
    return config.model_copy(update={"model_args": args, "pixels": pixels})


def labels_of(config: Config, splits: Splits) -> tuple[ImageLabels, list[str]]:
    """How the labels are read, and what is to be said of it. Raises UserError where they do not fit."""
    labels, notes = image_labels(splits.train, None if config.multi_label == "auto" else config.multi_label)
    if splits.val is not None:
        check_image_labels(splits.val, labels)
    return labels, notes


def decided_by(config: Config, splits: Splits, labels: ImageLabels, ranks: Ranks) -> Config:
    """`config` with what the data decides: whether pictures show several categories, and the pixels' mean and std."""
    pixels = config.pixels
    if pixels is None and config.in_channels != 3:
        pixels = of_first(ranks, lambda: channel_spread(splits.train, config.in_channels, config.seed))
    try:
        mean, std = pixel_statistics(config.in_channels, pixels)
    except ValueError as error:
        raise UserError(f"config key {error}") from None
    return config.model_copy(
        update={"multi_label": labels.several, "pixels": {"mean": list(mean), "std": list(std)}}
    )  # fmt: skip


def start(
    config: Config,
    splits: Splits,
    labels: ImageLabels,
    begun: Bundle | None,
    device: torch.device,
    ranks: Ranks,
    stop: Stop,
) -> Run:
    """The run before its first step. Raises UserError for a model that cannot be built or filled, or odd pairs."""
    if (config.mixup or config.cutmix) and (config.batch_size // ranks.count) % 2:
        raise UserError(
            f"mixup and cutmix take pictures in pairs, and batch_size={config.batch_size} over {ranks.count} "
            "processes leaves an odd number to each: choose another batch_size"
        )
    args = config.model_args if config.in_channels == 3 else {**config.model_args, "in_channels": config.in_channels}
    model = build_classifier(
        config.model, args, categories=splits.train.categories, seed=config.seed, begun=begun
    )  # fmt: skip
    frozen = () if config.tune_blocks is None else all_but_last(model, config.tune_blocks)
    freeze(model, (*config.freeze, *frozen))
    assert config.pixels is not None
    remember_pixels(model, *pixel_statistics(config.in_channels, config.pixels))
    weights, tuned = weights_of(config, splits, labels), {"beta2": config.beta2, "layer_decay": config.layer_decay}
    return begin_run(config, model, splits, weights, begun, device, ranks, stop, tuned)


def columns_of(config: Config, splits: Splits) -> list[str]:
    """Columns of the history for figures on val, and on what was learnt."""
    names = figures_of(bool(config.multi_label), len(splits.train.categories))
    return [f"val_image_{name}" for name in names] + [f"train_image_{names[0]}"] * (config.known_pictures > 0)


def weights_of(config: Config, splits: Splits, labels: ImageLabels) -> np.ndarray | None:
    """How often each picture comes in an epoch; None: once each."""
    return picture_weights(splits.train, config.sampling, config.repeat_threshold, labels.of)


def batches_of(
    config: Config, splits: Splits, labels: ImageLabels, ranks: Ranks, say: Say, first: int, count: int
) -> Iterator[Loaded]:
    """This rank's share of the training batches of `count` steps from step `first`."""
    keys = (
        "image_size", "crop", "area", "ratio", "short_sides", "padding", "flip", "vertical_flip", "rand_augment",
        "magnitude", "colour", "lighting",
    )  # fmt: skip
    columns = {number: column for column, number in enumerate(splits.train.category_ids)}
    mix = Mix(config.mixup, config.cutmix) if config.mixup or config.cutmix else None
    view = TrainView(**{key: getattr(config, key) for key in keys})
    return shuffled_batches(
        splits.train,
        ImageBatches(labels, columns, view, config.in_channels, mix),
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first,
        steps=count,
        workers=config.workers,
        weights=weights_of(config, splits, labels),
        rank=ranks.rank,
        ranks=ranks.count,
        say=say,
    )


def bundle_of(run: Run, config: Config, splits: Splits, labels: ImageLabels) -> Bundle:
    """The bundle as it stands, on every rank."""
    return Bundle.of(
        run.result,
        splits.train.categories,
        image_size=config.image_size,
        resize=config.test_resize,
        max_objects=config.max_categories,
        multi_label=labels.several,
        lineage=run_record(recipe="classify", **run.identity, steps=run.step, seconds=run.seconds, notes=splits.notes),
    )
