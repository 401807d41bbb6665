"""The watch over losses: it reads them, passes them on, and stops the run at the first that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tracesight.data.batch import Loaded
from tracesight.data.dataset import Dataset
from tracesight.errors import NotFiniteError
from tracesight.ops.collectives import alone
from tracesight.training.diagnose import first_bad_input, first_bad_tensor
from tracesight.training.ranks import gathered, share
from tracesight.training.replay import save_replay
from tracesight.training.run import Run

NORM = "grad_norm"


class _Taken(NamedTuple):
    """One part of a batch and its losses (L,), still on the device."""

    loaded: Loaded
    losses: Tensor
    share: float


class LossWatch:
    """Reads losses and the gradient's norm, and stops the run at the first that is not finite.

    On the CPU they are read at once, before the update that they would spoil. Elsewhere reading waits for the device,
    so they are read while the next step runs, one step late; `update` has left the weights alone until then.

    Args:
        run: whose losses these are.
        dataset: names the pictures of a bad batch.
        folder: where a bad batch is saved.
        losses_of: (network, part of a batch) → losses.
        note: receives each step (from 0), its losses by name and the gradient's norm.
    """

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        folder: Path,
        losses_of: Callable[[nn.Module, Loaded], dict[str, Tensor]],
        note: Callable[[int, dict[str, float]], None],
    ) -> None:
        self._run, self._dataset, self._folder = run, dataset, folder
        self._losses_of, self._note = losses_of, note
        run.settle = self.flush
        self._names: list[str] = []
        self._parts: list[_Taken] = []
        self._pending: tuple[int, list[_Taken], Tensor, torch.cuda.Event] | None = None

    def take(self, losses: dict[str, Tensor]) -> None:
        """Take the losses of the part at hand."""
        assert self._run.at_hand is not None
        self._names = list(losses)
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self._parts.append(_Taken(self._run.at_hand, values, self._run.share))

    def close(self, norm: Tensor) -> None:
        """The batch is complete, its gradient has this norm. Raises NotFiniteError for what is not finite."""
        step, parts, self._parts = self._run.step, self._parts, []
        losses = torch.stack([part.losses * part.share for part in parts]).sum(0)
        if self._run.ranks.count > 1:
            # Each rank's losses are its share of the global ones, times the number of ranks.
            dist.all_reduce(losses)
            losses = losses / self._run.ranks.count
        values = torch.cat((losses, norm.detach().float().reshape(1)))
        if values.device.type != "cuda":
            self._read(step, parts, values)
            return
        landed = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        landed.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self.flush()
        self._pending = (step, parts, landed, copied)

    def flush(self) -> None:
        """Read what has not been read yet. `run.settle` is this, called before anything is written that rests on it."""
        if self._pending is None:
            return
        step, parts, values, copied = self._pending
        self._pending = None
        copied.synchronize()
        self._read(step, parts, values)

    def _read(self, step: int, parts: list[_Taken], values: Tensor) -> None:
        row = dict(zip([*self._names, NORM], values.tolist()))
        # Under fp16 a gradient too large is nothing unusual: the scaler leaves the step out and scales less.
        watched = row if self._run.scaler is None else {name: row[name] for name in self._names}
        if not all(map(math.isfinite, watched.values())):
            self._stop(step, row, parts)
        self._note(step, row)

    def _stop(self, step: int, row: dict[str, float], parts: list[_Taken]) -> None:
        """All ranks come here together, since all have read the same sums."""
        run = self._run
        model = run.whole(run.model)
        with alone():
            said = self._culprit(step, row, parts, model)
        every = share(run.ranks, gathered(run.ranks, said)) or [said]
        name = next(name for name, value in row.items() if not math.isfinite(value))
        what = "the gradient's norm" if name == NORM else name
        found = next((line for line in every if line), "nothing else could be found out")
        raise NotFiniteError(
            f"step {step}: {what} is {row[name]}: {found}; "
            "lower lr, lengthen warmup_steps, set clip_norm or use precision=fp32, in a new --out"
        )

    def _culprit(self, step: int, row: dict[str, float], parts: list[_Taken], model: nn.Module) -> str | None:
        """Of this rank's parts the first that went wrong: what, on which pictures, and where it was saved."""
        only_norm = all(math.isfinite(row[name]) for name in self._names)
        for taken in parts:
            if not only_norm and torch.isfinite(taken.losses).all():
                continue
            pictures = [str(self._dataset[index].path) for index in taken.loaded.indices]
            found = first_bad_input(taken.loaded, pictures) or first_bad_tensor(
                model, lambda part=taken.loaded: self._losses_of(model, part)
            )
            if found is not None or not only_norm:
                found = found or "it is finite when the step is run again"
                return self._saved(step, taken, model, found, pictures)
        return None

    def _saved(self, step: int, taken: _Taken, model: nn.Module, found: str, pictures: list[str]) -> str:
        rank = self._run.ranks.rank
        path = self._folder / (f"bad-batch-{step:08d}" + (f"-rank{rank}" if rank else "") + ".pt")
        written = save_replay(
            path,
            step=step,
            losses=dict(zip(self._names, taken.losses.tolist())),
            found=found,
            config=self._run.identity["config"],
            spec=self._run.model.spec,  # type: ignore[arg-type]
            model_state=model.state_dict(),
            loaded=taken.loaded,
            pictures=pictures,
        )
        again = f"tracesight train --replay {path}" if written else "the batch could not be saved: no room"
        return f"{found}, on {', '.join(pictures)}; to see it again: {again}"
