"""Where labels go on a picture of objects, so that they hide none, and the legend below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tracesight.scene.fonts import font_for

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
Place = tuple[int, int, int, int]
Labelled = tuple[NDArray[np.uint8] | None, tuple[int, int], Box, Colour, str]  # crop, origin, box, colour, label

_MOST_A_NAME = (
    0.05  # of the picture that labels may take for each name there is, since one name the legend says as well
)
_MOST_OF_PICTURE = 0.25  # that they may take however many names there are; above it there are none
_LITTLE_OF_PICTURE = 0.02  # below it labels may be larger than the objects they name
_MOST_OF_OTHERS = 0.2  # of another object that a label may hide
_MOST_OF_OWN = 0.4  # of its own object that a label may hide
_TEXT: Colour = (235, 238, 242)
_QUIET: Colour = (160, 168, 180)


def font_size(size: tuple[int, int]) -> int:
    """Height of letters in pixels for a picture of `size` (width, height): legible when it is shown whole."""
    return max(11, round((size[0] * size[1]) ** 0.5 / 56))


def draw_labels(image: Image.Image, objects: Sequence[Labelled], size: int) -> None:
    """Draw each object's label in its colour, above, below or within it, unless it would hide too much.

    None is drawn where all of them would hide the picture: there colours and the legend say what is what.
    `objects` are in the order they were painted, the topmost last.
    """
    extents = [_extent(label, size) for *_, label in objects]
    owner = _owners(image.size, objects)
    areas = np.bincount(owner.ravel(), minlength=len(objects) + 1)
    share = sum(w * h for w, h in extents) / owner.size
    most = min(_MOST_OF_PICTURE, _MOST_A_NAME * len({colour for *_, colour, _ in objects}))
    if share > most or share > max(_LITTLE_OF_PICTURE, areas[1:].sum() / owner.size):
        return
    draw = ImageDraw.Draw(image)
    taken = np.zeros(owner.shape, np.bool_)
    for number in reversed(range(len(objects))):
        *_, box, colour, label = objects[number]
        place = _best_place(box, extents[number], number + 1, owner, areas, taken)
        if place is None:
            continue
        x1, y1, x2, y2 = place
        taken[y1:y2, x1:x2] = True
        draw.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius=max(2, size // 5), fill=colour)
        ink = (16, 18, 22) if _is_light(colour) else (255, 255, 255)
        draw.text(((x1 + x2) / 2, (y1 + y2) / 2), label, ink, font_for(label, size), anchor="mm")


def draw_legend(image: Image.Image, rows: Sequence[tuple[Colour, str, int]], ground: Colour) -> Image.Image:
    """The picture with a strip below it that says how many objects of which category (colour, name, count) it has."""
    size = font_size(image.size)
    pad, high = round(size * 0.7), round(size * 1.9)
    placed: list[tuple[int, int, Colour, str, int]] = []
    x, line = pad, 0
    for colour, name, count in rows:
        width = round(size * 1.8 + font_for(name, size).getlength(name) + font_for("", size).getlength(str(count)))
        if x > pad and x + width + pad > image.width:
            x, line = pad, line + 1
        placed.append((x, line, colour, name, count))
        x += width + 2 * pad
    sheet = Image.new("RGB", (image.width, image.height + (line + 1) * high), ground)
    sheet.paste(image, (0, 0))
    draw = ImageDraw.Draw(sheet)
    if not placed:
        draw.text((pad, image.height + high // 2), "no objects", _QUIET, font_for("", size), anchor="lm")
    for x, line, colour, name, count in placed:
        middle, half = image.height + line * high + high // 2, size * 0.42
        draw.rounded_rectangle((x, middle - half, x + 2 * half, middle + half), radius=size // 5, fill=colour)
        font = font_for(name, size)
        draw.text((x + size * 1.4, middle), name, _TEXT, font, anchor="lm")
        draw.text((x + size * 1.8 + font.getlength(name), middle), str(count), _QUIET, font_for("", size), anchor="lm")
    return sheet


def _extent(label: str, size: int) -> tuple[int, int]:
    """Width and height of a label with its margin."""
    return round(font_for(label, size).getlength(label) + size * 0.7), round(size * 1.35)


def _owners(size: tuple[int, int], objects: Sequence[Labelled]) -> NDArray[np.int32]:
    """For each pixel (H, W): 1 + the number of the topmost object there, 0 for none."""
    width, height = size
    owner = np.zeros((height, width), np.int32)
    for number, (crop, (y, x), box, _, _) in enumerate(objects, start=1):
        if crop is None:
            x1, y1, x2, y2 = (max(0, round(side)) for side in box)
            owner[y1:y2, x1:x2] = number
            continue
        top, left = max(0, -y), max(0, -x)
        region = owner[y + top : y + crop.shape[0], x + left : x + crop.shape[1]]
        region[crop[top : top + region.shape[0], left : left + region.shape[1]] > 127] = number
    return owner


def _best_place(
    box: Box,
    extent: tuple[int, int],
    number: int,
    owner: NDArray[np.int32],
    areas: NDArray[np.int64],
    taken: NDArray[np.bool_],
) -> Place | None:
    """The place that hides the fewest pixels of objects, or None when every place hides too much."""
    best, least = None, np.inf
    for x1, y1, x2, y2 in _places(box, extent, owner.shape):
        if taken[y1:y2, x1:x2].any():
            continue
        hidden = np.bincount(owner[y1:y2, x1:x2].ravel(), minlength=areas.size)
        hidden[0] = 0
        most = np.where(np.arange(areas.size) == number, _MOST_OF_OWN, _MOST_OF_OTHERS) * areas
        if (hidden > most).any():
            continue
        cost = int(hidden.sum()) + int(hidden.sum() - hidden[number])
        if cost < least:
            best, least = (x1, y1, x2, y2), cost
    return best


def _places(box: Box, extent: tuple[int, int], shape: tuple[int, ...]) -> Iterator[Place]:
    """Places to try, the usual ones first: above the box, below it, beside it, in its middle; within the picture."""
    (w, h), (height, width) = extent, shape
    x1, y1, x2, y2 = (round(side) for side in box)
    middle_x, middle_y = (x1 + x2 - w) // 2, (y1 + y2 - h) // 2
    above_below = [(x, y) for y in (y1 - h, y2) for x in (x1, x2 - w, middle_x)]
    beside = [(x2, middle_y), (x1 - w, middle_y)]
    for x, y in (*above_below, *beside, (x1, y1), (middle_x, middle_y)):
        x, y = min(x, width - w), min(y, height - h)
        x, y = max(0, x), max(0, y)
        if x + w <= width and y + h <= height:
            yield x, y, x + w, y + h


def _is_light(colour: Colour) -> bool:
    """Whether dark letters read better than white ones (by luminance, ITU-R BT.709)."""
    red, green, blue = colour
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 118
