"""Batches out of a dataset, the same whatever the number of workers or ranks and wherever a run is taken up again.

Draw d = step × batch_size + position decides everything about a picture: which one it is (position d mod L of the order
that epoch d // L was shuffled into, L draws being an epoch) and every random number of its transform. What becomes of
the records that were drawn is for a `Make` to say: `DetectionBatches` here, `image_batch.ImageBatches`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracesight.data.batch import Batch, Loaded, Targets, collate
from tracesight.data.dataset import Dataset
from tracesight.data.points import Keypoints
from tracesight.data.random import generator, order
from tracesight.data.record import Record
from tracesight.data.sample import load_sample
from tracesight.data.sampling import epoch_length, weighted_order
from tracesight.data.transforms import Transform
from tracesight.data.workers import in_workers
from tracesight.errors import UserError

# (records, keys (N, 2): seed and draw number of each) → the batch, and what is to be learned from it.
Make = Callable[[Sequence[Record], np.ndarray], tuple[Batch, Any]]


def shuffled_batches(
    dataset: Dataset,
    make: Make,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    steps: int,
    workers: int = 0,
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
        make: a batch of records and their keys; can be pickled, unless workers are forked.
        batch_size: of the whole step, over all ranks.
        weights: (n,) how often each picture is drawn per epoch, on average, as `sampling.picture_weights` gives them;
            None: once.
        rank, ranks: this is the part of rank `rank` (from 0) of `ranks`: positions [rank × batch_size / ranks,
            (rank + 1) × batch_size / ranks) of each batch. The parts in order are the batch, except for padding.
        say: told in one line about a worker that was started again; None: a RuntimeWarning.

    Raises:
        UserError: at once if ranks cannot share batch_size evenly; while iterating what `make` raises.
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
    job = _Job(dataset, batch_size, make, seed, weights, range(rank * part, (rank + 1) * part))
    return _run(job, range(start_step, start_step + steps), workers, say)


def ordered_batches(
    dataset: Dataset, make: Make, *, batch_size: int, workers: int = 0, say: Callable[[str], None] | None = None
) -> Generator[Loaded, None, None]:
    """Every picture once, in the dataset's order; the last batch may be smaller. keys: (0, index).

    Make, workers, say and errors are those of `shuffled_batches`.
    """
    job = _Job(dataset, batch_size, make, None, None, range(batch_size))
    return _run(job, range(-(-len(dataset) // batch_size)), workers, say)


def training_batches(
    dataset: Dataset,
    *,
    transform: Transform,
    with_masks: bool = True,
    channels: int = 3,
    proposals: Mapping[Path, np.ndarray] | None = None,
    keypoints: int = 0,
    **order_of_draws: Any,
) -> Generator[Loaded, None, None]:
    """`shuffled_batches` of pictures and their objects, made by `DetectionBatches`; the rest are its arguments."""
    make = DetectionBatches(
        dataset.labels, dataset.path, transform, with_masks, channels, proposals, keypoints, dataset.keypoints
    )  # fmt: skip
    return shuffled_batches(dataset, make, **order_of_draws)


def validation_batches(
    dataset: Dataset,
    *,
    transform: Transform,
    with_masks: bool = True,
    channels: int = 3,
    proposals: Mapping[Path, np.ndarray] | None = None,
    keypoints: int = 0,
    **order_of_draws: Any,
) -> Generator[Loaded, None, None]:
    """`ordered_batches` of pictures and their objects, likewise."""
    make = DetectionBatches(
        dataset.labels, dataset.path, transform, with_masks, channels, proposals, keypoints, dataset.keypoints
    )  # fmt: skip
    return ordered_batches(dataset, make, **order_of_draws)


@dataclass(frozen=True, eq=False)
class DetectionBatches:
    """Pictures with their objects, each transformed by its own random numbers, padded to one size.

    labels: detector label by category id. source: what holds the labels. channels: of the pictures, as in
    `open_picture`. proposals: boxes (p, 4) of each picture, by its path. keypoints: points of an object that are
    learned, 0: none. points: what they are called, by category. Raises UserError if a picture cannot be read, an
    annotation's mask does not fit it, or an object has more points than are learned, naming it.
    """

    labels: Mapping[int, int]
    source: Path
    transform: Transform
    with_masks: bool = True
    channels: int = 3
    proposals: Mapping[Path, np.ndarray] | None = None
    keypoints: int = 0
    points: Mapping[int, Keypoints] = field(default_factory=dict)

    def __call__(self, records: Sequence[Record], keys: np.ndarray) -> tuple[Batch, Targets]:
        samples = []
        for record, (seed, draw) in zip(records, keys.tolist()):
            sample = load_sample(
                record, self.labels, self.with_masks, self.channels, self.keypoints, self.points
            )  # fmt: skip
            if self.proposals is not None:
                sample = replace(sample, proposals=self.proposals[record.path])
            try:
                samples.append(self.transform(sample, generator(seed, draw, "augment")))
            except ValueError as error:
                raise UserError(f"{record.path}: {error}; correct its labels in {self.source}") from error
        return collate(samples, keys, self.with_masks)


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to make any batch: calling it with a step makes one.

    seed: None goes through the dataset in order. part: the positions in the batch that are wanted.
    """

    dataset: Dataset
    batch_size: int
    make: Make
    seed: int | None
    weights: np.ndarray | None
    part: range
    orders: dict[int, np.ndarray] = field(default_factory=dict)

    def __call__(self, step: int) -> Loaded | str:
        """The batch, or the one line that says why there is none."""
        draws = self.draws(step)
        records = [self.dataset[index] for _, index in draws]
        keys = np.array([(self.seed or 0, draw) for draw, _ in draws], np.int64)
        try:
            batch, targets = self.make(records, keys)
        except UserError as error:
            return str(error)
        sizes = [(record.height, record.width) for record in records]
        return Loaded(batch, targets, [index for _, index in draws], sizes)

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
