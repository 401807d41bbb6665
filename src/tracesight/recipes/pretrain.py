"""Pretrain an encoder on pictures without labels: batch → losses → update → look.

A training is a folder with the same files as that of a detector (`detect.py`); its bundles hold the encoder alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, field_validator, model_validator
from torch import nn

from tracesight.bundle import Bundle
from tracesight.data.batch import Loaded
from tracesight.data.loader import shuffled_batches
from tracesight.data.statistics import channel_spread
from tracesight.data.unlabelled import Unreadable
from tracesight.data.view_batch import ViewBatches
from tracesight.data.views import View, sides_of
from tracesight.errors import UserError
from tracesight.lineage.record import run_record
from tracesight.models.mae import MAE
from tracesight.models.methods import METHODS, build_method, numbers_of
from tracesight.recipes.around import begin_run, finish, open_run, opened, rate_of
from tracesight.report.gallery import Shot
from tracesight.report.reconstructions import reconstruction_shots, write_sheet
from tracesight.training import collapse
from tracesight.training.compiled import Compile
from tracesight.training.history import History
from tracesight.training.measure import Validation, measure
from tracesight.training.nearest import Known, known_pictures, look_around
from tracesight.training.precision import autocast, autocast_dtype
from tracesight.training.prepare import Data, Splits
from tracesight.training.pretraining import check_fit, encoder_of, filling, made_of, spread_of, whole_of
from tracesight.training.progress import Display, Say
from tracesight.training.ranks import Ranks, of_first
from tracesight.training.run import Run, due, kept
from tracesight.training.schedules import key_momentum
from tracesight.training.signals import Stop
from tracesight.training.steps import steps, update
from tracesight.training.unlabelled import read_pictures
from tracesight.training.watch import NORM, LossWatch

DEVIATION, RANK = "features_deviation", "features_rank"
FOLLOWED = ("key_momentum", DEVIATION, RANK)  # columns of methods that compare views
# Keys that are the method's own.
_NUMBERS = (
    "dim", "hidden", "queue", "temperature", "symmetric", "bn_group", "frozen_patch_projection", "hide", "decoder",
    "normalised",
)  # fmt: skip
_CHANCES = ("jitter_chance", "grey_chance", "blur_chance", "solarise_chance")  # of what is for RGB


class Config(BaseModel, extra="forbid", frozen=True):
    """Every key of a pretraining; lengths in pixels, `lr` belongs to `batch_size` and is never rescaled.

    The defaults are MoCo v2's on ImageNet; the presets `moco-v1`, `moco-v2`, `moco-v3`, `moco-v3-vit` and `mae`
    hold the papers' numbers, and `tracesight pretrain --method` begins from the one of that name.
    """

    method: str = "moco-v2"  # one of `models.methods.METHODS`
    model: str = "resnet50"
    model_args: dict[str, Any] = {}  # the builder's own: norm, shortcut, zero_init, …
    in_channels: int = Field(3, ge=1)  # of a picture; 3: RGB of 8 bits, whatever the file holds
    pixels: dict[str, list[float]] | None = None  # mean and std of each channel; None: ImageNet's, or measured
    seed: int = Field(0, ge=0)
    # None: as the method has it, or has not.
    dim: int | None = Field(None, ge=2)  # width of queries and keys
    hidden: int | None = Field(None, ge=2)  # of moco-v3: width inside the heads
    queue: int | None = Field(None, ge=1)  # of moco-v1, v2: keys that wait
    temperature: float | None = Field(None, gt=0)
    symmetric: bool | None = None  # of moco-v1, v2: each view is query once
    bn_group: int | None = Field(None, ge=2)  # of moco-v1, v2: pictures that share batch norm's statistics
    frozen_patch_projection: bool | None = None  # of moco-v3 on a ViT; None: frozen
    hide: float | None = Field(None, gt=0, lt=1)  # of mae: share of the patches
    decoder: tuple[int, int, int] | None = None  # of mae: width, blocks, heads
    normalised: bool | None = None  # of mae: patches are normalised one by one before they are compared
    key_momentum: float = Field(0.999, ge=0, le=1)  # how slowly the key encoder follows
    key_momentum_rises: bool = False  # to 1 at the end, by half a cosine

    epochs: int = Field(200, ge=1)
    max_steps: int | None = Field(None, ge=1)  # overrides epochs
    batch_size: int = Field(256, ge=2)  # pictures an update, over all ranks
    accumulate: int = Field(1, ge=1)  # parts that a batch is cut into, to save memory; not with moco-v3
    optimiser: Literal["sgd", "lars", "adamw"] = "sgd"
    lr: float = Field(0.03, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd and lars
    beta2: float = Field(0.999, ge=0, lt=1)  # of adamw
    weight_decay: float = Field(1e-4, ge=0)  # of weights; norms and biases do not decay
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.6, 0.8)  # of schedule=step: fractions of the run at which lr falls tenfold
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    clip_norm: float = Field(0.0, ge=0)  # 0: the gradient is not clipped

    image_size: int | tuple[int, int] = 224  # side of a view, or height and width
    test_resize: int | None = Field(None, ge=8)  # short side before the middle is cut out; None: 8/7, small ones as is
    area: tuple[float, float] = (0.2, 1.0)  # share of the picture that a view shows
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # its width over its height, beside that of the view
    flip: bool = True
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)  # of brightness, contrast, saturation, hue
    jitter_chance: float = Field(0.8, ge=0, le=1)
    grey_chance: float = Field(0.2, ge=0, le=1)
    blur: tuple[float, float] = (0.1, 2.0)  # deviation in pixels of the view
    blur_chance: tuple[float, float] = (0.5, 0.5)  # of the first and the second view
    solarise_chance: tuple[float, float] = (0.0, 0.0)
    broken: int = Field(100, ge=0)  # pictures that may be unreadable, of each process; more are an error

    validate_every: int = Field(1000, ge=0)  # steps; 0: at the end only
    knn_pictures: int = Field(10000, ge=0)  # labelled ones that neighbours are looked for among; 0: no kNN
    neighbours: int = Field(200, ge=1)
    knn_temperature: float = Field(0.07, gt=0)
    features_every: int = Field(20, ge=1)  # steps between two looks at how the features are spread
    patience: int = Field(0, ge=0)  # validations without a better kNN that end the run; 0: none do
    checkpoint_every: int = Field(500, ge=0)  # steps; 0: at the end only
    keep_checkpoints: int = Field(2, ge=1)
    samples: int = Field(12, ge=0)  # pictures drawn: neighbours at the end, of mae what is filled in at each look
    tensorboard: bool = False  # event files beside history.csv, by the extra `log`

    distributed: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: whole copies of the network, or shards
    compile: Compile = "none"  # kernels: operations joined by torch.compile; graphs: replayed as CUDA graphs too
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    workers: int = Field(1, ge=0)  # processes that read pictures
    threads: int = Field(0, ge=0)  # of the CPU; 0: as many as torch takes

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(f"there are {', '.join(METHODS)}")
        return name

    @field_validator("image_size")
    @classmethod
    def _large(cls, size: int | tuple[int, int]) -> int | tuple[int, int]:
        if min(sides_of(size)) < 8:
            raise ValueError("a view has at least 8 pixels a side")
        return size

    @model_validator(mode="after")
    def _fitting(self) -> Config:
        if self.in_channels != 3 and any(_of_views(getattr(self, key)) for key in _CHANCES):
            raise ValueError(f"{', '.join(_CHANCES)} are for RGB: set them to 0 with in_channels other than 3")
        return self

    @field_validator("area", "ratio", "blur")
    @classmethod
    def _ordered(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not 0 < pair[0] <= pair[1]:
            raise ValueError("give (smallest, largest), both above 0")
        return pair

    # What other recipes can choose and this one cannot: the key encoder is an average already.
    @property
    def ema(self) -> float:
        return 0.0


def train(
    config: Config,
    data: Data,
    out: str | Path,
    *,
    resume: bool = False,
    format: str | None = None,
    progress: Say | None = None,
) -> dict[str, Any]:
    """Pretrain on `data` into the folder `out` and return the metrics that `out/metrics.json` holds.

    data: a folder of pictures, or any that `detect.train` takes; labels of whole pictures are used for kNN alone.
    Raises UserError as `detect.train` does, and for data that does not fit the keys.
    """
    out = Path(out)
    with opened(config, progress) as opening:
        ranks, device, stop, display = opening
        if (metrics := opening.finished(out, config, resume=resume)) is not None:
            return metrics
        unreadable = Unreadable(config.broken)
        splits = read_pictures(data, format, min(sides_of(config.image_size)), unreadable, display)
        run = start(decided_by(config, splits, ranks), splits, device, ranks, stop)
        if (line := filling(run.model, config.batch_size, run.total)) is not None:
            display.say(f"note: {line}")
        known = known_pictures(splits, config.knn_pictures, config.neighbours, config.knn_temperature)
        figures = [] if known is None else ["val_image_knn"]
        columns = FOLLOWED if hasattr(run.model, "advance") else ()
        with open_run(run, config, out, resume, display, columns, figures) as history:
            return learn(run, config, splits, known, unreadable, history, out, display)


def learn(
    run: Run,
    config: Config,
    splits: Splits,
    known: Known | None,
    unreadable: Unreadable,
    history: History | None,
    out: Path,
    display: Display,
) -> dict[str, Any]:
    """The loop: batch → losses → update → look, to the end of the run; its metrics."""
    dtype, rate = autocast_dtype(config.precision, run.device), partial(rate_of, config, run.total)
    checkpoints, made, spread, warned = out / "checkpoints", [], {}, []
    follows, filled = hasattr(run.model, "advance"), []

    def losses_of(network: nn.Module, loaded: Loaded) -> dict[str, torch.Tensor]:
        with autocast(run.device, dtype):
            of_part = made_of(network, run.model, loaded)
        made[run.part :] = [(of_part, loaded.batch.keys)]
        return of_part.losses

    def note(step: int, row: dict[str, float]) -> None:
        looked = [float(value) for value in spread.pop(step, ())]
        if looked and not warned and (line := collapse.complaint(step + 1, run.total, *looked)):
            warned.append(line)
            display.say(f"warning: {line}")
        if history is not None:
            loss = sum(value for name, value in row.items() if name != NORM)
            values = {"lr": rate(step), "loss": loss, NORM: row[NORM]}
            values |= {"key_momentum": slow(config, run, step)} if follows else {}
            history.add(step=step + 1, seconds=run.seconds, **values, **dict(zip((DEVIATION, RANK), looked)))

    def then() -> None:
        keys, draws = (torch.cat(parts) for parts in zip(*((m.keys, d) for m, d in made)))
        run.model.advance(keys, draws, slow(config, run, run.step))  # type: ignore[operator]

    def look(history: History | None = history) -> tuple[Bundle, Validation | None]:
        run.settle()
        network = run.result  # all ranks ask
        filled[:] = of_first(run.ranks, lambda: fill_in(network, run.step, config, splits, out))
        looked = None if known is None else partial(look_around, known=known, run=run, display=display)
        bundle = bundled(encoder_of(network), run, config, noted(splits, unreadable, warned))
        return measure(run, bundle, out, history, looked, display)

    watch, reached = LossWatch(run, splits.train, out, losses_of, note), None
    batches = partial(batches_of, config, splits, run, unreadable, display.say)
    with kept(run, checkpoints, config.keep_checkpoints, display.say):
        if run.measured < run.step and due(run, config.validate_every):  # it was stopped before it could look
            reached = look()
        for step, part in steps(run, batches, rate, display):
            losses = losses_of(run.network, part)
            if follows and step % config.features_every == 0 and run.part + 1 == run.parts:
                spread[step] = spread_of([m for m, _ in made])
            if not update(run, losses, watch, clip_norm=config.clip_norm, then=then if follows else lambda: None):
                continue  # with the next part of the batch
            if due(run, config.validate_every):
                reached = look()
            if due(run, config.checkpoint_every):
                run.save(checkpoints, config.keep_checkpoints)
        # A run that was killed after its last checkpoint is measured once more.
        reached = reached or look(history=None)
        splits = noted(splits, unreadable, warned)
        network = run.result
        return of_first(run.ranks, lambda: end(network, run, config, splits, reached, filled, out, display))


def end(
    network: nn.Module,
    run: Run,
    config: Config,
    splits: Splits,
    reached: tuple[Bundle, Validation | None],
    filled: Sequence[Shot],
    out: Path,
    display: Display,
) -> dict[str, Any]:
    """What is left when all is learnt: of a MAE, `network`, it and its decoder too."""
    if isinstance(network, MAE):
        bundled(whole_of(network), run, config, splits).save(out / "whole")
    return finish(run, splits, reached, out, display, filled)


def slow(config: Config, run: Run, step: int) -> float:
    """How slowly the key encoder follows after update `step` (from 0)."""
    return key_momentum(step, run.total, start=config.key_momentum, rises=config.key_momentum_rises)


def start(config: Config, splits: Splits, device: torch.device, ranks: Ranks, stop: Stop) -> Run:
    """The run before its first step. Raises UserError for keys that do not fit the method, the data or each other."""
    numbers = {key: getattr(config, key) for key in _NUMBERS if getattr(config, key) is not None}
    for key in numbers.keys() - numbers_of(config.method):
        raise UserError(f"config key {key!r}: {config.method} has none; leave it out")
    args = dict(config.model_args) | ({"in_channels": config.in_channels} if config.in_channels != 3 else {})
    if config.model.startswith("vit_"):  # its table of positions is that of the views
        order = {"positions": "sincos-yx"} if config.method == "moco-v3" else {}
        args = {"image_size": config.image_size, **order, **args}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = build_method(config.method, config.model, args, numbers, config.pixels)
    check_fit(config, method, sides_of(config.image_size), len(splits.train), ranks.count)
    return begin_run(config, method, splits, None, None, device, ranks, stop, {"beta2": config.beta2})


def decided_by(config: Config, splits: Splits, ranks: Ranks) -> Config:
    """`config` with what the data decides: mean and deviation of channels that are not RGB."""
    if config.pixels is not None or config.in_channels == 3:
        return config
    pixels = of_first(ranks, lambda: channel_spread(splits.train, config.in_channels, config.seed))
    return config.model_copy(update={"pixels": pixels})


def batches_of(
    config: Config, splits: Splits, run: Run, unreadable: Unreadable, say: Say, first: int, count: int
) -> Iterator[Loaded]:
    """This rank's share of the training batches of `count` steps from step `first`."""
    method: Any = run.model
    same = ("image_size", "area", "ratio", "flip", "jitter", "jitter_chance", "grey_chance", "blur")
    shared = {key: getattr(config, key) for key in same}
    views = [
        View(**shared, blur_chance=blur, solarise_chance=solarise)
        for blur, solarise in zip(config.blur_chance, config.solarise_chance)
    ]
    batches = shuffled_batches(
        splits.train,
        ViewBatches(splits.train, tuple(views[: method.views]), run.device.type != "cpu", config.in_channels),
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first,
        steps=count,
        workers=config.workers,
        rank=run.ranks.rank,
        ranks=run.ranks.count,
        say=say,
    )
    seen: set[int] = set()
    for loaded in batches:
        for row in loaded.targets.broken.nonzero()[:, 0].tolist():
            if (index := loaded.indices[row]) not in seen:
                seen.add(index)
                unreadable.add(f"{splits.train[index].path}: cannot be decoded; replace or remove the picture")
        yield loaded


def fill_in(network: nn.Module, step: int, config: Config, splits: Splits, out: Path) -> list[Shot]:
    """What `network`, a MAE, fills in after `step` updates, on pictures of val where there are any.

    It is written to `reconstructions/` too.
    """
    if not isinstance(network, MAE) or not config.samples:
        return []
    shown = splits.val if splits.val is not None and len(splits.val) else splits.train
    sides, channels = sides_of(config.image_size), config.in_channels
    shots = reconstruction_shots(
        network, shown, config.samples, sides=sides, resize=config.test_resize, channels=channels, seed=config.seed
    )
    write_sheet(out / "reconstructions" / f"{step:08d}.png", shots)
    return shots


def bundled(network: nn.Module, run: Run, config: Config, splits: Splits) -> Bundle:
    """A bundle of `network`, an encoder or a MAE with its decoder; pictures are squares to it."""
    return Bundle.of(
        network,
        {},
        image_size=min(sides_of(config.image_size)),
        resize=config.test_resize,
        lineage=run_record(recipe="pretrain", **run.identity, steps=run.step, seconds=run.seconds, notes=splits.notes),
    )


def noted(splits: Splits, unreadable: Unreadable, warned: Sequence[str]) -> Splits:
    """`splits` with what was found while learning."""
    return replace(splits, notes=(*splits.notes, *unreadable.notes(), *warned))


def _of_views(chance: float | tuple[float, float]) -> float:
    return max(chance) if isinstance(chance, tuple) else chance
