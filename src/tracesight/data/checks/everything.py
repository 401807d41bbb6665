"""Everything that is looked at before anything is learned: pictures once, labels once, then sets as wholes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tracesight.data.checks.anchors import anchors
from tracesight.data.checks.box_size_odd import box_size_odd
from tracesight.data.checks.category_counts import category_counts
from tracesight.data.checks.category_names import category_names
from tracesight.data.checks.category_zero import category_zero
from tracesight.data.checks.crowds import crowds
from tracesight.data.checks.group_across import group_across
from tracesight.data.checks.label_check import Labels
from tracesight.data.checks.labels import looked_through
from tracesight.data.checks.mask_missing import mask_missing
from tracesight.data.checks.picture_across import picture_across
from tracesight.data.checks.picture_alike import alike_across, alike_within
from tracesight.data.checks.picture_channels import picture_channels
from tracesight.data.checks.picture_check import PictureCheck
from tracesight.data.checks.picture_missing import picture_missing
from tracesight.data.checks.picture_rotated import picture_rotated
from tracesight.data.checks.picture_size import picture_size
from tracesight.data.checks.picture_twice import picture_twice
from tracesight.data.checks.picture_unreadable import picture_unreadable
from tracesight.data.checks.survey import Objects, SetCheck, SetsCheck, Survey
from tracesight.data.checks.unlabelled import unlabelled
from tracesight.data.crew import Share, all_cores, crew
from tracesight.data.dataset import Dataset
from tracesight.data.facts import Facts, facts_of
from tracesight.data.finding import SEVERITIES, Finding, Kind
from tracesight.data.many import no_collection
from tracesight.data.record import Record, unpacked

PICTURE_CHECKS: tuple[PictureCheck, ...] = (picture_missing, picture_unreadable, picture_rotated, picture_size)
SET_CHECKS: tuple[SetCheck, ...] = (
    category_names, category_zero, category_counts, mask_missing, box_size_odd, anchors, unlabelled, crowds,
)  # fmt: skip
SETS_CHECKS: tuple[SetsCheck, ...] = (picture_twice, picture_across, alike_across, alike_within, group_across)

Progress = Callable[[str, int, int], None]

# Coordinates that overflow are outside of every picture, which a finding says; numpy need not.
_NUMBERS = np.errstate(over="ignore", invalid="ignore")
_CHUNK = 32  # records that a process is given at a time
_FEW = 512  # records for which no processes are started


@dataclass(frozen=True)
class Report:
    """What was found, and the sets put right. findings: errors first; of one severity in the order of the checks."""

    sets: dict[str, Dataset]
    findings: tuple[Finding, ...]

    def by_kind(self) -> list[tuple[Kind, list[Finding]]]:
        """The findings of each kind, errors first."""
        kinds: dict[Kind, list[Finding]] = {}
        for finding in self.findings:
            kinds.setdefault(finding.kind, []).append(finding)
        return list(kinds.items())

    def count(self, severity: str) -> int:
        """How many findings are of a severity."""
        return sum(finding.kind.severity == severity for finding in self.findings)


@_NUMBERS
def check(
    sets: Mapping[str, Dataset],
    found: Sequence[Finding] = (),
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    fresh: bool = False,
    mend_warnings: bool = False,
    notes: bool = True,
    channels: int | None = None,
) -> Report:
    """Look at every picture and label of `sets`, which are called train, val, test, or "all".

    Args:
        found: what reading the labels found (`formats.read_sets`).
        workers: processes; 0: this one; None: one a core.
        progress: called with ("pictures" or "labels", done, all of them).
        fresh: decode every picture, also where it is known from before.
        mend_warnings: the sets that come back are put right as far as `Kind.fix` goes, not only where there are errors.
        notes: also say what is only good to know; comparing all looks with each other takes time where there are many.
        channels: that every picture must have, as in `open_picture`; None: any.

    Raises PartialFailure where a process dies.
    """
    paths = {name: dataset.path_texts() for name, dataset in sets.items()}
    unique = list(dict.fromkeys(path for some in paths.values() for path in some))
    findings = list(found)
    _prepare(sets.values())
    with crew(all_cores() if workers is None else workers) as share:
        tell = partial(progress, "pictures") if progress is not None else None
        known = dict(zip(unique, facts_of(unique, share, tell, fresh)))
        facts = {name: [known[path] for path in some] for name, some in paths.items()}
        first: dict[tuple[Any, ...], str] = {}  # a set that is given twice is looked at once, under its first name
        called = {name: first.setdefault((dataset.path, *paths[name]), name) for name, dataset in sets.items()}
        parts = _look(
            {name: sets[name] for name in first.values()}, facts, share, partial(_examine, channels, mend_warnings),
            partial(progress, "labels") if progress is not None else None,
        )  # fmt: skip
    surveys = {name: _survey(name, dataset, facts[name], parts[called[name]]) for name, dataset in sets.items()}
    findings += (
        replace(finding, split=name) for name, some in parts.items() for part in some for finding in part.findings
    )
    told: set[tuple[str, ...]] = set()
    for survey in surveys.values():
        pictures = tuple(facts.sha256 for facts in survey.facts)
        for one in SET_CHECKS if pictures not in told else ():  # of a set that is another one that is told there
            findings += (replace(finding, split=survey.name) for finding in one(survey))
        told.add(pictures)
    among, dropped = _between(surveys, mend_warnings, notes)
    findings += among
    result = {name: survey.dataset.with_records(dict.fromkeys(dropped[name])) for name, survey in surveys.items()}
    different = {(f.kind.code, f.where, f.message): f for f in findings if notes or f.kind.severity != "note"}
    return Report(result, tuple(sorted(different.values(), key=lambda f: SEVERITIES.index(f.kind.severity))))


def _look(
    sets: Mapping[str, Dataset],
    facts: Mapping[str, Sequence[Facts]],
    share: Share,
    work: Callable[[Any], tuple[str, _Examined]],
    progress: Callable[[int, int], None] | None,
) -> dict[str, list[_Examined]]:
    """Look at every record of every set, all of them as one row of tasks, so that nobody waits between two sets."""
    parts: dict[str, list[_Examined]] = {name: [] for name in sets}
    done, total = 0, sum(map(len, sets.values()))
    tasks = (
        (name, Labels(dataset.categories, dataset.path, dataset.keypoints), chunk)
        for name, dataset in sets.items()
        for chunk in _chunks(dataset, facts[name])
    )
    for name, examined in share(work, tasks, many=total > _FEW):
        parts[name].append(examined)
        done += examined.count
        if progress is not None:
            progress(done, total)
    return parts


def _between(
    surveys: Mapping[str, Survey], mend_warnings: bool, notes: bool
) -> tuple[list[Finding], dict[str, set[int]]]:
    """What sets have with each other, and the positions of the records to leave out of each for it."""
    findings: list[Finding] = []
    dropped: dict[str, set[int]] = {name: set() for name in surveys}
    for several in SETS_CHECKS if notes else [look for look in SETS_CHECKS if look is not alike_within]:
        among, out = several(surveys)
        findings += among
        if mend_warnings or any(finding.kind.severity == "error" for finding in among):
            for name, indices in out.items():
                dropped[name] |= indices
    return findings, dropped


def _prepare(sets: Iterable[Dataset]) -> None:
    """Import what reads masks, where there are any, before processes are forked, and not once in each of them."""
    firsts = (dataset[0].annotations[:1] for dataset in sets if len(dataset))
    if any(a.segmentation is not None for some in firsts for a in some):
        importlib.import_module("faster_coco_eval.mask_api_new_cpp")


class _Examined(NamedTuple):
    """A few records.

    findings: what is wrong. changed: those that are others now, or gone (None), by position. labelled, groups: of those
    that are left. numbers (n, 8) int64, boxes (n, 4): their objects. count: of records.
    """

    findings: list[Finding]
    changed: dict[int, Record | None]
    labelled: list[bool]
    groups: list[str | None]
    numbers: np.ndarray
    boxes: np.ndarray
    count: int


def _survey(name: str, dataset: Dataset, facts: Sequence[Facts], seen: Sequence[_Examined]) -> Survey:
    """A set that was looked at picture by picture."""
    changed: dict[int, Record | None] = {}
    pictures: list[int] = []  # in the chunks before, for each object
    first = left = 0
    for examined in seen:
        for at, record in examined.changed.items():
            changed[first + at] = None if record is None else replace(record, split=dataset[first + at].split)
        pictures += [left] * len(examined.numbers)
        first, left = first + examined.count, left + len(examined.labelled)
    numbers = np.concatenate([examined.numbers for examined in seen])
    numbers[:, 0] += np.array(pictures, np.int64)
    picture, place, category, ignored, crowd, masked, height, width = numbers.T
    boxes, size = np.concatenate([examined.boxes for examined in seen]), np.stack((height, width), 1)
    objects = Objects(picture, place, category, boxes, ignored > 0, crowd > 0, masked > 0, size)
    return Survey(
        name,
        dataset.with_records(changed),
        [facts[index] for index in range(len(dataset)) if changed.get(index, 0) is not None],
        objects,
        np.array([value for examined in seen for value in examined.labelled], np.bool_),
        [value for examined in seen for value in examined.groups],
    )


def _chunks(dataset: Dataset, facts: Sequence[Facts]) -> Iterator[list[tuple[bytes, Facts]]]:
    count = min(_CHUNK, max(8, len(dataset) // 4))  # of few too every process shall have some
    for first in range(0, len(dataset), count):
        yield [(bytes(dataset.packed(i)), facts[i]) for i in range(first, min(first + count, len(dataset)))]


@_NUMBERS
@no_collection()
def _examine(
    channels: int | None, mend_warnings: bool, task: tuple[str, Labels, Sequence[tuple[bytes, Facts]]]
) -> tuple[str, _Examined]:
    """The checks of single pictures, then those of their labels."""
    (name, labels, chunk), findings = task, []
    before, kept = [unpacked(packed) for packed, _ in chunk], {}
    looks = (*PICTURE_CHECKS, *([partial(picture_channels, channels=channels)] if channels is not None else []))
    for at, (record, (_, facts)) in enumerate(zip(before, chunk)):
        for look in looks:
            record, found = look(record, facts)
            findings += found
            if record is None:
                break
        else:
            kept[at] = record

    def mend(found: Sequence[Finding]) -> bool:
        return mend_warnings or any(finding.kind.severity == "error" for finding in found)

    records, found, objects = looked_through(list(kept.values()), labels, mend)
    after: dict[int, Record | None] = dict(zip(kept, records))
    changed = {at: after.get(at) for at, record in enumerate(before) if after.get(at) is not record}
    place = np.arange(len(objects.record)) - np.repeat(objects.counts.cumsum() - objects.counts, objects.counts)
    columns = (objects.record, place, objects.category, objects.ignored, objects.crowd, objects.masked, *objects.size.T)
    labelled = [bool(count or record.labels) for count, record in zip(objects.counts.tolist(), records)]
    groups = [record.group for record in records]
    return name, _Examined(
        [*findings, *found], changed, labelled, groups, np.stack(columns, 1).astype(np.int64), objects.box, len(chunk)
    )
