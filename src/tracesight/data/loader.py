"""Batches out of a dataset, the same whatever the number of workers and wherever a run is taken up again.

Draw d = step × batch_size + position decides everything about a picture: which one it is (position d mod n of the order
that epoch d // n was shuffled into) and every random number of its transform.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from tracesight.data.batch import Loaded, collate
from tracesight.data.random import generator, order
from tracesight.data.record import Dataset
from tracesight.data.sample import load_sample
from tracesight.data.transforms import Transform
from tracesight.errors import UserError

_order = lru_cache(maxsize=2)(order)  # a batch lies in two epochs at most, unless the dataset is smaller than it


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
) -> Iterator[Loaded]:
    """`steps` batches of shuffled pictures, the first of them that of step `start_step`, epoch after epoch.

    Bit for bit the same for any `workers`, and for a run taken up at any step. keys: (seed, draw). Raises UserError
    that names a picture which cannot be read, or an annotation's mask that does not fit it.
    """
    job = _Job(dataset, batch_size, transform, with_masks, seed)
    return _run(job, range(start_step, start_step + steps), workers)


def validation_batches(
    dataset: Dataset, *, batch_size: int, transform: Transform, workers: int = 0, with_masks: bool = True
) -> Iterator[Loaded]:
    """Every picture once, in the dataset's order; the last batch may be smaller. keys: (0, index)."""
    job = _Job(dataset, batch_size, transform, with_masks, None)
    return _run(job, range(-(-len(dataset) // batch_size)), workers)


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to make any batch: `[step]` makes one. seed: None goes through the dataset in order."""

    dataset: Dataset
    batch_size: int
    transform: Transform
    with_masks: bool
    seed: int | None

    @cached_property
    def labels(self) -> dict[int, int]:
        return self.dataset.labels

    def __getitem__(self, step: int) -> Loaded | str:
        """The batch, or the one line that says why there is none: torch would bury an exception in a traceback."""
        draws = range(step * self.batch_size, (step + 1) * self.batch_size)
        try:
            if self.seed is None:
                return self._make(0, [(d, d) for d in draws if d < len(self.dataset)])
            return self._make(self.seed, [(d, self._index(self.seed, d)) for d in draws])
        except UserError as error:
            return str(error)

    def _index(self, seed: int, draw: int) -> int:
        epoch, position = divmod(draw, len(self.dataset))
        return int(_order(seed, epoch, len(self.dataset))[position])

    def _make(self, seed: int, draws: list[tuple[int, int]]) -> Loaded:
        samples, sizes = [], []
        for draw, index in draws:
            record = self.dataset[index]
            sample = load_sample(record, self.labels, self.with_masks)
            try:
                samples.append(self.transform(sample, generator(seed, draw, "augment")))
            except ValueError as error:
                raise UserError(f"{record.path}: {error}; correct its labels in {self.dataset.path}") from error
            sizes.append((record.height, record.width))
        keys = np.array([(seed, draw) for draw, _ in draws], np.int64)
        batch, targets = collate(samples, keys, self.with_masks)
        return Loaded(batch, targets, [index for _, index in draws], sizes)


def _run(job: _Job, steps: range, workers: int) -> Iterator[Loaded]:
    batches = (job[step] for step in steps) if workers == 0 else _in_workers(job, steps, workers)
    for batch in batches:
        if isinstance(batch, str):
            raise UserError(batch)
        yield batch


def _in_workers(job: _Job, steps: range, workers: int) -> Iterator[Loaded | str]:
    """The same in other processes. Each makes whole batches, and torch hands them over in order of the steps."""
    import torch
    from torch.utils.data import DataLoader

    return iter(
        DataLoader(
            job,  # type: ignore[arg-type]
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            generator=torch.Generator(),  # or the start of the workers would draw from torch's global generator
        )
    )


def _as_it_is(loaded: Loaded | str) -> Loaded | str:
    return loaded
