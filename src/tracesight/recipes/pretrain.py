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
from pydantic import BaseModel, Field, field_validator
from torch import nn

from tracesight.bundle import Bundle
from tracesight.data.batch import Loaded
from tracesight.data.loader import shuffled_batches
from tracesight.data.unlabelled import Unreadable
from tracesight.data.view_batch import ViewBatches
from tracesight.data.views import View
from tracesight.errors import UserError
from tracesight.lineage.record import run_record
from tracesight.models.build import build
from tracesight.models.encode import gathered_rows
from tracesight.models.methods import METHODS, build_method, numbers_of
from tracesight.recipes.around import begin_run, finish, open_run, opened, rate_of
from tracesight.training import collapse
from tracesight.training.history import History
from tracesight.training.measure import Validation, measure
from tracesight.training.nearest import Known, known_pictures, look_around
from tracesight.training.precision import autocast, autocast_dtype
from tracesight.training.prepare import Data, Splits
from tracesight.training.pretraining import made_of
from tracesight.training.progress import Display, Say
from tracesight.training.ranks import Ranks, of_first
from tracesight.training.run import Run, due, kept
from tracesight.training.schedules import key_momentum
from tracesight.training.signals import Stop
from tracesight.training.steps import steps, update
from tracesight.training.unlabelled import read_pictures
from tracesight.training.watch import NORM, LossWatch

DEVIATION, RANK = "features_deviation", "features_rank"
_NUMBERS = ("dim", "hidden", "queue", "temperature", "symmetric", "bn_group")  # keys that are the method's own


class Config(BaseModel, extra="forbid", frozen=True):
    """Every key of a pretraining; lengths in pixels, `lr` belongs to `batch_size` and is never rescaled.

    The defaults are MoCo v2's on ImageNet; the presets `moco-v1`, `moco-v2` and `moco-v3` hold the papers' numbers, and
    `tracesight pretrain --method` begins from the one of that name.
    """

    method: str = "moco-v2"  # one of `models.methods.METHODS`
    model: str = "resnet50"
    model_args: dict[str, Any] = {}  # the builder's own: norm, shortcut, zero_init, …
    seed: int = Field(0, ge=0)
    # None: as the method has it, or has not.
    dim: int | None = Field(None, ge=2)  # width of queries and keys
    hidden: int | None = Field(None, ge=2)  # of moco-v3: width inside the heads
    queue: int | None = Field(None, ge=1)  # of moco-v1, v2: keys that wait
    temperature: float | None = Field(None, gt=0)
    symmetric: bool | None = None  # of moco-v1, v2: each view is query once
    bn_group: int | None = Field(None, ge=2)  # of moco-v1, v2: pictures that share batch norm's statistics
    key_momentum: float = Field(0.999, ge=0, le=1)  # how slowly the key encoder follows
    key_momentum_rises: bool = False  # to 1 at the end, by half a cosine

    epochs: int = Field(200, ge=1)
    max_steps: int | None = Field(None, ge=1)  # overrides epochs
    batch_size: int = Field(256, ge=2)  # pictures an update, over all ranks
    accumulate: int = Field(1, ge=1)  # parts that a batch is cut into, to save memory; not with moco-v3
    optimiser: Literal["sgd", "lars", "adamw"] = "sgd"
    lr: float = Field(0.03, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd and lars
    weight_decay: float = Field(1e-4, ge=0)  # of weights; norms and biases do not decay
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.6, 0.8)  # of schedule=step: fractions of the run at which lr falls tenfold
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    clip_norm: float = Field(0.0, ge=0)  # 0: the gradient is not clipped

    image_size: int = Field(224, ge=8)  # side of a view
    test_resize: int | None = Field(None, ge=8)  # short side before the middle is cut out; None: 8/7, small ones as is
    area: tuple[float, float] = (0.2, 1.0)  # share of the picture that a view shows
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # its width over its height
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
    samples: int = Field(12, ge=0)  # pictures drawn at the end, with their nearest neighbours
    tensorboard: bool = False  # event files beside history.csv, by the extra `log`

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

    @field_validator("area", "ratio", "blur")
    @classmethod
    def _ordered(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not 0 < pair[0] <= pair[1]:
            raise ValueError("give (smallest, largest), both above 0")
        return pair

    # What other recipes can choose and this one cannot: encoders are copied, and the key encoder is an average already.
    @property
    def distributed(self) -> str:
        return "ddp"

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
        splits = read_pictures(data, format, config.image_size, unreadable, display)
        run = start(config, splits, device, ranks, stop)
        known = known_pictures(splits, config.knn_pictures, config.neighbours, config.knn_temperature)
        figures = [] if known is None else ["val_image_knn"]
        with open_run(run, config, out, resume, display, ["key_momentum", DEVIATION, RANK], figures) as history:
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
            values = {
                "lr": rate(step),
                "loss": row["loss_contrast"],
                NORM: row[NORM],
                "key_momentum": slow(config, run, step),
            }
            history.add(step=step + 1, seconds=run.seconds, **values, **dict(zip((DEVIATION, RANK), looked)))

    def then() -> None:
        keys, draws = (torch.cat(parts) for parts in zip(*((m.keys, d) for m, d in made)))
        run.model.advance(keys, draws, slow(config, run, run.step))  # type: ignore[operator]

    def look(history: History | None = history) -> tuple[Bundle, Validation | None]:
        run.settle()
        looked = None if known is None else partial(look_around, known=known, run=run, display=display)
        return measure(run, bundle_of(run, config, noted(splits, unreadable, warned)), out, history, looked, display)

    watch, reached = LossWatch(run, splits.train, out, losses_of, note), None
    batches = partial(batches_of, config, splits, run, unreadable, display.say)
    with kept(run, checkpoints, config.keep_checkpoints, display.say):
        if run.measured < run.step and due(run, config.validate_every):  # it was stopped before it could look
            reached = look()
        for step, part in steps(run, batches, rate, display):
            losses = losses_of(run.network, part)
            if step % config.features_every == 0 and run.part + 1 == run.parts:
                queries = gathered_rows(torch.cat([m.queries for m, _ in made]))
                spread[step] = collapse.deviation(queries), collapse.rank(queries)
            if not update(run, losses, watch, clip_norm=config.clip_norm, then=then):
                continue  # with the next part of the batch
            if due(run, config.validate_every):
                reached = look()
            if due(run, config.checkpoint_every):
                run.save(checkpoints, config.keep_checkpoints)
        # A run that was killed after its last checkpoint is measured once more.
        reached = reached or look(history=None)
        return of_first(run.ranks, lambda: finish(run, noted(splits, unreadable, warned), reached, out, display))


def slow(config: Config, run: Run, step: int) -> float:
    """How slowly the key encoder follows after update `step` (from 0)."""
    return key_momentum(step, run.total, start=config.key_momentum, rises=config.key_momentum_rises)


def start(config: Config, splits: Splits, device: torch.device, ranks: Ranks, stop: Stop) -> Run:
    """The run before its first step. Raises UserError for keys that do not fit the method, the data or each other."""
    numbers = {key: getattr(config, key) for key in _NUMBERS if getattr(config, key) is not None}
    for key in numbers.keys() - numbers_of(config.method):
        raise UserError(f"config key {key!r}: {config.method} has none; leave it out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = build_method(config.method, config.model, config.model_args, numbers)
    check_fit(config, method, len(splits.train), ranks.count)
    return begin_run(config, method, splits, None, None, device, ranks, stop)


def check_fit(config: Config, method: Any, pictures: int, ranks: int) -> None:
    """Raise UserError where batch, queue, groups of batch norm and pictures do not fit each other."""
    batch = config.batch_size
    if pictures < batch:
        raise UserError(
            f"{pictures} pictures are fewer than batch_size={batch}: add pictures, or use a smaller batch_size"
        )
    if config.accumulate > 1 and not method.accumulates:
        raise UserError(
            f"accumulate={config.accumulate}: {config.method} tells the pictures of a batch from each other, and parts "
            "of it would be another loss; use accumulate=1 with more processes or a smaller batch_size"
        )
    if not hasattr(method, "queue"):
        return
    waiting, new = method.queue.shape[1], batch * (2 if method.symmetric else 1)
    if waiting % new:
        fits = max(1, waiting // new) * new
        raise UserError(f"queue={waiting} is no multiple of the {new} keys of a batch: use queue={fits}")
    if waiting > pictures:
        raise UserError(
            f"queue={waiting} is more than the {pictures} pictures, which would wait in it several times: use "
            f"queue={max(new, pictures // new * new)}"
        )
    share, group = batch // ranks // config.accumulate, method.bn_group
    if batch % (ranks * config.accumulate) == 0 and share % group:
        raise UserError(
            f"bn_group={group} does not divide the {share} pictures that a process takes at a time: use "
            f"bn_group={max(g for g in range(1, share + 1) if share % g == 0 and g <= max(group, 2))}"
        )
    if group == share * ranks:
        raise UserError(
            f"bn_group={group} is all pictures that are seen at a time, and keys would share statistics with their "
            f"queries: use bn_group={max(2, group // 2)}"
        )


def batches_of(
    config: Config, splits: Splits, run: Run, unreadable: Unreadable, say: Say, first: int, count: int
) -> Iterator[Loaded]:
    """This rank's share of the training batches of `count` steps from step `first`."""
    same = ("image_size", "area", "ratio", "flip", "jitter", "jitter_chance", "grey_chance", "blur")
    shared = {key: getattr(config, key) for key in same}
    views = [
        View(**shared, blur_chance=blur, solarise_chance=solarise)
        for blur, solarise in zip(config.blur_chance, config.solarise_chance)
    ]
    batches = shuffled_batches(
        splits.train,
        ViewBatches(splits.train, (views[0], views[1]), raw=run.device.type != "cpu"),
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


def encoder_of(run: Run, config: Config) -> nn.Module:
    """A copy of the encoder as it stands, without its head."""
    method: Any = run.result
    spec = method.spec["encoder"]
    with torch.random.fork_rng(devices=[]):
        encoder = build(spec["name"], 0, spec["conventions"], **spec["args"])
    state = {name: value for name, value in method.pretrained.state_dict().items() if not name.startswith("fc.")}
    encoder.load_state_dict(state)
    return encoder.to(run.device).eval()


def bundle_of(run: Run, config: Config, splits: Splits) -> Bundle:
    """The bundle as it stands, on every rank."""
    return Bundle.of(
        encoder_of(run, config),
        {},
        image_size=config.image_size,
        resize=config.test_resize,
        lineage=run_record(recipe="pretrain", **run.identity, steps=run.step, seconds=run.seconds, notes=splits.notes),
    )


def noted(splits: Splits, unreadable: Unreadable, warned: Sequence[str]) -> Splits:
    """`splits` with what was found while learning."""
    return replace(splits, notes=(*splits.notes, *unreadable.notes(), *warned))
