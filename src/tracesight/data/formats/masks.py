"""Masks as pictures, as microscopy has them: a file an object, or a map of object numbers a picture.

Three layouts: `ID/images/*.png` with `ID/masks/*.png`, one file an object (Data Science Bowl 2018, BBBC038);
`images/x.png` with the map `masks/x.png`; the map `x_masks.png` beside `x.png` or `x_img.png` (Cellpose). In a file of
one object every pixel that is not 0 belongs to it. In a map 0 is background and the pixels of each other number are one
object, connected or not. Folders inside `masks` are categories; without them there is one, "object".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tracesight.data.finding import Finding, Kind
from tracesight.data.formats.files import by_name, files_below, files_in, folders_in, pictures_below
from tracesight.data.formats.masks_writer import OBJECT, write_masks
from tracesight.data.formats.reading import NO_PICTURE, UNLABELLED, UNREADABLE, Format, Numbers, Reading, bad_picture
from tracesight.data.pictures import PICTURE_SUFFIXES, PILLOW_FORMATS, picture_size
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

ONE_VALUE = Kind(
    "mask-black-and-white", "warning", "maps of object numbers that are black and white", "give each object a number",
    "all that is white taken for one object",
)  # fmt: skip
_BESIDE = "_masks"
_LOOKED_AT = 20  # folders from which the layout is told


@dataclass
class _Item:
    """A picture and its mask files. single: each file is one object. label_file: the map, where it is one file."""

    name: str
    path: Path
    masks: list[tuple[str, Path]] = field(default_factory=list)
    single: bool = False

    @property
    def label_file(self) -> Path | None:
        return self.masks[0][1] if len(self.masks) == 1 and not self.single else None


def read_masks(path: Path, split: str | None = None) -> Reading:
    """Read any of the three layouts. Boxes are the tightest ones around the masks.

    Raises UserError where there are no masks.
    """
    reading = Reading(path, {}, iter(()), numbered=True)
    items = _items(path, reading.faults)
    if not items:
        raise UserError(f"{path}: no masks in it (ID/images with ID/masks, images with masks, or x_masks.png by x.png)")
    reading.records = _records(reading, sorted(items, key=lambda item: by_name(item.name)))
    return reading


def fits_masks(path: Path) -> bool:
    """Whether a folder has one of the three layouts."""
    if not path.is_dir():
        return False
    if _has_both(path) or _holds_both(path):
        return True
    files = {file.stem for file in files_in(path, PICTURE_SUFFIXES)}
    return any(stem.endswith(_BESIDE) and _named_like(stem, files) is not None for stem in files)


def _has_both(folder: Path) -> bool:
    return (folder / "masks").is_dir() and (folder / "images").is_dir()


def _holds_both(path: Path, depth: int = 3) -> bool:
    """Whether a folder down to this depth has `images` and `masks`; a few of each depth are looked at."""
    folders = folders_in(path)[:_LOOKED_AT]
    return any(_has_both(folder) or (depth > 1 and _holds_both(folder, depth - 1)) for folder in folders)


def _named_like(stem: str, stems: set[str]) -> str | None:
    """The stem of the picture that a map belongs to."""
    base = stem.removesuffix(_BESIDE)
    return next((name for name in (base, f"{base}_img") if name in stems), None)


def _items(path: Path, faults: list[Finding]) -> list[_Item]:
    if _has_both(path):
        return _of_maps(path, faults)
    singles = [item for folder in _folders_of_both(path) for item in _of_singles(path, folder, faults)]
    return singles or _of_neighbours(path, faults)


def _folders_of_both(path: Path, seen: set[Path] | None = None) -> Iterator[Path]:
    """Folders below with `images` and `masks` in them, each real one once, so that links in a loop end."""
    seen = {path.resolve()} if seen is None else seen
    for folder in folders_in(path):
        if (real := folder.resolve()) in seen:
            continue
        seen.add(real)
        if _has_both(folder):
            yield folder
        else:
            yield from _folders_of_both(folder, seen)


def _of_singles(root: Path, folder: Path, faults: list[Finding]) -> Iterator[_Item]:
    """The picture of a folder with `images` and `masks`, named like the folder."""
    pictures = pictures_below(folder / "images")
    for extra in pictures[1:]:
        faults.append(Finding(UNLABELLED, str(extra), f"{folder / 'masks'} is taken for the first picture's", extra))
    if not pictures:
        faults.append(Finding(NO_PICTURE, str(folder / "masks"), "there is no picture in images"))
        return
    files = sorted(pictures_below(folder / "masks"), key=lambda file: (file.name, file))  # whatever their category is
    masks = [(_category(file, folder / "masks"), file) for file in files]
    name = f"{folder.relative_to(root).as_posix()}{pictures[0].suffix}"
    yield _Item(name, pictures[0], masks, single=True)


def _of_maps(path: Path, faults: list[Finding]) -> list[_Item]:
    """Pictures in `images` and the maps of the same names in `masks`, or in folders of categories there."""
    pictures = {_stem(file, path / "images"): file for file in pictures_below(path / "images")}
    items = {stem: _Item(file.relative_to(path / "images").as_posix(), file) for stem, file in sorted(pictures.items())}
    for file in pictures_below(path / "masks"):
        stem = _stem(file, path / "masks")
        category, _, rest = stem.partition("/")
        for key, name in ((stem, OBJECT), (rest, category)):
            found = next((k for k in (key, key.removesuffix(_BESIDE), key.removesuffix("_mask")) if k in items), None)
            if found:
                items[found].masks.append((name, file))
                break
        else:
            faults.append(Finding(NO_PICTURE, str(file), "there is no picture of this name in images"))
    return _labelled(items, faults, "there is no map of this name in masks")


def _of_neighbours(path: Path, faults: list[Finding]) -> list[_Item]:
    """Pictures and the maps beside them."""
    files = {_stem(file, path): file for file in files_below(path, PICTURE_SUFFIXES)}
    maps = sorted(stem for stem in files if stem.endswith(_BESIDE))
    items = {
        stem: _Item(file.relative_to(path).as_posix(), file) for stem, file in sorted(files.items()) if stem not in maps
    }
    for stem in maps:
        found = _named_like(stem, set(items))
        if found is None:
            faults.append(Finding(NO_PICTURE, str(files[stem]), f"there is no picture {stem.removesuffix(_BESIDE)}"))
        else:
            items[found].masks.append((OBJECT, files[stem]))
    return _labelled(items, faults, "there is no map of its name beside it") if maps else []


def _labelled(items: Mapping[str, _Item], faults: list[Finding], message: str) -> list[_Item]:
    for item in items.values():
        if not item.masks:
            faults.append(Finding(UNLABELLED, str(item.path), message, item.path))
    return [item for item in items.values() if item.masks]


def _stem(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _category(file: Path, folder: Path) -> str:
    parts = file.relative_to(folder).parent.as_posix()
    return OBJECT if parts == "." else parts


def _records(reading: Reading, items: Sequence[_Item]) -> Iterator[Record]:
    numbers, number = Numbers(reading.categories), 0
    for item in items:
        try:
            height, width = picture_size(item.path)
        except UserError as error:
            reading.faults.append(bad_picture(error, item.path))
            continue
        number += 1
        objects: list[Annotation] = []
        for category, file in item.masks:
            for mask in _masks(reading, file, item):
                objects.append(Annotation(len(objects) + 1, numbers[category], mask.box, mask))
        yield Record(number, item.path, width, height, tuple(objects), name=item.name, label_file=item.label_file)
    if not reading.categories:
        numbers[OBJECT]  # none is drawn yet, but there is something to draw


def _masks(reading: Reading, file: Path, item: _Item) -> list[Mask]:
    try:
        pixels = _numbers_in(file)
        if item.single and not pixels.any():
            raise ValueError("it has no pixel of an object")
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        reading.faults.append(Finding(UNREADABLE, str(file), " ".join(str(error).split()), item.path))
        return []
    if item.single:
        return [Mask.from_array(pixels)]
    values = np.unique(pixels)
    values = values[values != 0].tolist()
    if values == [255] or values == [65535]:
        message = f"its one value is {values[0]}, as of a black and white picture"
        reading.faults.append(Finding(ONE_VALUE, str(file), message, item.path))
    return [Mask.from_array(pixels == value) for value in values]


def _numbers_in(file: Path) -> np.ndarray:
    """(H, W) whole numbers; of colours only if all channels are alike. Raises ValueError and what Pillow raises."""
    with Image.open(file, formats=PILLOW_FORMATS) as image:
        pixels = np.asarray(image)
    if pixels.ndim == 3:
        colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
        if (colours != colours[..., :1]).any():
            raise ValueError("its pixels are colours, not numbers of objects")
        pixels = colours[..., 0]
    if pixels.dtype.kind == "f":
        raise ValueError("its pixels are fractions, not numbers of objects")
    return pixels


FORMAT = Format(fits_masks, lambda _: (), read_masks, write_masks)
