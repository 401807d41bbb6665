"""Manifests of labelled pictures: files are read here, `lineage/manifest.py` makes rows and roots of what they hold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from tracesight import __version__
from tracesight.data.digests import Facts, file_facts
from tracesight.data.exif import Exif
from tracesight.data.finding import Finding
from tracesight.data.leaves import labels_leaf
from tracesight.data.record import Dataset, Record
from tracesight.errors import UserError
from tracesight.lineage.manifest import (
    ALL,
    Annotator,
    Category,
    Count,
    FileRow,
    Manifest,
    PictureRow,
    Sensor,
    SplitCount,
    count_licences,
    count_sensors,
    picture_leaf,
    roots_of,
)
from tracesight.lineage.merkle import leaf_hash, root
from tracesight.lineage.pseudonym import pseudonym

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Asked:
    """What a manifest shall say beside what is in the files, and how much of persons and devices.

    title, controller, licence, source: of the set as a whole. key: secret that pseudonyms are made with; None: the root
    of pictures, which is known. names, serial, location: as they are.
    """

    title: str | None = None
    controller: str | None = None
    licence: str | None = None
    source: str | None = None
    key: bytes | None = None
    names: bool = False
    serial: bool = False
    location: bool = False


@dataclass
class _Work:
    """Of one annotator."""

    objects: int = 0
    pictures: int = 0
    times: list[str] = field(default_factory=list)


@dataclass
class _Tally:
    """What is counted while rows are made. workers: by what annotators are called. tools: objects by tool."""

    called: Callable[[str], str]
    workers: dict[str, _Work] = field(default_factory=dict)
    tools: Counter[str] = field(default_factory=Counter)
    splits: dict[str, SplitCount] = field(default_factory=dict)


def manifest_of(
    sets: Mapping[str, Dataset],
    base: Path,
    asked: Asked = Asked(),
    findings: Iterable[Finding] = (),
    *,
    processes: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """The manifest of the sets of one data folder, by split ("all" where it is not divided).

    base: the folder that names are relative to. findings: what was wrong with the labels. processes, progress: as
    `file_facts` has them. Raises UserError: a file that cannot be read.
    """
    paths, labels = files_of(sets)
    private = asked.serial or asked.location or asked.key is not None
    facts = file_facts([*paths, *labels], private=private, processes=processes, progress=progress)
    top = root(picture_leaf(one.sha256) for one in facts[: len(paths)])
    tally, named = _Tally(_called(asked, bytes.fromhex(top))), partial(relative_name, os.path.abspath(base))  # noqa: PTH100
    rest = iter(facts)
    rows = [row for split, dataset in sets.items() for row in _pictures(split, dataset, rest, named, asked, tally)]
    files = [FileRow(name=named(os.fspath(p)), sha256=f.sha256, bytes=f.bytes) for p, f in zip(labels, rest)]
    pictures = tuple(sorted(rows, key=lambda row: (row.name, row.split or "")))
    label_rows = tuple(sorted(files, key=lambda row: row.name))
    table = sorted({pair for dataset in sets.values() for pair in dataset.categories.items()})
    categories = tuple(Category(id=number, name=text) for number, text in table)
    return Manifest(
        made_by=f"tracesight {__version__}", title=asked.title, controller=asked.controller, licence=asked.licence,
        source=asked.source, roots=roots_of(pictures, label_rows, categories), pseudonyms=_pseudonyms(asked),
        splits=tally.splits, categories=categories, licences=count_licences(pictures),
        sensors=count_sensors(pictures), annotators=_annotators(tally.workers), tools=dict(sorted(tally.tools.items())),
        findings=dict(sorted(Counter(finding.kind.code for finding in findings).items())), label_files=label_rows,
        pictures=pictures,
    )  # fmt: skip


def roots_of_set(dataset: Dataset) -> dict[str, str]:
    """The roots of pictures and labels of one set, as its own manifest would have them; from the cache where it can."""
    facts = file_facts([record.path for record in dataset])
    table = [Category(id=number, name=name) for number, name in dataset.categories.items()]
    leaves = (leaf_hash(labels_leaf(record, one.sha256)).hex() for record, one in zip(dataset, facts))
    rows = [PictureRow(name="", sha256=f.sha256, bytes=f.bytes, labels=leaf) for f, leaf in zip(facts, leaves)]
    roots = roots_of(rows, (), table)
    return {"pictures": roots.pictures, "labels": roots.labels}


def verify(
    manifest: Manifest, base: Path, names: Iterable[str] = (), progress: Progress | None = None
) -> dict[str, list[str]]:
    """The files that are "changed", "missing" or "added" since a manifest was made, by name.

    base: the folder that names are relative to. names: of the files that the data consists of now. Every file is read,
    and the cache is not asked. Raises UserError: the manifest names files outside the folder.
    """
    known = manifest.by_name
    outside = next((name for name in known if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if outside is not None:
        raise UserError(f"the manifest names {outside}, which lies outside the data; it is not to be trusted")
    there = [name for name in known if (base / name).is_file()]
    facts = file_facts([base / name for name in there], kept=False, processes=True, progress=progress)
    return {
        "changed": sorted(name for name, one in zip(there, facts) if one.sha256 != known[name].sha256),
        "missing": sorted(known.keys() - set(there)),
        "added": sorted(set(names) - known.keys()),
    }


def base_of(data: Path, sets: Mapping[str, Dataset]) -> Path:
    """What names are relative to: the data folder; of a label file the folder that holds it and all its pictures."""
    if data.is_dir():
        return data
    pictures, _ = files_of(sets)
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in (data, *pictures)]))  # noqa: PTH100


def names_of(sets: Mapping[str, Dataset], base: Path) -> list[str]:
    """The files that the data consists of, as a manifest has them."""
    pictures, labels = files_of(sets)
    return [relative_name(os.path.abspath(base), os.fspath(path)) for path in (*pictures, *labels)]  # noqa: PTH100


def files_of(sets: Mapping[str, Dataset]) -> tuple[list[Path], list[Path]]:
    """(pictures in the order of the sets, label files each once); of a picture with a folder of those, all in it."""
    pictures: list[Path] = []
    labels: dict[Path, None] = {}
    for dataset in sets.values():
        if dataset.path.is_file():
            labels[dataset.path] = None
        for record in dataset:
            pictures.append(record.path)
            file = record.label_file
            if file is None or file in labels:
                continue
            if file.is_dir():
                labels |= dict.fromkeys(sorted(path for path in file.iterdir() if path.is_file()))
            elif file.is_file():
                labels[file] = None
    return pictures, list(labels)


def relative_name(base: str, path: str) -> str:
    """A path as a manifest has it: relative to the folder `base`, which is absolute, with `/`."""
    if not path.startswith(base + os.sep) or f"{os.sep}.." in path:
        path = os.path.join(base, os.path.relpath(path, base))  # noqa: PTH118
    return path[len(base.rstrip(os.sep)) + 1 :].replace(os.sep, "/")


def _called(asked: Asked, pictures_root: bytes) -> Callable[[str], str]:
    """What an annotator is called."""
    return (lambda name: name) if asked.names else partial(_pseudonym, asked.key or pictures_root, "annotator")


def _pseudonym(key: bytes, kind: str, name: str) -> str:
    return pseudonym(kind, name, key)


def _pseudonyms(asked: Asked) -> Literal["pictures root", "key", "none"]:
    return "none" if asked.names else "pictures root" if asked.key is None else "key"


def _pictures(
    split: str, dataset: Dataset, facts: Iterator[Facts], named: Callable[[str], str], asked: Asked, tally: _Tally
) -> Iterator[PictureRow]:
    """The rows of one set, which is counted on the way."""
    objects: Counter[int] = Counter()
    shown: Counter[int] = Counter()
    for record, one in zip(dataset, facts):
        exif = one.exif or Exif()
        located = asked.location and exif.latitude is not None and exif.longitude is not None
        yield PictureRow(
            name=named(os.fspath(record.path)), sha256=one.sha256, bytes=one.bytes,
            split=None if split == ALL else split, labels=leaf_hash(labels_leaf(record, one.sha256)).hex(),
            objects=len(record.annotations), licence=record.licence, source=record.source, group=record.group,
            captured_at=exif.captured_at or record.captured_at, sensor=_sensor(record.sensor, exif, asked),
            location=(exif.latitude, exif.longitude) if located else None,  # type: ignore[arg-type]
            annotators=_count_work(record, tally),
        )  # fmt: skip
        objects.update(a.category_id for a in record.annotations)
        shown.update({a.category_id for a in record.annotations} | set(record.labels))
    categories = {i: Count(pictures=shown[i], objects=objects[i]) for i in sorted(shown)}
    tally.splits[split] = SplitCount(pictures=len(dataset), objects=objects.total(), categories=categories)


def _sensor(about: str | None, exif: Exif, asked: Asked) -> Sensor | None:
    """A serial number has too few digits for a pseudonym without a secret key, so it is left out then."""
    serial = exif.serial if asked.serial else None
    if exif.serial is not None and not asked.serial and asked.key is not None:
        serial = pseudonym("sensor", exif.serial, asked.key)
    sensor = Sensor(make=exif.make, model=exif.model, lens=exif.lens, serial=serial, about=about)
    return None if sensor == Sensor() else sensor


def _count_work(record: Record, tally: _Tally) -> tuple[str, ...]:
    """Who drew objects on a picture."""
    here: set[str] = set()
    for a in record.annotations:
        if a.tool is not None:
            tally.tools[a.tool] += 1
        if a.annotator is not None:
            name = tally.called(a.annotator)
            work = tally.workers.setdefault(name, _Work())
            work.objects += 1
            work.times += [a.time] if a.time else []
            here.add(name)
    for name in here:
        tally.workers[name].pictures += 1
    return tuple(sorted(here))


def _annotators(workers: Mapping[str, _Work]) -> tuple[Annotator, ...]:
    return tuple(
        Annotator(
            id=name, objects=work.objects, pictures=work.pictures, first=min(work.times, default=None),
            last=max(work.times, default=None),
        )
        for name, work in sorted(workers.items())
    )  # fmt: skip
