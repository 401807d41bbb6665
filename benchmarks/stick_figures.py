"""Pictures of stick figures with named points, seen from the front.

The left hand is on our right, in a mirror too: so a model that does not swap the names when a picture is flipped cannot
learn them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tracesight.data.dataset import Dataset
from tracesight.data.formats import write_sets
from tracesight.data.formats.places import ALL
from tracesight.data.points import Keypoints
from tracesight.data.record import Annotation, Record

POINTS = Keypoints(
    ("head", "neck", "hip", "left_hand", "right_hand", "left_foot", "right_foot"),
    ((0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6)),
)
FINE = 3  # pixels drawn for each pixel kept


def make_figures(folder: str | Path, *, pictures: int, seed: int, side: int = 144, figures: int = 3) -> None:
    """Write `pictures` squares of `side` pixels with up to `figures` figures each, as COCO, into a new folder."""
    folder, rng = Path(folder), np.random.default_rng(seed)
    drawn = folder.with_name(f"{folder.name}-drawn")
    drawn.mkdir(parents=True)
    records, number = [], 0
    for picture in range(1, pictures + 1):
        image, draw = _background(rng, side)
        annotations: list[Annotation] = []
        for _ in range(int(rng.integers(1, figures + 1))):
            points, width = _pose(rng, side)
            box = _box(points, width, side)
            if box is None or any(_overlap(box, other.box) > 0.1 for other in annotations):
                continue
            _draw(draw, rng, points, width)
            number += 1
            seen = tuple((round(float(x), 2), round(float(y), 2), 2) for x, y in points)
            annotations.append(Annotation(number, 1, box, keypoints=seen))
        path = drawn / f"{picture:04d}.png"
        image.resize((side, side), Image.Resampling.BOX).save(path)
        records.append(Record(picture, path, side, side, tuple(annotations)))
    write_sets({ALL: Dataset.of(records, {1: "figure"}, keypoints={1: POINTS})}, folder, "coco")
    shutil.rmtree(drawn)


def _background(rng: np.random.Generator, side: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    low, high = rng.integers(120, 215, (2, 3))
    slope = np.linspace(0, 1, side * FINE)[:, None, None]
    pixels = low + (high - low) * slope + rng.normal(0, 8, (side * FINE, side * FINE, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(4):  # strokes that are no limbs
        x, y, dx, dy = rng.uniform(0, side, 2).tolist() + rng.uniform(-25, 25, 2).tolist()
        colour = tuple(rng.integers(60, 160, 3).tolist())
        draw.line([(x * FINE, y * FINE), ((x + dx) * FINE, (y + dy) * FINE)], colour, FINE)
    return image, draw


def _pose(rng: np.random.Generator, side: int) -> tuple[np.ndarray, float]:
    """Points (7, 2) of a figure somewhere on the picture, and thickness of its limbs."""
    height = rng.uniform(0.35, 0.6) * side
    arms, legs = rng.uniform(-60, 75, 2), rng.uniform(8, 40, 2)
    neck, hip = np.array([0, 0.27]), np.array([0, 0.58])
    rows = [np.array([0, 0.12]), neck, hip]
    for sign, arm in zip((1, -1), np.radians(arms)):
        rows.append(neck + 0.34 * np.array([sign * np.cos(arm), np.sin(arm)]))
    for sign, leg in zip((1, -1), np.radians(legs)):
        rows.append(hip + 0.42 * np.array([sign * np.sin(leg), np.cos(leg)]))
    tilt = np.radians(rng.uniform(-20, 20))
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    points = (np.array(rows) - 0.5) @ turn.T * height
    return points + rng.uniform(0.25, 0.75, 2) * side, height / 18


def _box(points: np.ndarray, width: float, side: int) -> tuple[float, float, float, float] | None:
    """Around all that is drawn; None where that leaves the picture."""
    head = 2.2 * width
    low = np.minimum(points.min(0) - width / 2, points[0] - head)
    high = np.maximum(points.max(0) + width / 2, points[0] + head)
    if (low < 0).any() or (high > side).any():
        return None
    x1, y1, x2, y2 = (round(float(v), 2) for v in (*low, *high))
    return x1, y1, x2, y2


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Shared area over the smaller one."""
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return max(0.0, width) * max(0.0, height) / smaller


def _draw(draw: ImageDraw.ImageDraw, rng: np.random.Generator, points: np.ndarray, width: float) -> None:
    colour = tuple(rng.integers(0, 90, 3).tolist())
    places = points * FINE
    for a, b in POINTS.skeleton:
        draw.line([tuple(places[a]), tuple(places[b])], colour, round(width * FINE))
    for x, y in places[1:]:
        r = width * FINE / 2
        draw.ellipse((x - r, y - r, x + r, y + r), colour)
    (x, y), r = places[0], 2.2 * width * FINE
    draw.ellipse((x - r, y - r, x + r, y + r), (236, 200, 170), colour, FINE)
    for sign in (-1, 1):
        eye = x + sign * r * 0.4
        draw.ellipse((eye - r / 5, y - r / 3, eye + r / 5, y + r / 12), (20, 20, 30))
