"""Whole pictures on their way into a classifier: cut and resized to one size, turned, coloured; and views for testing.

Letters: H, W height and width of the picture; C channels; S the side of what the network gets. Pictures are (H, W, C),
uint8 or float32 in 0–1, and stay of their kind until colours change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tracesight.data.colour import jitter, light
from tracesight.data.rand_augment import rand_augment

VIEWS = ("center", "ten-crop", "multi-scale")
# Short sides of multi-scale testing for a network of 224 pixels: He et al., "Deep Residual Learning", section 4.1.
SCALES = (224, 256, 384, 480, 640)
CROPS = ("resized", "short_side", "padded")

_TRIES = 10
_DRAWS = 4 * _TRIES + 8  # a cut (4 numbers, ten tries), two flips, four of colour, two kept free

Size = tuple[int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class TrainView:
    """What training makes of a picture; calling it with (picture, generator) gives (S, S, C).

    crop: "resized" cuts a rectangle of a random share `area` of the picture and of a random shape `ratio` (width over
        height), and resizes it (Szegedy et al., "Going Deeper with Convolutions", 2015, section 6); "short_side"
        resizes the short side to a random length from `short_sides` and cuts a square (He et al., "Deep Residual
        Learning", section 3.4); "padded" adds `padding` black pixels around a picture of S × S and cuts a square
        (the same, section 4.2).
    flip, vertical_flip: each done half the time.
    rand_augment: number of operations of RandAugment, `magnitude` of them 0 to 30; 0 operations: none.
    colour: strength of `colour.jitter`; lighting: deviation of `colour.light`; 0 leaves them out.
    Each choice has random numbers of its own: switching one on or off changes no other.
    """

    image_size: int
    crop: str = "resized"
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    short_sides: tuple[int, int] = (256, 480)
    padding: int = 4
    flip: bool = True
    vertical_flip: bool = False
    rand_augment: int = 0
    magnitude: int = 9
    colour: float = 0.0
    lighting: float = 0.0

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        draws = rng.random(_DRAWS)
        image = self._cut(image, draws)
        for axis, wanted, number in ((1, self.flip, draws[40]), (0, self.vertical_flip, draws[41])):
            if wanted and number < 0.5:
                image = np.flip(image, axis)
        shifts = rng.standard_normal(3)
        if self.rand_augment:
            image = rand_augment(np.ascontiguousarray(image), rng.random((self.rand_augment, 2)), self.magnitude)
        if self.colour:
            image = jitter(unit(image), draws[42:46], self.colour)
        if self.lighting:
            image = light(unit(image), shifts * self.lighting)
        return image

    def _cut(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
        size = (self.image_size, self.image_size)
        if self.crop == "resized":
            top, left, height, width = resized_window(image.shape[0], image.shape[1], self.area, self.ratio, draws)
            return resample(image[top : top + height, left : left + width], size)
        if self.crop == "short_side":
            low, high = self.short_sides
            whole = short_side_size(image.shape[0], image.shape[1], low + math.floor(draws[0] * (high - low + 1)))
            return _window(image, whole, size, draws[1:3])
        if image.shape[:2] != size:
            image = centre_view(image, self.image_size, self.image_size)
        around = self.padding
        sides = (image.shape[0] + 2 * around, image.shape[1] + 2 * around, image.shape[2])
        padded = np.zeros(sides, image.dtype)  # np.pad takes ten times as long for a picture of 32 × 32
        padded[around : around + image.shape[0], around : around + image.shape[1]] = image
        top, left = (math.floor(u * (2 * around + 1)) for u in draws[1:3])
        return padded[top : top + self.image_size, left : left + self.image_size]


def resized_window(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], draws: np.ndarray
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random cut: torchvision's arithmetic, with four of `draws` for each of ten tries.

    Where no try fits, the largest cut in the middle that keeps to `ratio`.
    """
    for u in draws[: 4 * _TRIES].reshape(_TRIES, 4):
        target = height * width * (area[0] + (area[1] - area[0]) * u[0])
        shape = math.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * u[1])
        h, w = round(math.sqrt(target / shape)), round(math.sqrt(target * shape))
        if 0 < h <= height and 0 < w <= width:
            return math.floor(u[2] * (height - h + 1)), math.floor(u[3] * (width - w + 1)), h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def short_side_size(height: int, width: int, side: int) -> Size:
    """(height, width) after the short side has become `side`; the long one is rounded down, as torchvision does."""
    if height <= width:
        return side, max(1, int(side * width / height))
    return max(1, int(side * height / width)), side


def centre_view(image: np.ndarray, image_size: int, resize: int) -> np.ndarray:
    """(S, S, C) from the middle of a picture whose short side has become `resize`, at least S."""
    whole = short_side_size(image.shape[0], image.shape[1], resize)
    top, left = (round((side - image_size) / 2) for side in whole)
    return _part(image, whole, (image_size, image_size), top, left)


def views_of(image: np.ndarray, kind: str, image_size: int, resize: int) -> list[np.ndarray]:
    """What a picture is tested on; the scores of all are averaged. kind: one of `VIEWS`.

    "center" is one view of S × S. "ten-crop": the corners and the middle of the picture whose short side has become
    `resize`, each with its mirror image (Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural
    Networks", 2012, section 4.1). "multi-scale": whole pictures, whose short sides have become `SCALES` × S / 224, each
    with its mirror image.
    """
    if kind == "center":
        return [centre_view(image, image_size, resize)]
    if kind == "multi-scale":
        sides = [round(scale * image_size / SCALES[0]) for scale in SCALES]
        views = [resample(image, short_side_size(image.shape[0], image.shape[1], side)) for side in sides]
    else:
        size = (image_size, image_size)
        whole = short_side_size(image.shape[0], image.shape[1], resize)
        below, right = whole[0] - image_size, whole[1] - image_size
        corners = [(0, 0), (0, right), (below, 0), (below, right)]
        views = [_part(image, whole, size, *corner) for corner in corners] + [centre_view(image, image_size, resize)]
    return [turned for view in views for turned in (view, np.flip(view, 1))]


def resample(image: np.ndarray, size: Size, box: Box | None = None) -> np.ndarray:
    """The picture, or what lies in `box` of it, at another size: Pillow's bilinear filter, which antialiases."""
    if box is None:
        if image.shape[:2] == tuple(size):
            return image
        box = (0, 0, image.shape[1], image.shape[0])

    def resized(plane: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR, box))

    if image.shape[2] == 3 and image.dtype == np.uint8:
        return resized(np.ascontiguousarray(image))
    planes = [resized(np.ascontiguousarray(image[..., channel])) for channel in range(image.shape[2])]
    return np.stack(planes, axis=2)


def unit(image: np.ndarray) -> np.ndarray:
    """Pixels as float32 in 0–1."""
    return image / np.float32(255) if image.dtype == np.uint8 else image


def _window(image: np.ndarray, whole: Size, size: Size, draws: np.ndarray) -> np.ndarray:
    top, left = (math.floor(u * (side - kept + 1)) for u, side, kept in zip(draws, whole, size))
    return _part(image, whole, size, top, left)


def _part(image: np.ndarray, whole: Size, size: Size, top: int, left: int) -> np.ndarray:
    """`size` pixels from (top, left) of the picture at the size `whole`, without computing the rest."""
    if image.shape[:2] == tuple(whole):
        return image[top : top + size[0], left : left + size[1]]
    down, across = image.shape[0] / whole[0], image.shape[1] / whole[1]
    return resample(image, size, (left * across, top * down, (left + size[1]) * across, (top + size[0]) * down))
