"""Labelled pictures for a training, read and checked whole before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tracesight.data.checks import check_masks, check_pictures
from tracesight.data.formats import read_splits
from tracesight.data.manifest import roots_of_set
from tracesight.data.record import Dataset
from tracesight.evaluation.frequency import training_pictures
from tracesight.lineage.record import split_record
from tracesight.training.progress import Display
from tracesight.training.ranks import ALONE, Ranks, of_first

Data = str | Path | Mapping[str, str | Path]


@dataclass(frozen=True)
class Splits:
    """What a training learns from and what it is measured on.

    Attributes:
        train: labelled pictures, at least one object among them.
        val: None if there is nothing to measure on.
        notes: what was mended or decided on reading, and warnings; all of them belong in the report.
    """

    train: Dataset
    val: Dataset | None
    notes: tuple[str, ...]

    @property
    def named(self) -> dict[str, Dataset]:
        """The splits that there are, by name."""
        return {"train": self.train, **({"val": self.val} if self.val is not None else {})}

    @cached_property
    def train_pictures(self) -> dict[int, int]:
        """Category id → pictures of train that have it: evaluation tells rare from frequent by it."""
        return training_pictures(self.train)

    def record(self) -> dict[str, dict[str, Any]]:
        """The rows of the run record: split → digest, counts and roots. Reads every picture file that it must."""
        rows = {}
        for name, dataset in self.named.items():
            objects = sum(len(record.annotations) for record in dataset)
            counts = self.train_pictures if name == "train" else None
            rows[name] = split_record(dataset.digest, len(dataset), objects, counts, roots_of_set(dataset))
        return rows


def read_labelled(
    data: Data,
    seed: int,
    *,
    masks: bool,
    channels: int,
    display: Display,
    ranks: Ranks = ALONE,
    format: str | None = None,
    allow: Sequence[str] = (),
) -> Splits:
    """Read and check the data of a detector.

    Args:
        data: a folder, a label file, or {"train": …, "val": …}.
        seed: of the split that is made where there is no val.
        masks: every object needs a mask.
        channels: of every picture, as in `open_picture`.
        display: is told every note.
        ranks: all of them read the labels, the first one checks.
        format: how the data is labelled; None: recognised.
        allow: codes of errors that are put right or left out, not refused.

    Raises:
        UserError: labels or pictures that cannot be read or do not fit each other, no object to learn from, an object
            without the mask that it needs.
    """
    train, val, notes = read_splits(data, seed, format, allow)
    splits = Splits(train, val, tuple(dict.fromkeys(notes)))
    for note in splits.notes:
        display.say(f"note: {note}")
    of_first(ranks, lambda: _check(splits, masks, channels, display))
    return splits


def _check(splits: Splits, masks: bool, channels: int, display: Display) -> None:
    for name, dataset in splits.named.items():
        if masks:
            check_masks(dataset)
        with display.job(f"check {name}", len(dataset)) as job:
            check_pictures(dataset, lambda done, _, job=job: job.advance(), channels)
