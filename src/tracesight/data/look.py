"""One look at every record of a set, for its manifest: what labels say, without the files of the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracesight.data.dataset import Dataset
from tracesight.data.leaves import labels_digest
from tracesight.data.record import FIELDS_OF_ANNOTATION, Plain, Record
from tracesight.lineage.manifest import ALL
from tracesight.scene.mask import Mask

_CATEGORY, _SHAPE, _ANNOTATOR = map(FIELDS_OF_ANNOTATION.index, ("category_id", "segmentation", "annotator"))


@dataclass
class Work:
    """Of one annotator. times: of each object, where the labels say it."""

    objects: int = 0
    pictures: int = 0
    times: list[str] = field(default_factory=list)

    def add(self, other: Work) -> None:
        self.objects += other.objects
        self.pictures += other.pictures
        self.times += other.times


@dataclass
class Counts:
    """Of one split. pictures, objects: by category, pictures that show any of it, and objects."""

    records: int = 0
    pictures: Counter[int] = field(default_factory=Counter)
    objects: Counter[int] = field(default_factory=Counter)


@dataclass
class Seen:
    """What one look at records leaves: the facts of files come later.

    rows: keyword arguments of a PictureRow. abouts: the label file's word for the sensor of each picture. labels: label
    files, each once. masks: whether there are any that are not polygons. workers: by name. tools: objects by tool.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    abouts: list[str | None] = field(default_factory=list)
    labels: dict[Path, None] = field(default_factory=dict)
    masks: bool = False
    workers: dict[str, Work] = field(default_factory=dict)
    tools: Counter[str] = field(default_factory=Counter)
    splits: dict[str, Counts] = field(default_factory=dict)


def look(part: tuple[str, Dataset]) -> Seen:
    """Look at every record of (the name of a split, some of its records)."""
    split, dataset = part
    seen = Seen()
    every: list[int] = []  # a category for each object
    once: list[int] = []  # and for each picture that shows any of it
    for record in dataset:
        plain = record.plain_annotations()
        seen.abouts.append(record.sensor)
        add_label_file(record, seen.labels)
        seen.masks = seen.masks or has_masks(plain)
        row = {"labels": labels_digest(record), "objects": len(plain)}
        if workers := _count_work(plain, seen):  # pydantic takes its time for each field
            row["annotators"] = workers
        if split != ALL:
            row["split"] = split
        for key in ("licence", "source", "group", "captured_at"):
            if (value := getattr(record, key)) is not None:
                row[key] = value
        seen.rows.append(row)
        here = [values[_CATEGORY] for values in plain]
        every += here
        once += {*here, *record.labels}
    seen.splits[split] = Counts(len(dataset), Counter(once), Counter(every))
    return seen


def joined(looks: Iterable[Seen]) -> Seen:
    """All of them as one look, in their order."""
    whole = Seen()
    for one in looks:
        whole.rows += one.rows
        whole.abouts += one.abouts
        whole.labels |= one.labels
        whole.masks |= one.masks
        whole.tools.update(one.tools)
        for name, work in one.workers.items():
            whole.workers.setdefault(name, Work()).add(work)
        for split, counts in one.splits.items():
            known = whole.splits.setdefault(split, Counts())
            known.records += counts.records
            known.pictures.update(counts.pictures)
            known.objects.update(counts.objects)
    return whole


def add_label_file(record: Record, labels: dict[Path, None]) -> None:
    """Add the file that holds the labels of this picture alone, where there is one."""
    if record.label_file is not None and record.label_file not in labels and record.label_file.is_file():
        labels[record.label_file] = None


def has_masks(plain: Sequence[Plain]) -> bool:
    """Whether any of these objects has a mask that is not polygons."""
    return not {bytes, Mask}.isdisjoint([type(values[_SHAPE]) for values in plain])


def _count_work(plain: Sequence[Plain], seen: Seen) -> tuple[str, ...]:
    """Who drew objects on a picture."""
    here: set[str] = set()
    for values in plain:
        if len(values) <= _ANNOTATOR:
            continue
        annotator, tool, time = values[_ANNOTATOR : _ANNOTATOR + 3]
        if tool is not None:
            seen.tools[tool] += 1
        if annotator is not None:
            work = seen.workers.setdefault(annotator, Work())
            work.objects += 1
            work.times += [time] if time else []
            here.add(annotator)
    for name in here:
        seen.workers[name].pictures += 1
    return tuple(here)
