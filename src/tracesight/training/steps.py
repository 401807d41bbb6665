"""The step iterator and the update: what every recipe's loop is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tracesight.data.batch import Loaded, moved
from tracesight.errors import Interrupted
from tracesight.training import fit, liveness
from tracesight.training.ema import update_ema
from tracesight.training.optim import set_learning_rate
from tracesight.training.progress import Display, peak_memory
from tracesight.training.ranks import greatest
from tracesight.training.run import Run
from tracesight.training.spread import average_gradients, whole_tensor
from tracesight.training.watch import LossWatch


def steps(
    run: Run,
    batches: Callable[[int, int], Iterator[Loaded]],
    learning_rate: Callable[[int], float],
    display: Display,
) -> Iterator[tuple[int, Loaded]]:
    """Yield (step, part of its batch on the model's device) from where the run stands to its end.

    A step has `run.parts` parts, and the body calls `update` once for each. Where ranks work together, each has its
    share of every batch.

    Args:
        batches: (first step, number of steps) → the batches, as `data.loader.training_batches` gives them.
        learning_rate: of each step, from 0.

    Raises:
        Interrupted: a signal asked the run to end; with several ranks, between two steps and on all of them.
    """
    with (
        closing(batches(run.step, run.total - run.step)) as source,  # type: ignore[type-var]
        display.job("step", run.total, run.step, partial(peak_memory, run.device)) as job,
    ):
        while not run.over:
            step, asked = run.step, time.monotonic()
            liveness.mark(step)
            loaded = _agreed(run, next(source))
            waited, rate = time.monotonic() - asked, learning_rate(step)
            set_learning_rate(run.optimiser, rate)
            for part, begin in enumerate(cuts := _cuts(len(loaded.indices), run.parts)):
                end = cuts[part + 1] if part + 1 < len(cuts) else len(loaded.indices)
                run.part, run.share = part, (end - begin) / len(loaded.indices)
                run.at_hand = to_device(_between(loaded, begin, end), run.device)
                average_gradients(run.network, part == run.parts - 1)
                yield step, run.at_hand
            if run.step != step + 1:
                raise RuntimeError(f"step {step} was not followed by exactly one update of each part")
            job.advance(waited, lr=rate)


def update(
    run: Run,
    losses: dict[str, Tensor],
    watch: LossWatch,
    *,
    clip_norm: float = 0.0,
    ema_decay: float = 0.0,
    then: Callable[[], None] | None = None,
) -> bool:
    """Backward through the sum of `losses`; after the last part of a batch clip, step the optimiser and the average.

    A part counts as much as its share of the batch's pictures.

    Args:
        watch: reads the losses and the gradient's norm before they can do harm.
        clip_norm: the greatest norm that the gradient keeps; 0: any.
        then: what belongs to the update besides, done after the optimiser's step and kept or lost with it.

    Returns:
        Whether the step is complete.

    Raises:
        NotFiniteError: a loss or the gradient is not finite; the weights are as they were.
    """
    watch.take(losses)
    total = torch.stack(list(losses.values())).sum() * run.share
    (total if run.scaler is None else run.scaler.scale(total)).backward()
    _note_memory(run)
    if run.part + 1 < run.parts:
        return False
    if run.scaler is not None:
        run.scaler.unscale_(run.optimiser)
    norm = _clipped(run, clip_norm)
    watch.close(norm)
    with run.stop.whole():
        run.writing = True
        _step(run, norm)
        if run.ema is not None:
            update_ema(run.ema, run.model, run.step + 1, ema_decay)
        if then is not None:
            then()
        run.step += 1
        run.writing = False
    run.at_hand = None  # what comes now, such as a validation, is not this batch's doing
    run.optimiser.zero_grad(set_to_none=True)
    return True


def to_device(loaded: Loaded, device: torch.device) -> Loaded:
    """The batch with its tensors on `device`, copied without waiting; on the CPU the batch itself."""
    if device.type == "cpu":
        return loaded
    targets = loaded.targets
    if targets is not None:
        targets = moved(targets, device, non_blocking=True)
    return loaded._replace(batch=moved(loaded.batch, device, non_blocking=True), targets=targets)


def _step(run: Run, norm: Tensor) -> None:
    if run.scaler is not None:
        run.scaler.step(run.optimiser)
        run.scaler.update()
        return
    if run.device.type == "cuda" and not run.optimiser.defaults["fused"]:
        if not torch.isfinite(norm):  # waits for the device: only the fused kernels look for themselves
            return
    elif run.device.type == "cuda":
        # Losses are read one step late there. Until then the fused optimisers themselves leave the weights alone.
        run.optimiser.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
    run.optimiser.step()


def _clipped(run: Run, clip_norm: float) -> Tensor:
    """The norm of the whole gradient, which is then scaled down to `clip_norm` where that is above 0."""
    parameters = [parameter for parameter in run.model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    if clip_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm, foreach=True)
    return whole_tensor(norm)


def _agreed(run: Run, loaded: Loaded) -> Loaded:
    """The batch padded to the size of the global one. Raises Interrupted if any rank was asked to end."""
    if run.ranks.count == 1:
        return loaded
    images = loaded.batch.images
    height, width, signal = greatest(run.ranks, [*images.shape[-2:], run.stop.asked or 0])
    if signal:
        raise Interrupted(signal)
    below, right = height - images.shape[-2], width - images.shape[-1]
    if below or right:
        padded = F.pad(images, (0, right, 0, below)).contiguous(memory_format=torch.channels_last)
        loaded = loaded._replace(batch=loaded.batch._replace(images=padded))
    return loaded


def _cuts(pictures: int, parts: int) -> list[int]:
    """Where each of the parts begins, as even as can be."""
    return [part * pictures // parts for part in range(parts)]


def _between(loaded: Loaded, begin: int, end: int) -> Loaded:
    """The pictures from `begin` to `end`; masks stay in the one flat buffer, to which the offsets point."""
    if end - begin == len(loaded.indices):
        return loaded
    columns: list[Any] = [c if c is None else c[begin:end] for c in loaded.batch]
    batch = type(loaded.batch)(*columns)
    targets = loaded.targets
    if targets is not None:
        held = {name: c for name, c in targets._asdict().items() if name != "mask_pixels" and c is not None}
        rows = {name: column[begin:end] for name, column in held.items()}
        targets = targets._replace(**rows)
    return Loaded(batch, targets, loaded.indices[begin:end], loaded.original_sizes[begin:end])


def _note_memory(run: Run) -> None:
    """Remember the largest part that there was room for: the advice after running out of memory rests on it."""
    assert run.at_hand is not None
    images = run.at_hand.batch.images
    pixels = images.shape[0] * images.shape[-2] * images.shape[-1]
    if run.fitted is None or pixels > run.fitted[0]:
        used = fit.memory_used(run.device)
        run.fitted = None if used is None else (pixels, used)
