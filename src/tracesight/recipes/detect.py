"""Train a detector or instance segmenter on labelled pictures: batch → losses → update → validate.

A training is a folder. `best/` and `last/` are bundles (with averaged weights if `ema` is on), `checkpoints/` is what
`--resume` goes on from, and the other files say how it went; `metrics.json` comes last and marks the run as finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, field_validator
from torch import nn

from tracesight.bundle import Bundle, load
from tracesight.data.batch import Loaded
from tracesight.data.loader import training_batches, validation_batches
from tracesight.data.record import Dataset
from tracesight.data.transforms import eval_transform, train_transform
from tracesight.errors import UserError
from tracesight.lineage.record import run_record
from tracesight.report.html import duration
from tracesight.report.run import write_run
from tracesight.training.checkpoint import load_newest
from tracesight.training.ema import ema_of
from tracesight.training.folder import check_run_folder, compare_identity, write_config, write_metrics
from tracesight.training.history import History
from tracesight.training.initial import build_detector, detector_args
from tracesight.training.optim import build_optimiser
from tracesight.training.precision import autocast, autocast_dtype, choose_device, describe, repeatable
from tracesight.training.prepare import Data, Splits, read_labelled
from tracesight.training.progress import Display, Say
from tracesight.training.schedules import learning_rate
from tracesight.training.steps import LossWatch, Run, steps, update
from tracesight.training.validate import Validation, kinds_of, mean_losses, validate

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
FIGURES = ("AP@all", "AP50@all")  # in history.csv and on the progress line


class Config(BaseModel, extra="forbid", frozen=True):
    """Every key of a training; lengths in pixels, `lr` belongs to `batch_size` and is never rescaled."""

    model: str = "mask_rcnn_resnet50_fpn"
    model_args: dict[str, Any] = {}  # the builder's own: norm, fpn_channels, anchor_sizes, …
    max_objects: int = Field(100, ge=1)  # most objects found in a picture
    seed: int = Field(0, ge=0)

    epochs: int = Field(12, ge=1)
    max_steps: int | None = Field(None, ge=1)  # overrides epochs
    batch_size: int = Field(4, ge=1)  # pictures an update
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
    scales: tuple[float, float] = (1.0, 1.0)  # training pictures are resized by a factor drawn from this range
    crop_size: int | None = Field(None, ge=32)  # None: training pictures are not cropped
    flip: bool = True
    vertical_flip: bool = False
    transpose: bool = False
    colour: float = Field(0.0, ge=0, le=1)  # strength of jitter in brightness, contrast, saturation and hue

    validate_every: int = Field(1000, ge=0)  # steps; 0: at the end only
    val_loss_pictures: int = Field(32, ge=0)  # the validation loss is taken on so many
    checkpoint_every: int = Field(500, ge=0)  # steps; 0: at the end only
    keep_checkpoints: int = Field(2, ge=1)
    samples: int = Field(8, ge=0)  # pictures drawn at the end, truth beside prediction

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    workers: int = Field(1, ge=0)  # processes that read pictures
    threads: int = Field(0, ge=0)  # of the CPU; 0: as many as torch takes

    @field_validator("scales")
    @classmethod
    def _ordered(cls, scales: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scales[0] <= scales[1]:
            raise ValueError("the scales are (smallest, largest), both above 0")
        return scales

    @field_validator("model_args")
    @classmethod
    def _no_limit(cls, args: dict[str, Any]) -> dict[str, Any]:
        if "max_objects" in (args.get("roi") or {}):
            raise ValueError("the most objects of a picture are set by max_objects")
        return args


def for_task(config: Config, task: str) -> Config:
    """`config` for `--task detect` (boxes) or `segment` (boxes and masks): the same network without or with masks.

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
    allow: Sequence[str] = (),
    progress: Say | None = None,
) -> dict[str, Any]:
    """Train on `data` into the folder `out` and return the metrics that `out/metrics.json` holds.

    Args:
        data: a folder with train and val, COCO's layout, a label file, or {"train": …, "val": …}.
        init: a bundle whose weights the training begins from; without it they are random.
        resume: go on with the run in `out`; a finished one is left as it is.
        allow: names that may lie in `out` before the run begins.
        progress: receives each line; None writes to standard error.

    Raises:
        UserError: anything wrong with data, config or folder; nothing has been written then.
        PartialFailure: a loss that is not finite; step, pictures and the saved batch are named.
    """
    out, display = Path(out), Display(progress)
    begun = load(init) if init is not None else None
    config = config.model_copy(update={"model_args": detector_args(config.model, config.model_args, begun)})
    finished = check_run_folder(out, config, resume=resume, allow=allow)
    if finished is not None:
        display.say(f"the run in {out} is finished: nothing to do")
        return finished
    device = choose_device(config.device)
    dtype = autocast_dtype(config.precision, device)
    with repeatable(device, config.threads):
        splits = read_labelled(data, config.seed, masks=config.model.startswith("mask_"), display=display)
        run = start(config, splits, begun, device)
        history = open_run(run, config, out, resume, display)
        rate = partial(rate_of, config, run.total)

        def losses_of(model: nn.Module, loaded: Loaded) -> dict[str, torch.Tensor]:
            with autocast(device, dtype):
                return model(loaded.batch, loaded.targets)

        def note(step: int, losses: dict[str, float]) -> None:
            total = sum(losses.values())
            history.add(step=step + 1, seconds=run.seconds, lr=rate(step), loss=total, **losses)

        watch, reached = LossWatch(splits.train, out, note), None
        for step, loaded in steps(run, partial(batches_of, config, splits.train), rate, display):
            losses = losses_of(run.model, loaded)
            watch(step, loaded, losses)
            update(run, losses, clip_norm=config.clip_norm, ema_decay=config.ema)
            if due(run, config.validate_every):
                watch.flush()
                reached = measure(run, config, splits, out, history, partial(losses_of, run.result), display)
            if due(run, config.checkpoint_every):
                watch.flush()
                run.save(out / "checkpoints", config.keep_checkpoints)
        # A run that was killed after its last checkpoint is measured once more.
        reached = reached or measure(run, config, splits, out, None, partial(losses_of, run.result), display)
        return finish(run, config, splits, reached, out, display)


def start(config: Config, splits: Splits, begun: Bundle | None, device: torch.device) -> Run:
    """The run before its first step. Raises UserError for a model that cannot be built or filled."""
    model = build_detector(
        config.model,
        config.model_args,
        categories=splits.train.categories,
        max_objects=config.max_objects,
        seed=config.seed,
        begun=begun,
    )
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = build_optimiser(
        config.optimiser, model, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    total = config.max_steps or math.ceil(config.epochs * len(splits.train) / config.batch_size)
    identity = {
        "config": config.model_dump(mode="json"),
        "data": splits.record(),
        "init": None if begun is None else begun.digest,
    }
    return Run(model, optimiser, total, identity, ema_of(model) if config.ema else None)


def open_run(run: Run, config: Config, out: Path, resume: bool, display: Display) -> History:
    """Take up the newest sound checkpoint, if that is wanted, and open the folder for writing."""
    if resume:
        found = load_newest(out / "checkpoints")
        for line in found.notes:
            display.say(line)
        if found.state is None:
            display.say(f"no checkpoint in {out}: starting afresh")
        else:
            compare_identity(found.state["identity"], run.identity, out)
            run.restore(found.state)
            display.say(f"resuming at step {run.step} of {run.total}")
    write_config(out, config)
    kinds = kinds_of(run.model)
    figures = [f"val_{kind}_{name}" for kind in kinds for name in FIGURES]
    losses = LOSSES[: len(LOSSES) if "segm" in kinds else -1]
    return History(out / "history.csv", ["step", "seconds", "lr", "loss", *losses, "val_loss", *figures], run.step)


def rate_of(config: Config, total: int, step: int) -> float:
    """The learning rate of one step."""
    return learning_rate(
        step,
        total,
        lr=config.lr,
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
        milestones=config.milestones,
        final_lr_fraction=config.final_lr_fraction,
    )


def batches_of(config: Config, train: Dataset, first: int, count: int) -> Iterator[Loaded]:
    """The training batches of `count` steps from step `first`."""
    transform = partial(
        train_transform,
        image_size=config.image_size,
        max_size=config.max_size,
        scales=config.scales,
        crop_size=config.crop_size,
        flip=config.flip,
        vertical_flip=config.vertical_flip,
        transpose=config.transpose,
        colour=config.colour,
    )
    return training_batches(
        train,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first,
        steps=count,
        transform=transform,
        workers=config.workers,
        with_masks=config.model.startswith("mask_"),
    )


def due(run: Run, every: int) -> bool:
    """Whether something that happens every so many updates, and at the end, is due."""
    return run.step == run.total or (every > 0 and run.step % every == 0)


def measure(
    run: Run,
    config: Config,
    splits: Splits,
    out: Path,
    history: History | None,
    losses_of: Callable[[Loaded], dict[str, torch.Tensor]],
    display: Display,
) -> tuple[Bundle, Validation | None]:
    """The bundle as it stands and what it reaches on val; the best one so far is kept in `out/best`."""
    bundle = Bundle.of(
        run.result,
        splits.train.categories,
        image_size=config.image_size,
        max_size=config.max_size,
        max_objects=config.max_objects,
        lineage=run_record(recipe="detect", **run.identity, steps=run.step, seconds=run.seconds, notes=splits.notes),
    )
    if splits.val is None:
        bundle.save(out / "best")
        return bundle, None
    val_loss = validation_loss(config, splits.val, losses_of, run.device)
    reached = validate(bundle, splits.val, display)
    threshold = {"operating": reached.operating["threshold"]}
    bundle = replace(bundle, thresholds=threshold, metrics=reached.metrics)
    figures = {f"val_{kind}_{name}": reached.metrics[kind][name] for kind in kinds_of(run.model) for name in FIGURES}
    if history is not None:
        history.add(step=run.step, seconds=run.seconds, val_loss=val_loss, **figures)
    shown = "  ".join(f"{name.removeprefix('val_')} {value or 0:.3f}" for name, value in figures.items())
    display.say(f"step {run.step}/{run.total}: " + (f"val loss {val_loss:.3f}  " if val_loss else "") + shown)
    # Where val has no object there is no figure, and the newest is as good as any.
    figure = figures[f"val_{kinds_of(run.model)[-1]}_AP@all"] or 0.0
    if run.best is None or figure > run.best or not (out / "best").exists():
        run.best = figure
        bundle.save(out / "best")
    return bundle, reached


def validation_loss(
    config: Config, val: Dataset, losses_of: Callable[[Loaded], dict[str, torch.Tensor]], device: torch.device
) -> float | None:
    """The mean training loss on the first `val_loss_pictures` of val, not augmented; None if that is 0."""
    if not config.val_loss_pictures:
        return None
    batches = validation_batches(
        val.subset(range(min(len(val), config.val_loss_pictures))),
        batch_size=config.batch_size,
        transform=partial(eval_transform, image_size=config.image_size, max_size=config.max_size),
        with_masks=config.model.startswith("mask_"),
    )
    return sum(mean_losses(losses_of, batches, device).values())


def finish(
    run: Run,
    config: Config,
    splits: Splits,
    reached: tuple[Bundle, Validation | None],
    out: Path,
    display: Display,
) -> dict[str, Any]:
    """Write `last/`, the report and, at the very end, metrics.json."""
    bundle, validation = reached
    bundle.save(out / "last")
    metrics = {} if validation is None else {**validation.metrics, "operating": validation.operating}
    metrics = {**metrics, "steps": run.step, "seconds": round(run.seconds, 1), "notes": list(splits.notes)}
    write_run(
        out,
        name=out.resolve().name,
        bundle=bundle,
        splits=splits.named,
        validation=validation,
        start="random weights" if run.identity["init"] is None else f"bundle {run.identity['init'][:12]}",
        steps=run.step,
        seconds=run.seconds,
        hardware=describe(run.device, config.precision),
        config=run.identity["config"],
        notes=splits.notes,
    )
    write_metrics(out, metrics)
    display.say(f"finished after {run.step} steps in {duration(run.seconds)}: {out / 'report.html'}")
    return metrics
