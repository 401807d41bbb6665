"""How far apart perceptual hashes are: of different pictures of one kind, and of a picture and its altered copies.

`data/phash.py` counts pictures as the same whose hashes differ in at most 40 of 256 bits.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figures
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from tracesight.data.phash import BITS, NEAR, near_pairs, perceptual_hash

KNOWN = {"bccd": 1}  # pairs that are the same slide, taken twice
COPIES = 100  # pictures of a set that are altered


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def cut(image: Image.Image, share: float) -> Image.Image:
    x, y = image.width * share / 2, image.height * share / 2
    return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 30": lambda image: compressed(image, 30),
    "half the size": lambda image: scaled(image, 0.5),
    "0.7 of the size": lambda image: scaled(image, 0.7),
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast × 0.8": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "blurred, sigma 1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "2 % of the sides cut off": lambda image: cut(image, 0.02),
    "5 % of the sides cut off": lambda image: cut(image, 0.05),
}


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file that receives the figures")
    arguments = parser.parse_args()
    facts = figures.machine(1)
    found = {name: measure(name) for name in ("nuclei", "bccd", "coco64")}
    widths = (26, 8, 8, 8)
    figures.row(("bits that differ", *found), widths)
    figures.row(("pictures", *(one["pictures"] for one in found.values())), widths)
    figures.row((f"pairs within {NEAR} bits", *(one["near"] for one in found.values())), widths)
    figures.row(("nearest of all others", *(one["nearest"] for one in found.values())), widths)
    for name in ALTERED:
        figures.row((f"{name}, 95 %", *(f"{one['altered'][name]:.0f}" for one in found.values())), widths)
    figures.write(arguments.json, facts, found)
    close = [value for one in found.values() for name, value in one["altered"].items() if not name.startswith("5 %")]
    return max(close) <= NEAR and all(one["near"] == KNOWN.get(name, 0) for name, one in found.items())


def measure(name: str) -> dict[str, Any]:
    """pictures; near: pairs that count as the same; nearest: bits between the closest of the others; altered: by
    alteration, the bits that 95 % of copies stay within."""
    folder = figures.data_folder(name)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    images = [Image.open(path).convert("RGB") for path in paths]
    hashes: list[str | None] = [perceptual_hash(np.asarray(image)) for image in images]
    pairs = near_pairs(hashes, BITS)
    nearest = min(bits for _, _, bits in pairs if bits > NEAR)
    step = max(1, len(images) // COPIES)
    altered = {}
    for how, alter in ALTERED.items():
        distances = [bits_between(hashes[at], alter(images[at])) for at in range(0, len(images), step)]
        altered[how] = float(np.percentile(distances, 95))
    near = sum(bits <= NEAR for _, _, bits in pairs)
    return {"pictures": len(images), "near": near, "nearest": nearest, "altered": altered}


def bits_between(value: str | None, image: Image.Image) -> int:
    return (int(value or "0", 16) ^ int(perceptual_hash(np.asarray(image.convert("RGB"))), 16)).bit_count()


if __name__ == "__main__":
    figures.run(main)
