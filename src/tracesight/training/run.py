"""A training at one instant, and what survives it: the state that a checkpoint holds, saved and taken up again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tracesight.data.batch import Loaded
from tracesight.errors import CheckpointError, Interrupted, NotFiniteError, PartialFailure, UserError
from tracesight.training import fit
from tracesight.training.checkpoint import save_checkpoint
from tracesight.training.ranks import ALONE, Ranks, of_first
from tracesight.training.signals import Stop, name_of
from tracesight.training.spread import (
    is_sharded,
    load_model_state,
    load_optimiser_state,
    model_state,
    optimiser_state,
)


@dataclass
class Run:
    """A training at one instant.

    A checkpoint holds the state of model, average, optimiser and scaler, and the numbers `step`, `measured`, `best`,
    `stale` and seconds. Schedule, position in the data and accumulation need no state: checkpoints lie between updates,
    and all three are functions of `step`.

    Attributes:
        network: what losses are computed with: `model`, or DDP around it, either of them as it is compiled.
        plain: a copy of the network that is whole on every rank, where `model` is sharded.
        identity: config, digests of the data and of the bundle it began from: resume compares them.
        total: updates to make.
        parts: every batch is cut into so many (gradient accumulation).
        patience: validations in a row without a better figure after which the run ends; 0: never.
        step: updates made.
        measured: the step of the last validation.
        best: best figure on val so far.
        stale: validations since.
    """

    model: nn.Module
    network: nn.Module
    optimiser: torch.optim.Optimizer
    total: int
    identity: dict[str, Any]
    ema: nn.Module | None = None
    plain: nn.Module | None = None
    scaler: torch.amp.GradScaler | None = None
    ranks: Ranks = ALONE
    stop: Stop = field(default_factory=lambda: Stop(at_once=False))
    parts: int = 1
    patience: int = 0
    step: int = 0
    measured: int = 0
    best: float | None = None
    stale: int = 0
    before: float = 0.0  # seconds spent before this process took over
    began: float = field(default_factory=time.monotonic)
    part: int = 0  # of the batch at hand, from 0
    share: float = 1.0  # of the batch's pictures that this part holds
    saved: int | None = None  # the step of the newest checkpoint
    settle: Callable[[], None] = lambda: None  # reads losses that have not been read yet
    writing: bool = False  # weights are being changed: what is in memory is no state to keep
    at_hand: Loaded | None = None  # the part being worked on
    fitted: tuple[int, float] | None = None  # the largest part so far: its pixels, and the bytes in use with it

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, over all the processes that carried it."""
        return self.before + time.monotonic() - self.began

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def over(self) -> bool:
        """Whether there is nothing left to learn: all updates made, or no better figure for too long."""
        return self.step >= self.total or 0 < self.patience <= self.stale

    def whole(self, model: nn.Module) -> nn.Module:
        """`model` (this run's, or its average) with all its weights on every rank; all ranks must ask."""
        if self.plain is None:
            return model
        gathered = model_state(model)
        state = of_first(self.ranks, lambda: gathered)
        self.plain.load_state_dict(state)
        return self.plain.train(model.training)

    @property
    def result(self) -> nn.Module:
        """The weights to validate and to keep, whole: the average if there is one. All ranks must ask."""
        return self.whole(self.model if self.ema is None else self.ema)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds. Where the model is sharded all ranks must ask."""
        return {
            "identity": self.identity,
            "model": model_state(self.model),
            "ema": None if self.ema is None else model_state(self.ema),
            "optimiser": optimiser_state(self.model, self.optimiser),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "measured": self.measured,
            "best": self.best,
            "stale": self.stale,
            "seconds": self.seconds,
        }

    def save(self, folder: Path, keep: int) -> None:
        """Write a checkpoint of this instant to `folder`; all ranks call, the first one writes.

        Raises:
            CheckpointError: it cannot be written; on the other ranks `ranks.ElsewhereError`.
            NotFiniteError: the losses of the last step, which had not been read yet, were not finite.
        """
        self.settle()
        state = self.state()
        with self.stop.whole():
            of_first(self.ranks, lambda: str(save_checkpoint(folder, self.step, state, keep)))
        self.saved = self.step

    def restore(self, state: dict[str, Any]) -> None:
        """Become the run that `state`, from a checkpoint, describes. Raises UserError if it is of another model."""
        try:
            load_model_state(self.model, state["model"])
            if self.ema is not None:
                load_model_state(self.ema, state["ema"])
            if state["format"] == 1:  # numbered by position then, and a single process
                self.optimiser.load_state_dict(state["optimiser"])
            else:
                load_optimiser_state(self.model, self.optimiser, state["optimiser"])
            if self.scaler is not None:
                self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(f"the checkpoint of step {state['step']} is of another model: {said}") from None
        self.step, self.best, self.before = state["step"], state["best"], state["seconds"]
        self.measured, self.stale = state.get("measured", self.step), state.get("stale", 0)
        self.saved = self.step
        self.began = time.monotonic()


def due(run: Run, every: int) -> bool:
    """Whether something that happens every so many updates, and at the end, is due."""
    return run.over or (every > 0 and run.step % every == 0)


@contextlib.contextmanager
def kept(run: Run, folder: Path, keep: int, say: Callable[[str], None]) -> Iterator[None]:
    """Whatever ends the block early, the state of the last update is saved first, where it can be.

    Raises:
        Interrupted: a signal, with a message that says what was saved.
        PartialFailure: out of memory (a size that would fit is suggested); no room on the disk.
    """
    try:
        yield
    except NotFiniteError:
        raise
    except Interrupted as error:
        at = f"at step {run.step} of {run.total}"
        done = f"stopped {at} by {name_of(error.number)}; "
        raise Interrupted(error.number, done + _rescued(run, folder, keep, agreed=True)) from None
    except Exception as error:
        remains = _rescued(run, folder, keep)
        if fit.is_out_of_memory(error):
            raise PartialFailure(f"step {run.step}: out of memory; {remains}{_smaller(run)}") from error
        for cause in (error, error.__cause__):  # a bundle that cannot be written says so in words of its own
            if isinstance(cause, OSError) and fit.is_disk_full(cause):
                place = cause.filename or folder.parent
                raise PartialFailure(f"no room to write {place}; {remains}; make room") from error
        if not isinstance(error, CheckpointError):  # which has said what remains
            say(remains)
        raise


def _rescued(run: Run, folder: Path, keep: int, agreed: bool = False) -> str:
    """Save what is in memory if it is whole and new; what there is to go on from, for people.

    agreed: all ranks stop at this very step, so that even a sharded state can be gathered.
    """
    if 0 < run.step != run.saved and not run.writing and (agreed or not is_sharded(run.model)):
        # A rank that fails alone must not wait for the others: with DDP the first holds everything.
        writer = run if agreed else replace(run, ranks=ALONE)
        if agreed or run.ranks.first:
            try:
                writer.save(folder, keep)
                run.saved = writer.saved
            except CheckpointError:  # no room: the one before remains, and the reason is told elsewhere
                pass
    if run.saved is None:
        return "nothing is saved, since no step was finished" if run.step == 0 else "nothing could be saved"
    return f"the state of step {run.saved} is saved: go on with --resume"


def _smaller(run: Run) -> str:
    """The advice after running out of memory, "; …", or nothing where it was not a batch that did it."""
    if run.at_hand is None:
        return ""
    images = run.at_hand.batch.images
    pictures, pixels = images.shape[0], images.shape[0] * images.shape[-2] * images.shape[-1]
    config = run.identity["config"]
    return "; " + fit.suggestion(
        pictures=pictures,
        pixels=pixels,
        parts=run.parts,
        image_size=config["image_size"],
        batch=config["batch_size"] // run.ranks.count,
        crop_size=config.get("crop_size"),
        fitted=run.fitted,
        available=fit.available(run.device),
    )
