"""RandAugment: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space" (2020).

Of fourteen operations some are drawn, with replacement, and applied one after another at one strength. Ranges are those
of the authors' code as torchvision has them; what moves into the picture is grey, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MOST = 30  # the greatest magnitude
_GREY = (128, 128, 128)

Picture = Image.Image


def rand_augment(image: np.ndarray, draws: np.ndarray, magnitude: int) -> np.ndarray:
    """An (H, W, 3) uint8 picture changed by as many operations as `draws` (n, 2) has rows.

    draws: uniform numbers in [0, 1), for each operation which and to which side. magnitude: 0 to 30, of all of them.
    """
    picture = Image.fromarray(image)
    for which, side in draws:
        operation = OPERATIONS[int(which * len(OPERATIONS))]
        picture = operation(picture, magnitude / MOST, -1 if side < 0.5 else 1)
    return np.asarray(picture)


def _moved(picture: Picture, matrix: tuple[float, ...]) -> Picture:
    """Each pixel from where `matrix` says, as Pillow takes it: x' = a x + b y + c, y' = d x + e y + f."""
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY)


def _enhanced(kind: Callable[[Picture], ImageEnhance._Enhance]) -> Callable[[Picture, float, int], Picture]:
    return lambda picture, strength, side: kind(picture).enhance(1 + side * 0.9 * strength)


def _rotated(picture: Picture, strength: float, side: int) -> Picture:
    return picture.rotate(side * 30 * strength, Image.Resampling.BILINEAR, fillcolor=_GREY)


# (picture, strength 0 to 1, side -1 or 1) → picture
OPERATIONS: tuple[Callable[[Picture, float, int], Picture], ...] = (
    lambda picture, strength, side: picture,
    lambda picture, strength, side: _moved(picture, (1, side * 0.3 * strength, 0, 0, 1, 0)),
    lambda picture, strength, side: _moved(picture, (1, 0, 0, side * 0.3 * strength, 1, 0)),
    lambda picture, strength, side: _moved(picture, (1, 0, side * _far(picture.width, strength), 0, 1, 0)),
    lambda picture, strength, side: _moved(picture, (1, 0, 0, 0, 1, side * _far(picture.height, strength))),
    _rotated,
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Sharpness),
    lambda picture, strength, side: ImageOps.posterize(picture, 8 - round(4 * strength)),
    lambda picture, strength, side: ImageOps.solarize(picture, math.ceil(256 * (1 - strength))),
    lambda picture, strength, side: ImageOps.autocontrast(picture),
    lambda picture, strength, side: ImageOps.equalize(picture),
)


def _far(side: int, strength: float) -> int:
    """Pixels of the furthest translation: 150 of 331."""
    return int(150 / 331 * side * strength)
