"""What a set says that a format has no place for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set

from tracesight.data.record import Annotation, Dataset, Record

# What there is to say: of an object, of a picture, of a category.
OF_OBJECTS: dict[str, Callable[[Annotation], bool]] = {
    "masks of objects": lambda a: a.segmentation is not None,
    "crowds": lambda a: a.crowd,
    "objects marked as difficult": lambda a: a.difficult,
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
OF_CATEGORIES: dict[str, Callable[[Dataset], int]] = {
    "names of keypoints": lambda d: len(d.keypoints),
    "the category above a category": lambda d: len(d.parents),
}


def losses(sets: Mapping[str, Dataset], format: str, kept: Set[str]) -> list[str]:
    """One sentence for each thing that `sets` say and that is not among `kept`, with how often it is said."""
    counts: Counter[str] = Counter()
    for dataset in sets.values():
        counts.update(_said(dataset))
    order = [*OF_OBJECTS, *OF_PICTURES, *OF_CATEGORIES]
    return [
        f"{format} has no place for {what}: {counts[what]} left out"
        for what in order
        if counts[what] and what not in kept
    ]


def _said(dataset: Dataset) -> Iterator[str]:
    for what, count in OF_CATEGORIES.items():
        yield from [what] * count(dataset)
    for record in dataset:
        yield from (what for what, says in OF_PICTURES.items() if says(record))
        for annotation in record.annotations:
            yield from (what for what, says in OF_OBJECTS.items() if says(annotation))
