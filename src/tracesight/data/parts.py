"""A set in parts that are alike, of which none shows what another does: train, val and test, or folds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracesight.data.crew import all_cores, crew
from tracesight.data.dataset import Dataset
from tracesight.data.facts import facts_of
from tracesight.data.formats import writer_of
from tracesight.data.formats.placing import written_whole
from tracesight.data.phash import NEAR, near_pairs
from tracesight.data.record import Record
from tracesight.data.stratify import stratify
from tracesight.data.units import groups_of, units_of
from tracesight.errors import UserError
from tracesight.lineage.manifest import canonical, pictures_root
from tracesight.lineage.merkle import leaf_hash, root
from tracesight.scene.values import write_whole


@dataclass(frozen=True)
class Split:
    """A set in parts.

    dataset: all of it. names: of the parts. part: (n,) int64, of each picture. unit: (n,) int64, the first of the
    pictures that it stays together with. digests: SHA-256 of each picture. notes: what could not be kept, one sentence
    each.
    """

    dataset: Dataset
    names: tuple[str, ...]
    part: np.ndarray
    unit: np.ndarray
    digests: tuple[str, ...]
    notes: tuple[str, ...]

    def sets(self) -> dict[str, Dataset]:
        """The parts by name."""
        return {name: self.dataset.subset(np.flatnonzero(self.part == at)) for at, name in enumerate(self.names)}

    def folds(self) -> list[dict[str, Dataset]]:
        """For each part: it as val, all others as train."""
        both = [(np.flatnonzero(self.part != at), np.flatnonzero(self.part == at)) for at in range(len(self.names))]
        return [{"train": self.dataset.subset(rest), "val": self.dataset.subset(held)} for rest, held in both]


def split_dataset(
    dataset: Dataset,
    shares: Mapping[str, float],
    seed: int = 0,
    *,
    group_by: str | None = None,
    near: int | None = NEAR,
    progress: Callable[[int, int], None] | None = None,
) -> Split:
    """Divide a set so that every part has its share of the pictures, of each class, and of the objects of each class.

    Pictures that belong together stay together: of one group, byte for byte the same, or alike to the eye. The same
    pictures, labels, groups and seed give the same parts, whatever files are called and in whatever order they stand.

    Args:
        shares: of the pictures, by name of the part; above 0, with the sum 1.
        group_by: as `units.groups_of` has it.
        near: bits of a perceptual hash that may differ where pictures count as alike; None: they are not compared.
        progress: called with (pictures decoded, pictures). Those that `data check` has seen are not decoded again.

    Raises UserError: fewer pictures that are not bound together than parts; a picture file that cannot be read.
    """
    records = list(dataset)
    groups = groups_of(records, group_by)
    pairs: list[tuple[int, int, int]] = []
    digests: tuple[str, ...] = ()
    blind = 0
    if near is not None:
        with crew(all_cores()) as share:
            facts = facts_of([record.path for record in records], share, progress)
        pairs = near_pairs([fact.phash or None for fact in facts], near)
        digests = tuple(fact.sha256 for fact in facts)
        blind = sum(not fact.phash for fact in facts)
    if not all(digests) or near is None:
        digests = dataset.picture_digests
    unit = units_of(len(records), [groups, digests], ((i, j) for i, j, _ in pairs))
    first, inverse = np.unique(unit, return_inverse=True)
    if len(first) < len(shares):
        bound = "pictures" if len(first) == len(records) else "groups of pictures that belong together"
        raise UserError(
            f"{dataset.path}: {len(first)} {bound}, which {len(shares)} parts cannot share; take fewer parts"
        )
    held = _held(records, inverse, len(first))
    part = stratify(held, list(shares.values()), _ranks(seed, digests, inverse, len(first)))[inverse]
    found = Split(dataset, tuple(shares), part, unit, digests, ())
    unseen = [f"{blind} pictures cannot be decoded, so that nothing tells what looks like them"] if blind else []
    return replace(found, notes=(*unseen, *_notes(found, records, shares, groups)))


def merged(sets: Mapping[str, Dataset], path: Path) -> Dataset:
    """All sets as one, each file once; ids are kept where they are unique.

    Raises UserError: a category id that means two things.
    """
    categories: dict[int, str] = {}
    for dataset in sets.values():
        for number, name in dataset.categories.items():
            if categories.setdefault(number, name) != name:
                raise UserError(f"{dataset.path}: category {number} is {name!r}, but {categories[number]!r} elsewhere")
    by_path: dict[Path, Record] = {}
    for dataset in sets.values():
        for record in dataset:
            by_path.setdefault(record.path, record)
    unique = len({record.id for record in by_path.values()}) == len(by_path)
    records = (
        replace(record, id=record.id if unique else number, split=None)
        for number, record in enumerate(by_path.values(), start=1)
    )
    notes = list(dict.fromkeys(note for dataset in sets.values() for note in dataset.notes))
    again = sum(map(len, sets.values())) - len(by_path)
    if again:
        notes.append(f"{again} pictures stand in two sets; each is taken once, with the labels of the first")
    return Dataset.of(
        records, categories, path, notes, any(dataset.numbered for dataset in sets.values()),
        {i: points for dataset in sets.values() for i, points in dataset.keypoints.items()},
        {i: name for dataset in sets.values() for i, name in dataset.parents.items()},
        {key: text for dataset in reversed([*sets.values()]) for key, text in dataset.about.items()},
    )  # fmt: skip


def description(split: Split, seed: int, shares: Mapping[str, float], near: int | None) -> dict[str, Any]:
    """What `split.json` holds: how the parts came about, what is in them, and where each picture went."""
    rows = [(record.name, split.names[at]) for record, at in zip(split.dataset, split.part.tolist())]
    leaves = (leaf_hash(canonical([name, digest])) for (_, name), digest in zip(rows, split.digests))
    units = {first: number for number, first in enumerate(dict.fromkeys(split.unit.tolist()), start=1)}
    return {
        "format": "tracesight split",
        "version": 1,
        "seed": seed,
        "shares": {name: round(share, 6) for name, share in shares.items()},
        "near": near,
        "units": len(units),
        "roots": {"pictures": pictures_root(split.digests), "split": root(leaves)},
        "notes": list(split.notes),
        "parts": {name: _counts(part) for name, part in split.sets().items()},
        "pictures": [
            {"name": name, "sha256": digest, "part": part, "unit": units[unit]}
            for (name, part), digest, unit in zip(rows, split.digests, split.unit.tolist())
        ],
    }


def write_split(split: Split, folder: Path, document: Mapping[str, Any], format: str | None, folds: bool) -> list[str]:
    """Write a new folder with `split.json` and, where `format` is given, the parts, or a folder for each fold.

    Returns what the format cannot say, one sentence each. Raises UserError as `formats.write_sets` does.
    """
    write = None if format is None else writer_of(format)
    lost: dict[str, None] = {}
    with written_whole(folder) as whole:
        if write is not None and folds:
            for number, sets in enumerate(split.folds(), start=1):
                (whole / f"fold{number}").mkdir()
                lost |= dict.fromkeys(write(sets, whole / f"fold{number}"))
        elif write is not None:
            lost |= dict.fromkeys(write(split.sets(), whole))
        rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in document["pictures"])
        head = json.dumps({**document, "pictures": []}, indent=1, ensure_ascii=False)
        write_whole(whole / "split.json", head.removesuffix("[]\n}") + f"[\n  {rows}\n ]\n}}\n")
    return list(lost)


def _counts(dataset: Dataset) -> dict[str, Any]:
    objects: Counter[int] = Counter()
    pictures: Counter[int] = Counter()
    for record in dataset:
        objects.update(a.category_id for a in record.annotations)
        pictures.update({*(a.category_id for a in record.annotations), *record.labels})
    by_name = {
        name: {"pictures": pictures[number], "objects": objects[number]} for number, name in dataset.categories.items()
    }
    return {"pictures": len(dataset), "objects": objects.total(), "categories": by_name}


def _held(records: Sequence[Record], inverse: np.ndarray, units: int) -> list[dict[int, float]]:
    """Of each unit the pictures, the pictures with each class, and the objects of each class."""
    held: list[Counter[int]] = [Counter() for _ in range(units)]
    columns: dict[tuple[str, int], int] = {}
    for record, at in zip(records, inverse):
        objects = Counter(a.category_id for a in record.annotations)
        held[at][0] += 1
        for number in {*objects, *record.labels}:
            held[at][columns.setdefault(("pictures", number), len(columns) + 1)] += 1
        for number, count in objects.items():
            held[at][columns.setdefault(("objects", number), len(columns) + 1)] += count
    return [dict(unit) for unit in held]


def _ranks(seed: int, digests: Sequence[str], inverse: np.ndarray, units: int) -> list[int]:
    """Keyed by the seed and the content of the pictures."""
    keys = [b"\xff"] * units
    for digest, at in zip(digests, inverse):
        keys[at] = min(keys[at], hashlib.blake2b(f"{seed}:{digest}".encode(), digest_size=16).digest())
    ranks = [0] * units
    for rank, at in enumerate(sorted(range(units), key=lambda unit: keys[unit])):
        ranks[at] = rank
    return ranks


def _notes(
    split: Split, records: Sequence[Record], shares: Mapping[str, float], groups: Sequence[str | None]
) -> Iterator[str]:
    """What could not be kept."""
    sizes = Counter(split.unit.tolist())
    largest = max(sizes.values())
    if largest > max(1, 0.5 * min(shares.values()) * len(records)):
        yield f"{largest} of {len(records)} pictures belong together, which leaves little to choose"
    for name, share, count in zip(split.names, shares.values(), np.bincount(split.part, minlength=len(shares))):
        if abs(count - share * len(records)) > max(1.0, 0.05 * share * len(records)):
            yield f"{name} has {count} pictures where {share * len(records):.0f} were asked for"
    parts: dict[int, set[int]] = {number: set() for number in split.dataset.categories}
    shown: Counter[int] = Counter()
    for record, at in zip(records, split.part.tolist()):
        for number in {*(a.category_id for a in record.annotations), *record.labels}:
            parts[number].add(at)
            shown[number] += 1
    for number, there in parts.items():
        lacking = [name for at, name in enumerate(split.names) if at not in there]
        if lacking and shown[number]:
            name, where = split.dataset.categories[number], " and ".join(lacking)
            yield f"{where} {'has' if len(lacking) == 1 else 'have'} no {name}: {shown[number]} pictures show one"
