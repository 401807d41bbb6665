"""Which pictures a user means, and the NAME under which each one's outputs are written."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tracesight.data.formats import FORMATS, read_sets
from tracesight.data.formats.places import BARE, CLASSES, places_of
from tracesight.data.formats.reading import UNLABELLED
from tracesight.data.pictures import PICTURE_SUFFIXES
from tracesight.errors import UserError


def is_many(pictures: str | Path) -> bool:
    """Whether the path means several pictures: a folder, or a glob that is not also the name of a file."""
    path = Path(pictures)
    return path.is_dir() or (not path.is_file() and glob.has_magic(str(pictures)))


def find_pictures(inputs: Iterable[str | Path], exclude: Path | None = None) -> list[tuple[Path, str]]:
    """Pictures in files, folders (with all below them, hidden ones left out) and globs, and the NAME of each.

    Of a folder of labelled pictures those of its records are meant, and those that no label speaks of yet: masks that
    are pictures themselves are not.

    NAME is the path relative to the folder (or the part of the glob before its first wildcard) without the suffix,
    with `/` between parts; names that would collide keep the suffix, and then, if need be, the folders in which they
    differ. Each file counts once, however often it was named; what lies under `exclude` does not count.
    The list is sorted by NAME. Files named outright are listed whether they can be read or not.

    Raises UserError: a folder or glob without pictures, or a path that is not there and does not look like a picture.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for given in inputs:
        for path, root in _expand(given, exclude):
            # Normal form without following links: a linked picture goes by the name of the link.
            found.setdefault(Path(os.path.normpath(path.absolute())), (path, path.relative_to(root)))
    names = _names({absolute: relative for absolute, (_, relative) in found.items()})
    return sorted(((found[absolute][0], name) for absolute, name in names.items()), key=lambda pair: pair[1])


def _expand(given: str | Path, exclude: Path | None) -> list[tuple[Path, Path]]:
    """Pictures that one argument means, each with the folder that its NAME is relative to."""
    path = Path(given)
    if path.is_dir():
        labelled, root = _labelled(path), path
        found = labelled or [p for p in path.rglob("*") if _is_picture(p.relative_to(path), p)]
    elif is_many(path):
        root = Path(*_before_wildcards(path))
        matches = [Path(match) for match in glob.glob(str(given), recursive=True)]  # noqa: PTH207 (absolute ones too)
        found = [match for match in matches if _is_picture(Path(match.name), match)]
    else:
        if not path.exists() and path.suffix.lower() not in PICTURE_SUFFIXES:
            raise UserError(f"{path}: no such picture or folder")
        return [(path, path.parent)]
    if exclude is not None:
        found = [p for p in found if not p.resolve().is_relative_to(exclude.resolve())]
    if not found:
        raise UserError(f"{path}: no pictures here ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return [(p, root) for p in found]


def _labelled(folder: Path) -> list[Path]:
    """The pictures of a folder with labels that can be read; [] where there are none."""
    try:
        places = places_of(folder, FORMATS)
        if all(place.format in (BARE, CLASSES) for place in places.values()):
            return []
        sets, findings = read_sets(folder)
    except UserError:  # whatever is wrong with labels is no reason not to look at pictures
        return []
    unlabelled = (f.picture for f in findings if f.kind is UNLABELLED and f.picture is not None)
    paths = dict.fromkeys((*(record.path for dataset in sets.values() for record in dataset), *unlabelled))
    return [path for path in paths if path.is_file()]


def _is_picture(relative: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()


def _before_wildcards(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _names(paths: Mapping[Path, Path]) -> dict[Path, str]:
    """NAME by absolute path. Names that differ only in case collide, as they do on Windows and macOS."""

    def name(absolute: Path, level: int) -> str:
        if level == 2:
            return Path(os.path.relpath(absolute, common)).as_posix()
        relative = paths[absolute]
        return (relative.with_suffix("") if level == 0 else relative).as_posix()

    common = os.path.commonpath([path.parent for path in paths]) if paths else ""
    levels = dict.fromkeys(paths, 0)
    while True:
        names = {path: name(path, level) for path, level in levels.items()}
        counts = Counter(n.casefold() for n in names.values())
        clashing = [path for path, n in names.items() if counts[n.casefold()] > 1 and levels[path] < 2]
        if not clashing:
            return names
        for path in clashing:
            levels[path] += 1
