"""Where a YOLO set has its names, pictures and label files: `data.yaml`, or `classes.txt` beside them.

Format: https://docs.ultralytics.com/datasets/detect and https://github.com/AlexeyAB/darknet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tracesight.data.finding import Finding, Kind
from tracesight.data.formats.files import brief, by_name, files_below, files_in, inside, pictures_below, read_text
from tracesight.data.formats.places import SPLITS
from tracesight.data.formats.reading import NO_FILE, OUTSIDE_FOLDER, UNREADABLE
from tracesight.data.pictures import PICTURE_SUFFIXES
from tracesight.data.points import Keypoints
from tracesight.errors import UserError

YAML = frozenset({".yaml", ".yml"})
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt")

CLASS_COUNT = Kind("class-count", "warning", "numbers of classes that their names contradict", "correct nc", "ignored")
PATH_OUTSIDE = Kind(
    "path-outside", "warning", "paths that lead out of the folder of data.yaml", "correct the path",
    "looked for inside the folder",
)  # fmt: skip


@dataclass
class Layout:
    """What is known of a place before any label is read.

    file: `data.yaml`, or the list of classes. base: the folder of all. root: the folder in it that paths are relative
    to. names: by the index that label files have. ids: category id by that index. parts: by split, the paths that hold
    its pictures. points: numbers of keypoints and of values for each, where objects have them. point_names: by category
    id. swaps: pairs of points that a mirror makes of each other (`flip_idx`), where they are told.
    """

    file: Path
    base: Path
    root: Path
    names: dict[int, str]
    ids: dict[int, int]
    parts: dict[str, list[str]] = field(default_factory=dict)
    points: tuple[int, int] | None = None
    point_names: dict[int, Keypoints] = field(default_factory=dict)
    swaps: tuple[tuple[int, int], ...] | None = None
    faults: list[Finding] = field(default_factory=list)


def layout_of(path: Path) -> Layout:
    """The layout of a folder or a `data.yaml`. Raises UserError that says what is wrong with it."""
    file = path if path.is_file() else yaml_of(path)
    if file is not None:
        return _of_yaml(file)
    classes = next((path / name for name in CLASS_FILES if (path / name).is_file()), None)
    if classes is None:
        raise UserError(f"{path}: nothing names the classes of its labels; add data.yaml or classes.txt")
    try:
        lines = [line.strip() for line in read_text(classes).splitlines()]
    except ValueError as error:
        raise UserError(f"{classes}: {error}") from None
    names = {number: line for number, line in enumerate(lines) if line}
    if not names:
        raise UserError(f"{classes}: names no classes")
    layout = Layout(classes, path, path, names, {number: number for number in names})
    for split, folders in SPLITS.items():
        found = next((name for name in folders if (path / "images" / name).is_dir()), None)
        if found is not None:
            layout.parts[split] = [f"images/{found}"]
    return layout


def yaml_of(folder: Path) -> Path | None:
    """The one .yaml file of a folder that names classes; a `data.yaml` is meant to, whatever it holds."""
    files = files_in(folder, YAML)
    named = [file for file in files if file.stem == "data"]
    if named:
        return named[0]
    likely = [file for file in files if _names_classes(file)]
    if len(likely) > 1:
        names = ", ".join(file.name for file in likely[:5])
        raise UserError(f"{folder}: {len(likely)} files that name classes ({names}); give the path of the one you mean")
    return likely[0] if likely else None


def pictures_of(layout: Layout, split: str | None) -> list[tuple[str, Path]]:
    """Name and path of every picture of a part (None: of the whole place), sorted by name."""
    entries = layout.parts[split] if split is not None else [next(iter(_whole(layout)))]
    found: dict[str, Path] = {}
    for entry in entries:
        place = _resolved(layout, entry, split or "images")
        base = place if len(entries) == 1 and place.is_dir() else layout.root
        pictures = pictures_below(place) if place.is_dir() else _listed(layout, place)
        found |= {file.relative_to(base).as_posix(): file for file in pictures}
    names = sorted(found, key=by_name)
    shared = "images/"
    if all(name.startswith(shared) for name in names):
        return [(name.removeprefix(shared), found[name]) for name in names]
    return [(name, found[name]) for name in names]


def label_of(base: Path, picture: Path) -> Path:
    """The label file of a picture: in `labels` where the picture is in `images`, or else beside it."""
    parts = list(picture.relative_to(base).parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return base.joinpath(*parts).with_suffix(".txt")


def strays(layout: Layout, pictures: Sequence[Path]) -> list[Path]:
    """Label files beside those of these pictures that belong to no picture at all."""
    homes = dict.fromkeys(picture.parent for picture in pictures)
    every = (picture for home in homes for picture in files_in(home, PICTURE_SUFFIXES))
    wanted = {label_of(layout.base, picture) for picture in every}
    there = {file for folder in {file.parent for file in wanted} for file in files_in(folder, {".txt"})}
    return sorted(file for file in there - wanted if looks_like_labels(file))


def looks_like_labels(file: Path) -> bool:
    """Whether the first line of a file is a number of a class and numbers of a box or polygon."""
    try:
        with file.open("rb") as stream:
            words = stream.readline(1 << 16).split()
        return len(words) >= 5 and all(abs(float(word)) < 1e9 for word in words)
    except (OSError, ValueError):
        return False


def has_labels(folder: Path) -> bool:
    """Whether there are label files in `labels`, or beside pictures."""
    if (folder / "labels").is_dir() and (folder / "images").is_dir():
        return any(looks_like_labels(file) for file in files_below(folder / "labels", {".txt"}))
    return any(looks_like_labels(label_of(folder, picture)) for picture in files_in(folder, PICTURE_SUFFIXES)[:100])


def _whole(layout: Layout) -> list[str]:
    return ["images"] if (layout.root / "images").is_dir() else ["."]


def _of_yaml(file: Path) -> Layout:
    data = _loaded(file)
    names = _names(file, data.get("names"))
    layout = Layout(file, file.parent, file.parent, names, _ids(file, data.get("category_ids"), names))
    count = data.get("nc")
    if count is not None and count != len(names):
        message = f"nc is {brief(count)}, but {len(names)} classes have names"
        layout.faults.append(Finding(CLASS_COUNT, str(file), message))
    shape = data.get("kpt_shape")
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(v, int) and v > 0 for v in shape):
        layout.points = (shape[0], shape[1])
        layout.point_names = _point_names(layout, data.get("kpt_names"), shape[0])
        layout.swaps = _swaps(layout, data.get("flip_idx"))
    for split, keys in SPLITS.items() if data.get("undivided") is not True else ():  # as the writer has it
        value = next((data[key] for key in keys if data.get(key)), None)
        if value is not None:
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) for entry in entries):
                raise UserError(
                    f"{file}: {split} must be a folder, a list of folders or a .txt file, not {brief(value)}"
                )
            layout.parts[split] = [str(entry) for entry in entries]
    layout.root = _root(layout, data.get("path"))
    return layout


def _swaps(layout: Layout, places: Any) -> tuple[tuple[int, int], ...] | None:
    """The pairs of `flip_idx`, which has for each point its place in a mirror."""
    if places is None or layout.points is None:
        return None
    count = layout.points[0]
    whole = isinstance(places, list) and len(places) == count and all(type(at) is int for at in places)
    if not whole or not all(0 <= at < count and places[at] == own for own, at in enumerate(places)):
        message = f"flip_idx must be the places of {count} points in a mirror, counted from 0, not {places!r}"
        layout.faults.append(Finding(UNREADABLE, str(layout.file), message))
        return None
    return tuple((own, at) for own, at in enumerate(places) if own < at)


def _loaded(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(read_text(file))
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file}: not plain YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(data, dict) or "names" not in data:
        raise UserError(f"{file}: names no classes; it needs the key 'names'")
    return data


def _names(file: Path, names: Any) -> dict[int, str]:
    rows = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(rows, dict) or not rows:
        raise UserError(f"{file}: 'names' must be a list of names, or names by number")
    found = {}
    for key, name in rows.items():
        number = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else key
        if isinstance(number, bool) or not isinstance(number, int):
            raise UserError(f"{file}: names: {brief(key)} must be a whole number")
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise UserError(f"{file}: names: {brief(key)} is called {brief(name)}; put its name in quotes")
        found[number] = str(name)
    return dict(sorted(found.items()))


def _ids(file: Path, ids: Any, names: Mapping[int, str]) -> dict[int, int]:
    """Category ids by index; `category_ids` is this package's own key for ids that are not 0, 1, 2, …"""
    if ids is None:
        return {number: number for number in names}
    whole = isinstance(ids, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in ids)
    if not whole or len(set(ids)) != len(names):
        raise UserError(f"{file}: 'category_ids' must be {len(names)} different whole numbers, one a name")
    return dict(zip(names, ids))


def _point_names(layout: Layout, names: Any, count: int) -> dict[int, Keypoints]:
    """Names of keypoints by category id, from lists by class."""
    found = {}
    for key, row in names.items() if isinstance(names, dict) else ():
        number = int(key) if str(key).isdecimal() else None
        if number not in layout.ids or not isinstance(row, list) or len(row) != count:
            raise UserError(f"{layout.file}: kpt_names: {brief(key)} must be a class with a list of {count} names")
        found[layout.ids[number]] = Keypoints(tuple(map(str, row)))
    return found


def _root(layout: Layout, path: Any) -> Path:
    """The folder that `path` names, unless it is not there or leads out: then that of `data.yaml`, with a finding."""
    folder = layout.file.parent
    if path in (None, "", "."):
        return folder
    if not isinstance(path, str):
        raise UserError(f"{layout.file}: path must be a folder, not {brief(path)}")
    name = inside(path)
    if name is not None and (folder / name).is_dir():
        return folder / name
    if Path(path).is_absolute() and Path(path).is_dir() and Path(path).samefile(folder):
        return folder
    if name is None:
        layout.faults.append(Finding(PATH_OUTSIDE, str(layout.file), f"path {path} leads out of the folder"))
    return folder


def _resolved(layout: Layout, entry: str, key: str) -> Path:
    """The folder or file that an entry means. Raises UserError where it is not there or leads out."""
    name = inside(entry) if entry != "." else "."
    if name is None:
        name = inside(entry.replace("\\", "/").lstrip("./"))
        relative = not Path(entry).is_absolute() and name is not None and (layout.root / name).exists()
        if not relative or name is None:
            raise UserError(f"{layout.file}: {key}: {entry} leads out of the folder {layout.root}; correct the path")
        layout.faults.append(Finding(PATH_OUTSIDE, str(layout.file), f"{key} {entry} leads out of the folder"))
    place = layout.root / name
    if not place.exists():
        raise UserError(f"{layout.file}: {key}: {place} is not there; correct the path")
    return place


def _listed(layout: Layout, file: Path) -> list[Path]:
    """The pictures that a .txt file lists, one a line, relative to the root or to the file."""
    try:
        lines = [line.strip() for line in read_text(file).splitlines()]
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        name = inside(line)
        if name is None and Path(line).is_relative_to(layout.root.absolute()):
            name = inside(Path(line).relative_to(layout.root.absolute()).as_posix())
        if name is None:
            layout.faults.append(Finding(OUTSIDE_FOLDER, f"{file}: line {number}", f"{line} lies outside the folder"))
            continue
        path = next((base / name for base in (layout.root, file.parent) if (base / name).is_file()), None)
        if path is None:
            layout.faults.append(Finding(NO_FILE, f"{file}: line {number}", f"there is no picture {line}"))
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _names_classes(file: Path) -> bool:
    try:
        text = read_text(file)
        data = yaml.safe_load(text) if len(text) < 1 << 20 else None
    except (ValueError, yaml.YAMLError, RecursionError):
        return False
    return isinstance(data, dict) and "names" in data and not data.keys().isdisjoint(("path", "nc", *SPLITS))
