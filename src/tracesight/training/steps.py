"""The step iterator, the update, and the watch over losses: what every recipe's loop is made of."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tracesight.data.batch import Loaded
from tracesight.data.record import Dataset
from tracesight.errors import PartialFailure, UserError
from tracesight.training.checkpoint import save_checkpoint
from tracesight.training.ema import update_ema
from tracesight.training.optim import set_learning_rate
from tracesight.training.progress import Display


@dataclass
class Run:
    """A training at one instant: everything that a checkpoint holds, and nothing that it does not.

    The schedule and the position in the data are functions of `step` and need no state.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    total: int  # updates to make
    identity: dict[str, Any]  # config, digests of the data and of the bundle it began from: resume compares them
    ema: nn.Module | None = None
    step: int = 0  # updates made
    best: float | None = None  # best figure on val so far
    before: float = 0.0  # seconds spent before this process took over
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, over all the processes that carried it."""
        return self.before + time.monotonic() - self.began

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def result(self) -> nn.Module:
        """The weights to validate and to keep: the average if there is one."""
        return self.model if self.ema is None else self.ema

    def save(self, folder: Path, keep: int) -> Path:
        """Write a checkpoint of this instant to `folder`."""
        state = {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "seconds": self.seconds,
        }
        return save_checkpoint(folder, self.step, state, keep)

    def restore(self, state: dict[str, Any]) -> None:
        """Become the run that `state`, from a checkpoint, describes. Raises UserError if it is of another model."""
        try:
            self.model.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"the checkpoint of step {state['step']} is of another model: {_one_line(error)}") from None
        self.step, self.best, self.before = state["step"], state["best"], state["seconds"]
        self.began = time.monotonic()


def steps(
    run: Run,
    batches: Callable[[int, int], Iterator[Loaded]],
    learning_rate: Callable[[int], float],
    display: Display,
) -> Iterator[tuple[int, Loaded]]:
    """Yield (step, batch on the model's device) from where the run stands to its end; the body updates it once.

    Args:
        batches: (first step, number of steps) → the batches, as `data.loader.training_batches` gives them.
        learning_rate: of each step, from 0.
    """
    source = batches(run.step, run.total - run.step)
    with display.job("step", run.total, run.step) as job:
        while run.step < run.total:
            step, asked = run.step, time.monotonic()
            loaded = next(source)
            waited = time.monotonic() - asked
            rate = learning_rate(step)
            set_learning_rate(run.optimiser, rate)
            yield step, to_device(loaded, run.device)
            if run.step != step + 1:
                raise RuntimeError(f"step {step} was not followed by exactly one update")
            job.advance(waited, lr=rate)


def update(run: Run, losses: dict[str, Tensor], *, clip_norm: float = 0.0, ema_decay: float = 0.0) -> None:
    """Backward through the sum of `losses`, clip the gradient (0: do not), step the optimiser and the average."""
    torch.stack(list(losses.values())).sum().backward()
    if clip_norm > 0:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), clip_norm, foreach=True)
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    run.step += 1
    if run.ema is not None:
        update_ema(run.ema, run.model, run.step, ema_decay)


class LossWatch:
    """Reads losses, passes them on, and stops the run at the first that is not finite.

    On the CPU a loss is read at once, before the update that it would spoil. Elsewhere reading waits for the device, so
    each loss is read while the next step runs, one step late.

    Args:
        dataset: names the pictures of a bad batch.
        folder: where a bad batch is saved.
        note: receives each step (from 0) and its losses by name.
    """

    def __init__(self, dataset: Dataset, folder: Path, note: Callable[[int, dict[str, float]], None]) -> None:
        self._dataset, self._folder, self._note = dataset, folder, note
        self._pending: tuple[int, Loaded, list[str], Tensor, torch.cuda.Event] | None = None

    def __call__(self, step: int, loaded: Loaded, losses: dict[str, Tensor]) -> None:
        """Take the losses of `step`. Raises PartialFailure for losses that are not finite."""
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        if values.device.type != "cuda":
            self._read(step, loaded, list(losses), values)
            return
        landed = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        landed.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self.flush()
        self._pending = (step, loaded, list(losses), landed, copied)

    def flush(self) -> None:
        """Read what has not been read yet: to be called before anything is written that rests on it."""
        if self._pending is None:
            return
        step, loaded, names, values, copied = self._pending
        self._pending = None
        copied.synchronize()
        self._read(step, loaded, names, values)

    def _read(self, step: int, loaded: Loaded, names: Sequence[str], values: Tensor) -> None:
        row = dict(zip(names, values.tolist()))
        if not torch.isfinite(values).all():
            self._stop(step, row, loaded)
        self._note(step, row)

    def _stop(self, step: int, row: dict[str, float], loaded: Loaded) -> None:
        name = next(name for name, value in row.items() if not math.isfinite(value))
        path = self._folder / f"bad-batch-{step:08d}.pt"
        held = {
            "format": 1,
            "step": step,
            "losses": row,
            "indices": list(loaded.indices),
            "batch": {key: value.cpu() for key, value in loaded.batch._asdict().items()},
            "targets": {
                key: value.cpu() for key, value in (loaded.targets._asdict() if loaded.targets else {}).items()
            },
        }
        torch.save(held, path)
        pictures = ", ".join(str(self._dataset[index].path) for index in loaded.indices)
        raise PartialFailure(
            f"step {step}: {name} is {row[name]} on {pictures}; the batch is in {path}; "
            "lower lr, lengthen warmup_steps or use precision=fp32, in a new --out"
        )


def to_device(loaded: Loaded, device: torch.device) -> Loaded:
    """The batch with its tensors on `device`, copied without waiting; on the CPU the batch itself."""
    if device.type == "cpu":
        return loaded
    batch = type(loaded.batch)(*(tensor.to(device, non_blocking=True) for tensor in loaded.batch))
    targets = loaded.targets
    if targets is not None:
        targets = type(targets)(*(tensor.to(device, non_blocking=True) for tensor in targets))
    return loaded._replace(batch=batch, targets=targets)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
