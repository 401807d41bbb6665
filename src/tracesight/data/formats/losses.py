"""What a set says that a format has no place for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set

from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError

# What there is to say: of an object, of a picture, of a set and its categories.
OF_OBJECTS: dict[str, Callable[[Annotation], bool]] = {
    "objects": lambda a: True,
    "masks of objects": lambda a: a.segmentation is not None,
    "the mark of crowds": lambda a: a.crowd,
    "the mark of difficult objects": lambda a: a.difficult,
    "the mark of truncated objects": lambda a: a.truncated,
    "keypoints of objects": lambda a: a.keypoints is not None,
    "who drew an object, with what and when": lambda a: not a.annotator is a.tool is a.time is None,
}
OF_PICTURES: dict[str, Callable[[Record], bool]] = {
    "categories of a picture as a whole": lambda r: bool(r.labels),
    "the licence of a picture": lambda r: r.licence is not None,
    "the source of a picture": lambda r: r.source is not None,
    "the sensor of a picture": lambda r: r.sensor is not None,
    "the time of a picture": lambda r: r.captured_at is not None,
    "the group of a picture": lambda r: r.group is not None,
    "which categories were looked for": lambda r: r.absent is not None or bool(r.not_exhaustive),
}
OF_SETS: dict[str, Callable[[Dataset], int]] = {
    "names of keypoints": lambda d: len(d.keypoints),
    "the skeleton of keypoints": lambda d: sum(bool(points.skeleton) for points in d.keypoints.values()),
    "the category above a category": lambda d: len(d.parents),
    "what is said of the set as a whole": lambda d: bool(d.about),
}


def losses(sets: Mapping[str, Dataset], format: str, kept: Set[str], named: bool = False) -> list[str]:
    """One sentence for each thing that `sets` say and that is not among `kept`, with how often it is said.

    named: the format knows categories by their names alone, so that it numbers them anew, and only those of objects.
    """
    counts: Counter[str] = Counter()
    for dataset in sets.values():
        counts.update(_said(dataset))
    # Where there is no place for objects at all, there is none for what they have, and that is not worth a word.
    order = [*(OF_OBJECTS if "objects" in kept else ("objects",)), *OF_PICTURES, *OF_SETS]
    lines = [
        f"{format} has no place for {what}: {counts[what]} left out"
        for what in order
        if counts[what] and what not in kept
    ]
    return [*lines, *(_lost_numbers(sets, format) if named else ())]


def categories_of(sets: Mapping[str, Dataset]) -> dict[int, str]:
    """The categories of all sets, ascending. Raises UserError where an id has another name in another set."""
    every: dict[int, str] = {}
    for dataset in sets.values():
        for number, name in dataset.categories.items():
            if every.setdefault(number, name) != name:
                raise UserError(f"{dataset.path}: category {number} is {name!r}, but {every[number]!r} in another set")
    return dict(sorted(every.items()))


def counted(count: int, sentence: str) -> list[str]:
    """The sentence with the count in its braces, unless that is 0."""
    return [sentence.format(count)] if count else []


def _lost_numbers(sets: Mapping[str, Dataset], format: str) -> Iterator[str]:
    every = categories_of(sets)
    used = {
        number for d in sets.values() for record in d
        for number in (*record.labels, *(a.category_id for a in record.annotations))
    }  # fmt: skip
    unused = sorted(name for number, name in every.items() if number not in used)
    if unused:
        shown = ", ".join(unused[:3]) + (", …" if len(unused) > 3 else "")
        yield f"{format} has no place for categories without objects: {len(unused)} left out ({shown})"
    names = sorted({every[number] for number in used})
    if {number: every[number] for number in used} != dict(enumerate(names, start=1)):
        yield f"{format} has no place for category ids: readers number the {len(names)} sorted names"


def _said(dataset: Dataset) -> Iterator[str]:
    for what, count in OF_SETS.items():
        yield from [what] * count(dataset)
    for record in dataset:
        yield from (what for what, says in OF_PICTURES.items() if says(record))
        for annotation in record.annotations:
            yield from (what for what, says in OF_OBJECTS.items() if says(annotation))
