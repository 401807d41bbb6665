"""Batches out of a dataset, the same whatever the number of workers or ranks and wherever a run is taken up again.

Draw d = step × batch_size + position decides everything about a picture: which one it is (position d mod L of the order
that epoch d // L was shuffled into, L draws being an epoch) and every random number of its transform.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tracesight.data.batch import Loaded, collate
from tracesight.data.random import generator, order
from tracesight.data.record import Dataset
from tracesight.data.sample import load_sample
from tracesight.data.sampling import epoch_length, weighted_order
from tracesight.data.transforms import Transform
from tracesight.data.workers import in_workers
from tracesight.errors import UserError


def training_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    steps: int,
    transform: Transform,
    workers: int = 0,
    with_masks: bool = True,
    channels: int = 3,
    weights: np.ndarray | None = None,
    rank: int = 0,
    ranks: int = 1,
    say: Callable[[str], None] | None = None,
) -> Generator[Loaded, None, None]:
    """`steps` batches of shuffled pictures, the first of them that of step `start_step`, epoch after epoch.

    Bit for bit the same for any `workers`, and for a run taken up at any step. keys: (seed, draw). A worker that dies
    is started again and changes nothing; workers pass over Ctrl-C and SIGTERM, and end when the generator is closed or
    this process is gone.

    Args:
        batch_size: of the whole step, over all ranks.
        channels: of the pictures, as in `open_picture`.
        weights: (n,) how often each picture is drawn per epoch, on average, as `sampling.picture_weights` gives them;
            None: once.
        rank, ranks: this is the part of rank `rank` (from 0) of `ranks`: positions [rank × batch_size / ranks,
            (rank + 1) × batch_size / ranks) of each batch. The parts in order are the batch, except for padding.
        say: told in one line about a worker that was started again; None: a RuntimeWarning.

    Raises:
        UserError: at once if ranks cannot share batch_size evenly; while iterating if a picture cannot be read, or an
            annotation's mask does not fit it, naming it.
        PartialFailure: workers died twice at the same step, whose number and pictures it names.
    """
    if batch_size % ranks:
        raise UserError(
            f"batch_size={batch_size} cannot be shared evenly by {ranks} processes: "
            f"use batch_size={-(-batch_size // ranks) * ranks}"
        )
    if weights is not None and weights.shape != (len(dataset),):
        raise ValueError(f"weights of shape {weights.shape} for {len(dataset)} pictures")
    part = batch_size // ranks
    mine = range(rank * part, (rank + 1) * part)
    job = _Job(dataset, batch_size, transform, with_masks, channels, seed, weights, mine)
    return _run(job, range(start_step, start_step + steps), workers, say)


def validation_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    transform: Transform,
    workers: int = 0,
    with_masks: bool = True,
    channels: int = 3,
    say: Callable[[str], None] | None = None,
) -> Generator[Loaded, None, None]:
    """Every picture once, in the dataset's order; the last batch may be smaller. keys: (0, index).

    Channels, workers, say and errors are those of `training_batches`.
    """
    job = _Job(dataset, batch_size, transform, with_masks, channels, None, None, range(batch_size))
    return _run(job, range(-(-len(dataset) // batch_size)), workers, say)


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to make any batch: calling it with a step makes one.

    seed: None goes through the dataset in order. part: the positions in the batch that are wanted.
    """

    dataset: Dataset
    batch_size: int
    transform: Transform
    with_masks: bool
    channels: int
    seed: int | None
    weights: np.ndarray | None
    part: range
    orders: dict[int, np.ndarray] = field(default_factory=dict)

    @cached_property
    def labels(self) -> dict[int, int]:
        return self.dataset.labels

    def __call__(self, step: int) -> Loaded | str:
        """The batch, or the one line that says why there is none."""
        try:
            return self._make(self.seed or 0, self.draws(step))
        except UserError as error:
            return str(error)

    def pictures(self, step: int) -> str:
        """The paths of a batch's pictures."""
        return ", ".join(str(self.dataset[index].path) for _, index in self.draws(step))

    def draws(self, step: int) -> list[tuple[int, int]]:
        """(Number of the draw, position in the dataset) of each picture."""
        draws = [step * self.batch_size + position for position in self.part]
        if self.seed is None:
            return [(draw, draw) for draw in draws if draw < len(self.dataset)]
        length = epoch_length(len(self.dataset), self.weights)
        return [(draw, int(self._order(self.seed, draw // length)[draw % length])) for draw in draws]

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        if epoch not in self.orders:
            if len(self.orders) == 2:  # a batch lies in two epochs at most, unless the dataset is smaller than it
                del self.orders[next(iter(self.orders))]
            weights = self.weights
            self.orders[epoch] = (
                order(seed, epoch, len(self.dataset)) if weights is None else weighted_order(seed, epoch, weights)
            )
        return self.orders[epoch]

    def _make(self, seed: int, draws: list[tuple[int, int]]) -> Loaded:
        samples, sizes = [], []
        for draw, index in draws:
            record = self.dataset[index]
            sample = load_sample(record, self.labels, self.with_masks, self.channels)
            try:
                samples.append(self.transform(sample, generator(seed, draw, "augment")))
            except ValueError as error:
                raise UserError(f"{record.path}: {error}; correct its labels in {self.dataset.path}") from error
            sizes.append((record.height, record.width))
        keys = np.array([(seed, draw) for draw, _ in draws], np.int64)
        batch, targets = collate(samples, keys, self.with_masks)
        return Loaded(batch, targets, [index for _, index in draws], sizes)


def _run(job: _Job, steps: range, workers: int, say: Callable[[str], None] | None) -> Generator[Loaded, None, None]:
    if workers == 0:
        batches = (job(step) for step in steps)
    else:
        what = "validation batch" if job.seed is None else "step"
        batches = in_workers(job, steps, workers, what, job.pictures, say or _warn)
    with closing(batches):
        for batch in batches:
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)
