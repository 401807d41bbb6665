"""Pictures that look the same are near each other, and others are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from tracesight.data.phash import BITS, NEAR, near_pairs, perceptual_hash


def scenery(seed: int, height: int = 120, width: int = 160) -> Image.Image:
    """Coloured blobs before a gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x / width, y / height, (x + y) / (width + height)], -1) * 128
    for _ in range(12):
        cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(6, 30)
        pixels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return Image.fromarray(pixels.astype(np.uint8))


def distance(a: Image.Image | np.ndarray, b: Image.Image | np.ndarray) -> int:
    first, second = (int(perceptual_hash(np.asarray(image)), 16) for image in (a, b))
    return (first ^ second).bit_count()


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


ALIKE = {
    "compressed": lambda image: compressed(image, 40),
    "half the size": lambda image: image.resize((80, 60), Image.Resampling.BILINEAR),
    "larger, other ratio": lambda image: image.resize((500, 300), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda image: image.convert("L"),
    "transparent": lambda image: image.convert("RGBA"),
    "16 bit": lambda image: np.asarray(image.convert("L")).astype(np.uint16) * 257,
}


@pytest.mark.parametrize("change", ALIKE)
def test_what_looks_the_same_is_near(change: str) -> None:
    for seed in range(5):
        image = scenery(seed)
        assert distance(image, ALIKE[change](image)) <= NEAR


def test_other_pictures_are_far() -> None:
    hashes = [perceptual_hash(np.asarray(scenery(seed))) for seed in range(60)]
    assert near_pairs(hashes) == []
    assert near_pairs(hashes, BITS // 4) == []


def test_mirrored_and_turned_pictures_are_others() -> None:
    image = scenery(3)
    assert distance(image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > NEAR
    assert distance(image, image.transpose(Image.Transpose.ROTATE_180)) > NEAR


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (33, 47, 3), (70, 70, 4), (64, 64, 1)])
def test_any_shape_has_one_and_flat_pictures_have_zeros(shape: tuple[int, ...]) -> None:
    for level in (0, 77, 255):
        assert perceptual_hash(np.full(shape, level, np.uint8)) == "0" * 64
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert len(perceptual_hash(noise)) == 64
    assert shape == (1, 1) or perceptual_hash(noise) != "0" * 64


def test_near_pairs_are_those_of_counted_bits() -> None:
    rng = np.random.default_rng(0)
    numbers = [int.from_bytes(rng.bytes(32), "big") for _ in range(5)]
    hashes: list[str | None] = [f"{number:064x}" for number in numbers]
    hashes.insert(2, None)
    hashes += [f"{numbers[0] ^ 0b111:064x}", f"{numbers[4] ^ (1 << 255):064x}", f"{numbers[0]:064x}"]
    assert near_pairs(hashes, 3) == [(0, 6, 3), (0, 8, 0), (5, 7, 1), (6, 8, 3)]
    assert near_pairs(hashes, 0) == [(0, 8, 0)]
    assert near_pairs([None]) == near_pairs([]) == []


def test_more_hashes_than_one_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    hashes = [rng.bytes(32).hex() for _ in range(50)]
    hashes += hashes[:10]
    whole = near_pairs(hashes)
    monkeypatch.setattr("tracesight.data.phash._ROWS", 7)
    assert sorted(near_pairs(hashes)) == sorted(whole) == [(i, 50 + i, 0) for i in range(10)]
