"""Objects drawn on their picture: translucent masks with contours, boxes, labels and a legend; pictures side by side.

Letters: H, W height and width of the picture; s the whole number it is enlarged by before anything is drawn on it.
Colours are from Okabe and Ito, "Color Universal Design" (2008), brightened: told apart with any colour vision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from tracesight.scene.fonts import font_for
from tracesight.scene.labels import draw_labels, draw_legend, font_size

if TYPE_CHECKING:
    from tracesight.scene.scene import SceneCategory, SceneObject

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]

_PALETTE: tuple[Colour, ...] = (
    (64, 176, 255),  # sky blue
    (255, 153, 0),  # orange
    (0, 201, 138),  # bluish green
    (240, 98, 176),  # reddish purple
    (250, 226, 50),  # yellow
    (235, 82, 38),  # vermilion
    (72, 110, 255),  # blue
    (176, 144, 255),  # violet
)
_LEGIBLE_SIDE = 640  # smaller pictures are enlarged to about this long a side, so that labels fit in
_MOST_ENLARGED = 8
_FILL = 0.34  # how much of the colour lies over the object's pixels
_FILL_SMALL = 0.18  # the same for small objects, which their contours half cover already
_SMALL = 24  # pixels a side
_LEAST_SURE = 0.1  # score of a keypoint from which it is drawn
_STRIP: Colour = (22, 24, 29)


@dataclass(frozen=True, slots=True)
class _Shape:
    """One object on the canvas: its crop (h, w) of 0–255 or None, the crop's origin, its box, colour and label."""

    crop: Pixels | None
    origin: tuple[int, int]
    box: tuple[float, float, float, float]
    colour: Colour
    label: str

    @property
    def area(self) -> float:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1) if self.crop is None else float(np.count_nonzero(self.crop > 127))


def category_colour(category_id: int) -> Colour:
    """The colour (R, G, B) of a category, the same in every picture: eight hues, then lighter, then darker ones."""
    turn, hue = divmod(category_id - 1, len(_PALETTE))
    target, share = ((0, 0.0), (255, 0.5), (0, 0.35))[turn % 3]
    red, green, blue = (round(value + (target - value) * share) for value in _PALETTE[hue])
    return (red, green, blue)


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB copy with EXIF orientation applied; 16-bit grey is scaled to 8 bits and not cut off."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64) // 257, 0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def draw_objects(
    image: Image.Image,
    objects: Sequence[SceneObject],
    *,
    threshold: float | None = None,
    scale: int | None = None,
    scores: bool = True,
    legend: bool = True,
) -> Image.Image:
    """A new RGB picture: masks filled and outlined, boxes, keypoints joined by their skeleton, labels like "nut 0.93",
    and below it how many of what.

    `threshold` leaves out objects of lower score; `scores=False` leaves the numbers out of the labels.
    `scale` is how many times larger than `image` the result is: None enlarges small pictures until labels fit in, 1
    keeps the size (without `legend`, exactly). Labels that would hide objects are left out, and all of them where
    objects are many and small: then colours and legend say what they are.
    """
    shown = [item for item in objects if threshold is None or item.score >= threshold]
    if scale is None:
        scale = min(_MOST_ENLARGED, max(1, -(-_LEGIBLE_SIDE // max(image.size))))
    picture = image.convert("RGB")
    if scale > 1:
        picture = picture.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    shapes = [_shape(item, scale, scores) for item in shown]
    shapes.sort(key=lambda shape: -shape.area)  # the small ones last, on top
    line = max(1, round((picture.width * picture.height) ** 0.5 / 450))
    canvas = np.array(picture)
    for shape in shapes:
        _fill(canvas, shape)
    for shape in shapes:
        _outline(canvas, shape, _line_for(shape, line))
    drawn = Image.fromarray(canvas)
    for item in sorted(shown, key=lambda item: -(item.box[2] - item.box[0]) * (item.box[3] - item.box[1])):
        _draw_points(drawn, item, scale, line)
    draw_labels(drawn, [(s.crop, s.origin, s.box, s.colour, s.label) for s in shapes], font_size(drawn.size))
    if not legend:
        return drawn
    counts: dict[tuple[int, str], int] = {}
    for item in shown:
        counts[item.category_id, item.category] = counts.get((item.category_id, item.category), 0) + 1
    rows = [(category_colour(key), name, count) for (key, name), count in sorted(counts.items())]
    return draw_legend(drawn, rows, _STRIP)


def draw_categories(image: Image.Image, categories: Sequence[SceneCategory], scale: int | None = None) -> Image.Image:
    """A new RGB picture with a strip below it: a line a category, with a bar as long as its score.

    scale: how many times larger than `image` the picture becomes; None enlarges small ones, as in `draw_objects`.
    """
    if scale is None:
        scale = min(_MOST_ENLARGED, max(1, -(-_LEGIBLE_SIDE // max(image.size))))
    picture = image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    size = font_size(picture.size)
    line, gap = round(size * 1.7), max(4, size // 2)
    sheet = Image.new("RGB", (picture.width, picture.height + line * len(categories) + gap), _STRIP)
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for place, item in enumerate(categories):
        y, colour = picture.height + gap // 2 + place * line, category_colour(item.category_id)
        draw.rectangle((0, y + 2, max(1, round(item.score * (picture.width - 1))), y + line - 2), _dim(colour))
        text = f"{item.category}  {item.score:.2f}"
        draw.text((gap, y + line // 2), text, (240, 242, 245), font_for(text, size), anchor="lm")
    return sheet


def _dim(colour: Colour) -> Colour:
    """A colour that white letters can be read on."""
    red, green, blue = (round(0.5 * value + 0.5 * dark) for value, dark in zip(colour, _STRIP))
    return (red, green, blue)


def side_by_side(left: Image.Image, right: Image.Image, titles: tuple[str, str]) -> Image.Image:
    """Two pictures beside each other under their titles; the right one is brought to the height of the left one.

    Pictures of one width are drawn of the same picture: they keep their size, and the lower one is filled up below.
    """
    if left.width != right.width:
        width = max(1, round(right.width * left.height / right.height))
        right = right.resize((width, left.height), Image.Resampling.LANCZOS)
    return in_a_row((left, right), titles)


def in_a_row(pictures: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Pictures from left to right, each below its title, as large as they are; lower ones are filled up below."""
    highest = max(picture.height for picture in pictures)
    size = round(font_size((max(picture.width for picture in pictures), highest)) * 1.15)
    gap, head = max(4, size // 2), round(size * 2)
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, head + highest), _STRIP)
    draw, x = ImageDraw.Draw(sheet), 0
    for picture, title in zip(pictures, titles):
        sheet.paste(picture.convert("RGB"), (x, head))
        draw.text((x + gap, head // 2), title, (240, 242, 245), font_for(title, size), anchor="lm")
        x += picture.width + gap
    return sheet


def _draw_points(image: Image.Image, item: SceneObject, scale: int, line: int) -> None:
    """The skeleton of an object, then its keypoints as dots: neither of what the model is not sure of."""
    places = {p.name: (p.x * scale, p.y * scale) for p in item.keypoints if p.score >= _LEAST_SURE}
    draw, colour = ImageDraw.Draw(image), category_colour(item.category_id)
    thick = max(line, min(2 * line, round((item.box[3] - item.box[1]) * scale / 40)))
    for ink, width in ((_STRIP, thick + 2), (colour, thick)):
        for a, b in item.skeleton:
            if a in places and b in places:
                draw.line([places[a], places[b]], ink, width)
    for x, y in places.values():
        r = thick + 1
        draw.ellipse((x - r, y - r, x + r, y + r), (245, 247, 250), colour, max(1, thick // 2))


def _shape(item: SceneObject, scale: int, scores: bool) -> _Shape:
    label = f"{item.category}  {item.score:.2f}" if scores else item.category  # Pillow's font has narrow spaces
    x1, y1, x2, y2 = (side * scale for side in item.box)
    crop, origin = None, (0, 0)
    if item.mask is not None:
        pixels, (y, x) = item.mask.to_crop()
        if pixels.size:
            crop, origin = _enlarged(pixels, scale), ((y - 1) * scale, (x - 1) * scale)
    return _Shape(crop, origin, (x1, y1, x2, y2), category_colour(item.category_id), label)


def _enlarged(pixels: NDArray[np.bool_], scale: int) -> Pixels:
    """Crop (h, w) as 0–255 with one pixel of background around it, s times as large and smooth at its edges."""
    padded = np.pad(pixels, 1).astype(np.uint8) * 255
    if scale == 1:
        return padded
    image = Image.fromarray(padded)
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    softened = np.asarray(image.filter(ImageFilter.GaussianBlur(scale * 0.6))).astype(np.int16)
    return np.clip((softened - 127) * 3 + 127, 0, 255).astype(np.uint8)


def _line_for(shape: _Shape, line: int) -> int:
    """Line width for an object: thinner than `line` where that would fill a small one."""
    return max(1, min(line, int(shape.area**0.5 / 10)))


def _fill(canvas: Pixels, shape: _Shape) -> None:
    if shape.crop is not None:
        opacity = _FILL if shape.area >= _SMALL**2 else _FILL_SMALL
        _blend(canvas, shape.crop, shape.origin, shape.colour, opacity)


def _outline(canvas: Pixels, shape: _Shape, line: int) -> None:
    """The contour of a mask and, where it is not small, a thin box; without a mask a full box."""
    x1, y1, x2, y2 = shape.box
    if shape.crop is None:
        _frame(canvas, shape.box, shape.colour, max(2, line), 1.0)
        return
    if min(x2 - x1, y2 - y1) >= _SMALL:
        _frame(canvas, shape.box, shape.colour, max(1, line // 2), 0.55)
    inner = np.asarray(Image.fromarray(shape.crop).filter(ImageFilter.MinFilter(2 * line + 1)))
    _blend(canvas, shape.crop - np.minimum(inner, shape.crop), shape.origin, shape.colour, 1.0)


def _blend(canvas: Pixels, crop: Pixels, origin: tuple[int, int], colour: Colour, opacity: float) -> None:
    """Lay a colour over the canvas (H, W, 3) where a crop (h, w) of 0–255 says how much; its overhang is cut off."""
    (y, x), (h, w) = origin, crop.shape
    top, left, bottom, right = max(0, y), max(0, x), min(canvas.shape[0], y + h), min(canvas.shape[1], x + w)
    if top >= bottom or left >= right:
        return
    part = canvas[top:bottom, left:right]
    cover = crop[top - y : bottom - y, left - x : right - x, None].astype(np.float32) * (opacity / 255)
    part[:] = np.rint(part + (np.array(colour, np.float32) - part) * cover).astype(np.uint8)


def _frame(canvas: Pixels, box: tuple[float, float, float, float], colour: Colour, line: int, opacity: float) -> None:
    """The four sides of a box, `line` pixels wide, inside it."""
    x1, y1, x2, y2 = (round(side) for side in box)
    w, h = max(line, x2 - x1), max(line, y2 - y1)
    bar, post = np.full((line, w), 255, np.uint8), np.full((max(0, h - 2 * line), line), 255, np.uint8)
    for piece, origin in ((bar, (y1, x1)), (bar, (y1 + h - line, x1))):
        _blend(canvas, piece, origin, colour, opacity)
    for x in (x1, x1 + w - line):
        _blend(canvas, post, (y1 + line, x), colour, opacity)
