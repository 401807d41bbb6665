"""What the checks of whole sets look at: every set with the facts of its pictures and its objects as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tracesight.data.dataset import Dataset
from tracesight.data.facts import Facts
from tracesight.data.finding import Change, Finding, Kind
from tracesight.data.record import Annotation, Record


@dataclass(frozen=True)
class Objects:
    """The annotations of a set, picture after picture.

    picture (n,) int64: position in the set. place (n,) int64: position among the annotations of its picture.
    category (n,) int64: position in `Dataset.category_ids`. box (n, 4) float64. ignored, crowd, masked (n,) bool.
    size (n, 2): (height, width) of the picture.
    """

    picture: np.ndarray
    place: np.ndarray
    category: np.ndarray
    box: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray
    masked: np.ndarray
    size: np.ndarray


@dataclass(frozen=True, eq=False)
class Survey:
    """One set, put right as far as single pictures go.

    facts: of its pictures, in its order. labelled (pictures,) bool: there is an annotation on it, or a category of the
    whole. groups: `Record.group` of each picture.
    """

    name: str
    dataset: Dataset
    facts: Sequence[Facts]
    objects: Objects
    labelled: np.ndarray
    groups: Sequence[str | None]

    @cached_property
    def counts(self) -> dict[int, int]:
        """Objects, or labels of whole pictures, by category id; what is ignored is left out."""
        ids = self.dataset.category_ids
        times = np.bincount(self.objects.category[~self.objects.ignored], minlength=len(ids))
        counts = dict(zip(ids, times.tolist()))
        if not self.objects.category.size:
            for record in self.dataset:
                for number in record.labels:
                    counts[number] += 1
        return counts

    @cached_property
    def digests(self) -> set[str]:
        """SHA-256 of the pictures that could be read."""
        return {facts.sha256 for facts in self.facts if facts.sha256}

    def object(self, row: int) -> tuple[Record, Annotation]:
        """The picture and annotation behind a row of `objects`."""
        record = self.dataset[int(self.objects.picture[row])]
        return record, record.annotations[int(self.objects.place[row])]

    def finding(self, kind: Kind, message: str) -> Finding:
        """Something about the set as a whole."""
        return Finding(kind, f"{self.dataset.path}: {self.name}", message, split=self.name)

    def of_picture(
        self, kind: Kind, index: int, message: str, change: Change | None = None, other: Path | None = None
    ) -> Finding:
        """Something about one picture. other: the one that it is compared with."""
        path: Path = self.dataset[index].path
        return Finding(kind, str(path), message, path, change=change, split=self.name, other=other)


def wholly(one: Survey, other: Survey) -> bool:
    """Whether all pictures of one of them are in the other too, byte for byte."""
    return bool(one.digests & other.digests) and (one.digests <= other.digests or other.digests <= one.digests)


# What was found, and which pictures of which set are left out for it: positions by name of the set.
SetsFound = tuple[Sequence[Finding], Mapping[str, set[int]]]
SetsCheck = Callable[[Mapping[str, Survey]], SetsFound]
SetCheck = Callable[[Survey], Sequence[Finding]]
