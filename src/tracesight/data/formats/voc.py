"""Pascal VOC: one XML file a picture (Everingham et al., "The Pascal Visual Object Classes Challenge", 2010).

Format: the development kit's documentation, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf. Pixels are
counted from 1 and the last one belongs to the box, so xmin and ymin lose 1 and xmax and ymax stay. In the PNG files of
`SegmentationObject` the pixels of the k-th object of the XML file have the value k; 0 is background, 255 a border that
belongs to nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from PIL import Image

from tracesight.data.finding import Finding, Kind
from tracesight.data.formats.files import files_below, files_in, inside, pictures_below, read_text
from tracesight.data.formats.places import SPLITS
from tracesight.data.formats.reading import (
    NO_LABELS,
    NO_PICTURE,
    OUTSIDE_FOLDER,
    UNLABELLED,
    UNREADABLE,
    Format,
    Numbers,
    Reading,
    size_of_picture,
)
from tracesight.data.formats.voc_writer import BORDER, write_voc
from tracesight.data.pictures import PILLOW_FORMATS
from tracesight.data.record import Annotation, Box, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

LABEL_FOLDERS = ("Annotations", "annotations")
PICTURE_FOLDERS = ("JPEGImages", "images", "Images")
XML = frozenset({".xml"})
_LOOKED_AT = 20  # files from which the format is told


@dataclass
class _Set:
    """A folder half-way: where things lie, by the path of each without its suffix, and what was left out so far."""

    folder: Path
    labels: dict[str, Path]
    pictures: dict[str, list[tuple[str, Path]]]
    masks: dict[str, Path]
    numbers: Numbers
    faults: list[Finding] = field(default_factory=list)

    def fault(self, kind: Kind, where: Path | str, message: str, picture: Path | None = None) -> None:
        self.faults.append(Finding(kind, str(where), message, picture))


def read_voc(path: Path, split: str | None = None) -> Reading:
    """Read a folder with `Annotations/` and `JPEGImages/`, or one with .xml files beside the pictures.

    split: the names in `ImageSets/Main/SPLIT.txt` or `ImageSets/SPLIT.txt`; None: every .xml file. An object's `part`s,
    `pose` and `occluded` are not read. Files with a document type, and so entities of their own, are refused.
    Raises UserError where there is no .xml file.
    """
    label_folder = _first(path, LABEL_FOLDERS)
    labels = {_stem(file, label_folder): file for file in files_below(label_folder, XML)}
    if not labels:
        raise UserError(f"{path}: no voc labels in it (Annotations/*.xml, or .xml files beside the pictures)")
    pictures: dict[str, list[tuple[str, Path]]] = {}
    picture_folder = _first(path, PICTURE_FOLDERS)
    for file in pictures_below(picture_folder):
        name = file.relative_to(picture_folder).as_posix()
        pictures.setdefault(_stem(file, picture_folder), []).append((name, file))
    mask_folder = path / "SegmentationObject"
    masks = {_stem(file, mask_folder): file for file in files_below(mask_folder, {".png"})}
    categories: dict[int, str] = {}
    found = _Set(path, labels, pictures, masks, Numbers(categories))
    listed = _listed(found, path, split) if split is not None else sorted(labels)
    if split is None:
        for stem in sorted(pictures.keys() - labels.keys()):
            name, file = pictures[stem][0]
            found.fault(UNLABELLED, file, f"there is no {stem}.xml", file)
    return Reading(path, categories, _records(found, listed), numbered=True, faults=found.faults)


def fits_voc(path: Path) -> bool:
    """Whether a folder holds .xml files, in `Annotations`, or beside pictures if they begin as VOC's do."""
    if not path.is_dir():
        return False
    folder = _first(path, LABEL_FOLDERS)
    if folder != path:
        return next(files_below(folder, XML), None) is not None
    return any(_begins_well(file) for file in files_in(path, XML)[:_LOOKED_AT])


def _begins_well(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return b"<annotation" in stream.read(4096).replace(b"\0", b"")
    except OSError:
        return False


def splits_of_voc(path: Path) -> Sequence[str]:
    """The parts that `ImageSets` has a list of."""
    return [split for split in SPLITS if fits_voc(path) and _list_of(path, split) is not None]


def _first(path: Path, names: Sequence[str]) -> Path:
    return next((path / name for name in names if (path / name).is_dir()), path)


def _stem(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _list_of(path: Path, split: str) -> Path | None:
    files = (path / "ImageSets" / sub / f"{name}.txt" for name in SPLITS[split] for sub in ("Main", ""))
    return next((file for file in files if file.is_file()), None)


def _listed(found: _Set, path: Path, split: str) -> list[str]:
    """The names of one part that have a label file, sorted."""
    file = _list_of(path, split)
    if file is None:
        raise UserError(f"{path}: no ImageSets/Main/{split}.txt in it")
    try:
        lines = read_text(file).splitlines()
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    stems = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = inside(line.strip())
        if name is None:
            found.fault(OUTSIDE_FOLDER, f"{file}: line {number}", f"{line.strip()} lies outside the folder")
            continue
        # The name; with a suffix or a mark of the class's presence after it, as some lists have.
        candidates = (name, Path(name).with_suffix("").as_posix(), re.sub(r"\s+-?[01]$", "", name))
        stem = next((candidate for candidate in candidates if candidate in found.labels), None)
        if stem is None:
            found.fault(NO_LABELS, f"{file}: line {number}", f"there is no label file {name}.xml")
        else:
            stems.add(stem)
    return sorted(stems)


def _records(found: _Set, stems: Sequence[str]) -> Iterator[Record]:
    number = 0
    for stem in stems:
        file = found.labels[stem]
        try:
            root = _parsed(file)
        except ValueError as error:
            found.fault(UNREADABLE, file, str(error), next((p for _, p in found.pictures.get(stem, ())), None))
            continue
        picture = _picture(found, file, stem, root)
        size = None if picture is None else _size(found, file, root, picture[1])
        if picture is None or size is None:
            continue
        number += 1
        name, path = picture
        width, height = size
        yield Record(
            number, path, width, height, _objects(found, file, stem, root, path), name=name, label_file=file,
            source=_known(root.findtext("source/database")),
        )  # fmt: skip


def _parsed(file: Path) -> ElementTree.Element:
    """The tree of an XML file without a document type. Raises ValueError that says what is wrong."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type (<!DOCTYPE …>), in which entities could expand without end")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        content = file.read_bytes()
        parser.Parse(content, True)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from None
    except (expat.ExpatError, LookupError) as error:
        if getattr(error, "code", None) == expat.errors.codes[expat.errors.XML_ERROR_INVALID_TOKEN]:
            _check_utf8(content)
        raise ValueError(f"not XML ({error})") from None
    root = builder.close()
    if root.tag != "annotation":
        raise ValueError(f"not a label file of VOC: its root is <{root.tag[:40]}>, not <annotation>")
    return root


def _check_utf8(content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start}); save it as UTF-8, or name its encoding") from None


def _picture(found: _Set, file: Path, stem: str, root: ElementTree.Element) -> tuple[str, Path] | None:
    """Name and path of the picture: the one called like the label file, or else the one that the file names."""
    given = _text(root, "filename")
    name = inside(given) if given else ""
    same = found.pictures.get(stem, [])
    for candidates in (same, found.pictures.get(str(Path(name).with_suffix("")), []) if name else []):
        if candidates:
            return next((c for c in candidates if Path(c[0]).name == Path(name or "").name), candidates[0])
    if name is None:
        found.fault(OUTSIDE_FOLDER, file, f"its picture {given} lies outside the folder")
    else:
        found.fault(NO_PICTURE, file, f"its picture {name or stem} is not there")
    return None


def _size(found: _Set, file: Path, root: ElementTree.Element, picture: Path) -> tuple[int, int] | None:
    """(width, height) as the label file says; where it does not, as the picture has it; None where neither does."""
    try:
        width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        width = height = 0
    if width > 0 and height > 0:
        return width, height
    return size_of_picture(found.faults, file, picture)


def _objects(found: _Set, file: Path, stem: str, root: ElementTree.Element, picture: Path) -> tuple[Annotation, ...]:
    masks = _masks(found, found.masks[stem], picture) if stem in found.masks else {}
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        try:
            name = _text(element, "name")
            if not name:
                raise ValueError("it has no name")
            box = _box(element)
        except ValueError as error:
            found.fault(UNREADABLE, f"{file}: object {number}", str(error), picture)
            continue
        objects.append(Annotation(
            number, found.numbers[name], box, masks.get(number),
            difficult=_flag(element, "difficult"), truncated=_flag(element, "truncated"),
        ))  # fmt: skip
    return tuple(objects)


def _masks(found: _Set, file: Path, picture: Path) -> dict[int, Mask]:
    """The mask of each object by its number, from 1."""
    try:
        with Image.open(file, formats=PILLOW_FORMATS) as image:
            pixels = np.asarray(image)
        if pixels.ndim != 2:
            raise ValueError(f"its pixels are colours ({image.mode}), not numbers of objects")
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        found.fault(UNREADABLE, file, f"no masks can be read ({' '.join(str(error).split())})", picture)
        return {}
    border = BORDER if pixels.dtype == np.uint8 else None
    return {int(k): Mask.from_array(pixels == k) for k in np.unique(pixels) if k not in (0, border)}


def _box(element: ElementTree.Element) -> Box:
    """The box, counted from 0 and half-open. Raises ValueError."""
    texts = [_text(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = (float(text) for text in texts)
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        raise ValueError(
            f"bndbox must be four numbers xmin, ymin, xmax, ymax, not {', '.join(texts)[:60] or 'nothing'}"
        )
    return x1 - 1, y1 - 1, x2, y2


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _flag(element: ElementTree.Element, path: str) -> bool:
    return _text(element, path).lower() in ("1", "true", "yes")


def _known(text: str | None) -> str | None:
    text = (text or "").strip()
    return None if text.lower() in ("", "unknown", "unspecified") else text


FORMAT = Format(fits_voc, splits_of_voc, read_voc, write_voc)
