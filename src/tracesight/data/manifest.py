"""Manifests of labelled pictures: files are read here, `lineage/manifest.py` makes rows and roots of what they hold."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from tracesight import __version__
from tracesight.data.crew import all_cores, crew
from tracesight.data.dataset import Dataset
from tracesight.data.digests import Facts, file_facts
from tracesight.data.exif import Exif
from tracesight.data.finding import Finding
from tracesight.data.formats.files import files_below
from tracesight.data.leaves import labels_digest
from tracesight.data.look import Counts, Work, add_label_file, has_masks, joined, look
from tracesight.data.pictures import PICTURE_SUFFIXES
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
    SplitRoots,
    count_licences,
    count_sensors,
    pictures_root,
    roots_of,
    split_roots,
)
from tracesight.lineage.pseudonym import pseudonym

_MASKS = re.compile("masks$|Segmentation")  # folders in which formats keep masks as pictures
_ROWS = TypeAdapter(list[PictureRow])
_AT_ONCE = 5000  # records that a process looks at at once
_MANY = 20_000  # records from which processes pay
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
    private = asked.serial or asked.location or asked.key is not None
    count = sum(map(len, sets.values()))
    with crew(all_cores() if processes and count >= _MANY else 1) as share:
        looks = share(look, _parts(sets), many=True)  # by others, while this process asks for the files
        paths = [path for dataset in sets.values() for path in dataset.path_texts()]
        shown = file_facts(paths, private=private, processes=processes, progress=progress)
        seen = joined(looks)
    _add_label_files(sets, paths, seen.masks, seen.labels)
    after = None if progress is None else lambda done, of: progress(len(paths) + done, len(paths) + of)
    rest = file_facts(list(seen.labels), private=private, processes=processes, progress=after)
    named = partial(relative_name, os.path.abspath(base))  # noqa: PTH100
    top = pictures_root(one.sha256 for one in shown) if seen.workers else ""  # for their pseudonyms
    called = _called(asked, bytes.fromhex(top))
    pictures = _ROWS.validate_python(
        [
            _picture(row, one, about, named(path), asked, called)
            for row, one, about, path in zip(seen.rows, shown, seen.abouts, paths)
        ]
    )
    pictures = tuple(sorted(pictures, key=lambda row: (row.name, row.split or "")))
    label_rows = [FileRow(name=named(os.fspath(p)), sha256=f.sha256, bytes=f.bytes) for p, f in zip(seen.labels, rest)]
    label_rows.sort(key=lambda row: row.name)
    table = sorted({pair for dataset in sets.values() for pair in dataset.categories.items()})
    categories = tuple(Category(id=number, name=text) for number, text in table)
    roots = roots_of(pictures, label_rows, categories)
    whole = SplitRoots(pictures=roots.pictures, labels=roots.labels)
    splits = {
        split: _split_count(counts, whole if len(sets) == 1 else _roots_of_split(split, pictures, categories))
        for split, counts in seen.splits.items()
    }
    return Manifest(
        made_by=f"tracesight {__version__}", title=asked.title, controller=asked.controller, licence=asked.licence,
        source=asked.source, roots=roots, pseudonyms=_pseudonyms(asked),
        splits=splits, categories=categories, licences=count_licences(pictures),
        sensors=count_sensors(pictures), annotators=_annotators(seen.workers, called),
        tools=dict(sorted(seen.tools.items())), label_files=tuple(label_rows), pictures=pictures,
        findings=dict(sorted(Counter(finding.kind.code for finding in findings).items())),
    )  # fmt: skip


def _split_count(counts: Counts, roots: SplitRoots) -> SplitCount:
    shown, objects = counts.pictures, counts.objects
    categories = {i: Count(pictures=shown[i], objects=objects[i]) for i in sorted(shown)}
    return SplitCount(pictures=counts.records, objects=objects.total(), categories=categories, roots=roots)


def _parts(sets: Mapping[str, Dataset]) -> Iterator[tuple[str, Dataset]]:
    """The sets in pieces that a process looks at at once."""
    for split, dataset in sets.items():
        for start in range(0, max(1, len(dataset)), _AT_ONCE):
            yield split, dataset.part(start, start + _AT_ONCE)


def _roots_of_split(split: str, pictures: Sequence[PictureRow], categories: Sequence[Category]) -> SplitRoots:
    return split_roots([row for row in pictures if (row.split or ALL) == split], categories)


def roots_of_set(dataset: Dataset) -> dict[str, str]:
    """The roots of pictures and labels of one set, as its own manifest would have them."""
    table = [Category(id=number, name=name) for number, name in dataset.categories.items()]
    rows = [
        PictureRow(name="", sha256=digest, bytes=0, labels=labels_digest(record), objects=len(record.annotations))
        for record, digest in zip(dataset, dataset.picture_digests)
    ]
    return split_roots(rows, table).model_dump()


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
    """(pictures in the order of the sets, label files each once)."""
    pictures: list[str] = []
    labels: dict[Path, None] = {}
    masks = False
    for dataset in sets.values():
        for record in dataset:
            pictures.append(record.path_text)
            add_label_file(record, labels)
            masks = masks or has_masks(record.plain_annotations())
    _add_label_files(sets, pictures, masks, labels)
    return list(map(Path, pictures)), list(labels)


def _add_label_files(
    sets: Mapping[str, Dataset], pictures: Sequence[str], masks: bool, labels: dict[Path, None]
) -> None:
    """The files that hold the labels of a whole set, and masks that lie in picture files of their own."""
    own = set(pictures) if masks else set()
    for dataset in sets.values():
        if dataset.path.is_file():
            labels[dataset.path] = None
        elif masks:
            for file in files_below(dataset.path, PICTURE_SUFFIXES):
                parts = file.relative_to(dataset.path).parts
                if str(file) not in own and (file.stem.endswith("_masks") or any(map(_MASKS.match, parts[:-1]))):
                    labels[file] = None


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


def _picture(
    row: dict[str, Any], facts: Facts, about: str | None, name: str, asked: Asked, called: Callable[[str], str]
) -> dict[str, Any]:
    """The keyword arguments of a PictureRow."""
    exif = facts.exif
    if exif is not None:
        row["captured_at"] = exif.captured_at or row.get("captured_at")
        if asked.location and exif.latitude is not None:
            row["location"] = (exif.latitude, exif.longitude)
    if exif is not None or about is not None:
        row["sensor"] = _sensor(about, exif or Exif(), asked)
    if "annotators" in row:
        row["annotators"] = tuple(sorted(map(called, row["annotators"])))
    row["name"], row["sha256"], row["bytes"] = name, facts.sha256, facts.bytes
    return row


def _sensor(about: str | None, exif: Exif, asked: Asked) -> Sensor | None:
    """A serial number has too few digits for a pseudonym without a secret key, so it is left out then."""
    serial = exif.serial if asked.serial else None
    if exif.serial is not None and not asked.serial and asked.key is not None:
        serial = pseudonym("sensor", exif.serial, asked.key)
    sensor = Sensor(make=exif.make, model=exif.model, lens=exif.lens, serial=serial, about=about)
    return None if sensor == Sensor() else sensor


def _annotators(workers: Mapping[str, Work], called: Callable[[str], str]) -> tuple[Annotator, ...]:
    rows = [
        Annotator(
            id=called(name), objects=work.objects, pictures=work.pictures, first=min(work.times, default=None),
            last=max(work.times, default=None),
        )
        for name, work in workers.items()
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: row.id))
