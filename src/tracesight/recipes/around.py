"""What stands around every recipe's loop: the run begun, its folder opened, the rate of a step, what is left then."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from tracesight.bundle import Bundle
from tracesight.data.sampling import epoch_length
from tracesight.report.gallery import Shot
from tracesight.report.html import duration
from tracesight.report.run import write_run
from tracesight.training.begin import begin
from tracesight.training.board import open_board, require_tensorboard
from tracesight.training.checkpoint import NOTHING, load_newest
from tracesight.training.folder import check_run_folder, compare_identity, write_config, write_metrics
from tracesight.training.history import History
from tracesight.training.lock import held
from tracesight.training.measure import Validation
from tracesight.training.optim import build_optimiser
from tracesight.training.precision import autocast_dtype, describe, repeatable
from tracesight.training.prepare import Splits
from tracesight.training.progress import Display, Say
from tracesight.training.ranks import Ranks, joined, of_first
from tracesight.training.run import Run
from tracesight.training.schedules import learning_rate
from tracesight.training.signals import Stop, listening
from tracesight.training.watch import NORM


class Opening(NamedTuple):
    """What a training has before it looks at its data."""

    ranks: Ranks
    device: torch.device
    stop: Stop
    display: Display

    def finished(
        self, out: Path, config: BaseModel, *, resume: bool, allow: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        """The metrics of the run in `out` where it is finished, which is said. Raises what `check_run_folder` does."""
        metrics = of_first(self.ranks, lambda: check_run_folder(out, config, resume=resume, allow=allow))
        if metrics is not None:
            self.display.say(f"the run in {out} is finished: nothing to do")
        return metrics


@contextmanager
def opened(config: Opens, progress: Say | None) -> Iterator[Opening]:
    """Processes joined, signals heard, arithmetic made repeatable, until the end of the block."""
    with (
        joined(config.device) as (ranks, device),
        listening(at_once=ranks.count == 1) as stop,
        repeatable(device, config.threads),
    ):
        if config.tensorboard:
            require_tensorboard()
        yield Opening(ranks, device, stop, Display(progress, quiet=not ranks.first))


class Opens(Protocol):
    """The keys of a recipe that say where it runs."""

    @property
    def device(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def tensorboard(self) -> bool: ...


class Schedule(Protocol):
    """The keys of a recipe that the learning rate follows."""

    @property
    def lr(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def schedule(self) -> str: ...
    @property
    def milestones(self) -> tuple[float, ...]: ...
    @property
    def final_lr_fraction(self) -> float: ...


class Updates(Protocol):
    """The keys of a recipe that say how weights are updated, how often, and on what."""

    @property
    def optimiser(self) -> str: ...
    @property
    def lr(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def distributed(self) -> str: ...
    @property
    def compile(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def ema(self) -> float: ...
    @property
    def epochs(self) -> int: ...
    @property
    def max_steps(self) -> int | None: ...
    @property
    def patience(self) -> int: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def begin_run(
    config: Updates,
    model: nn.Module,
    splits: Splits,
    weights: np.ndarray | None,
    begun: Bundle | None,
    device: torch.device,
    ranks: Ranks,
    stop: Stop,
    tuned: Mapping[str, float] | None = None,
    **identity: Any,
) -> Run:
    """The run of `model` before its first step.

    weights: how often each picture comes in an epoch; None: once each. begun: the bundle whose weights it has. tuned:
    what `build_optimiser` takes besides.
    identity: what a resume must find unchanged besides config, data and that bundle.
    """
    numbers = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    numbers |= tuned or {}
    pictures = epoch_length(len(splits.train), weights)
    return begin(
        model,
        lambda placed: build_optimiser(config.optimiser, placed, **numbers),
        device=device,
        ranks=ranks,
        stop=stop,
        distributed=config.distributed,
        compile=config.compile,
        batch_size=config.batch_size,
        parts=config.accumulate,
        half=autocast_dtype(config.precision, device) == torch.float16,
        ema=config.ema > 0,
        total=config.max_steps or math.ceil(config.epochs * pictures / config.batch_size),
        patience=config.patience,
        identity={
            "config": config.model_dump(mode="json"),
            "data": of_first(ranks, splits.record),
            "init": None if begun is None else begun.digest,
            **identity,
        },
    )


@contextmanager
def open_run(
    run: Run,
    config: BaseModel,
    out: Path,
    resume: bool,
    display: Display,
    losses: Sequence[str],
    figures: Sequence[str],
) -> Iterator[History | None]:
    """Hold the folder for this run alone, take up the newest sound checkpoint if that is wanted, and open the history.

    The first rank does so; the others get the state from it and no history. losses, figures: columns of the history.
    """
    with ExitStack() as stack:
        of_first(run.ranks, lambda: stack.enter_context(held(out)))
        found = of_first(run.ranks, lambda: load_newest(out / "checkpoints") if resume else NOTHING)
        for line in found.notes:
            display.say(line)
        if found.state is not None:
            for line in compare_identity(found.state["identity"], run.identity, type(config), out):
                display.say(line)
            run.restore(found.state)
            display.say(f"resuming at step {run.step} of {run.total}")
        elif resume:
            display.say(f"no {'sound ' if found.notes else ''}checkpoint in {out}: starting afresh")
        del found  # a second copy of all weights
        if not run.ranks.first:
            yield None
            return
        write_config(out, config)
        columns = ["step", "seconds", "lr", "loss", *losses, NORM, "val_loss", *figures]
        board = None
        if run.identity["config"]["tensorboard"]:
            board = stack.enter_context(closing(open_board(out / "tensorboard", run.step)))
        yield History(out / "history.csv", columns, run.step, board, run.measured)


def rate_of(config: Schedule, total: int, step: int) -> float:
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


def finish(
    run: Run,
    splits: Splits,
    reached: tuple[Bundle, Validation | None],
    out: Path,
    display: Display,
    filled: Sequence[Shot] = (),
) -> dict[str, Any]:
    """Write `last/`, the report and, at the very end, metrics.json. filled: pictures of what a MAE fills in."""
    bundle, validation = reached
    bundle.save(out / "last")
    notes, config = list(splits.notes), run.identity["config"]
    if run.step < run.total:
        notes.append(f"ended after {run.step} of {run.total} updates: no better figure for {run.stale} validations")
    metrics = {} if validation is None else {**validation.metrics, "operating": validation.operating}
    metrics |= {"steps": run.step, "seconds": round(run.seconds, 1), "notes": notes}
    write_run(
        out,
        name=out.resolve().name,
        bundle=bundle,
        splits=splits.named,
        validation=validation,
        start="random weights" if run.identity["init"] is None else f"bundle {run.identity['init'][:12]}",
        steps=run.step,
        seconds=run.seconds,
        hardware=describe(run.device, config["precision"]),
        config=config,
        notes=notes,
        filled=filled,
    )
    write_metrics(out, metrics)
    display.say(f"finished after {run.step} steps in {duration(run.seconds)}: {out / 'report.html'}")
    return metrics
