"""The empty tray of the demo's pictures: its material, what lies in it that is no part, the light and the camera.

Colours are float32 in 0–1; side is the picture's in pixels, scale its pixels per pixel of a 144-pixel picture.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray

# colour and texture; dark, bright and in between, so that parts are sometimes brighter and sometimes darker than them
TRAYS = (
    ((0.12, 0.12, 0.13), "plastic"),
    ((0.80, 0.80, 0.77), "plastic"),
    ((0.13, 0.27, 0.50), "plastic"),
    ((0.20, 0.40, 0.30), "ribbed"),
    ((0.50, 0.35, 0.21), "wood"),
    ((0.62, 0.51, 0.37), "plastic"),
    ((0.56, 0.57, 0.58), "brushed"),
    ((0.52, 0.14, 0.12), "plastic"),
    ((0.40, 0.41, 0.43), "ribbed"),
    ((0.70, 0.59, 0.43), "wood"),
)
THREADS = ((170, 40, 40), (40, 70, 160), (25, 25, 28), (225, 222, 212), (60, 120, 70))


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: float | tuple[float, float]) -> Array:
    """(H, W) noise of deviation about 1 whose blobs are `cells` pixels wide (one number, or rows and columns)."""
    rows, columns = cells if isinstance(cells, tuple) else (cells, cells)
    grid = rng.standard_normal((math.ceil(size[0] / rows) + 1, math.ceil(size[1] / columns) + 1), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def draw_tray(rng: np.random.Generator, side: int, scale: float) -> tuple[Array, list[int | None]]:
    """An empty tray with its clutter, (side, side, 3).

    Also returns where walls stand, [x0, y0, x1, y1] in pixels, None for no wall: no part reaches beyond them.
    """
    size = (side, side)
    colour, texture = TRAYS[rng.integers(len(TRAYS))]
    colour = np.clip(np.asarray(colour, np.float32) * rng.uniform(0.85, 1.15) + rng.normal(0, 0.02, 3), 0.03, 0.95)
    relief = 0.025 * smooth_noise(rng, size, 24 * scale) + 0.02 * smooth_noise(rng, size, 2 * scale)
    across = bool(rng.integers(2))
    if texture == "brushed":
        relief = relief + 0.05 * smooth_noise(rng, size, (1.0, 40 * scale) if across else (40 * scale, 1.0))
    elif texture == "wood":
        grain = smooth_noise(rng, size, (5 * scale, 70 * scale) if across else (70 * scale, 5 * scale))
        pores = smooth_noise(rng, size, (1.0, 25 * scale) if across else (25 * scale, 1.0))
        relief = relief + 0.08 * np.sin(4 * grain) + 0.04 * pores
    elif texture == "ribbed":
        x, y = _grid(size)
        angle, pitch = rng.uniform(0, math.pi), rng.uniform(4, 6) * scale
        wave = np.sin((x * math.cos(angle) + y * math.sin(angle)) * np.float32(2 * math.pi / pitch))
        relief = relief + 0.09 * np.tanh(2 * wave)
    canvas = colour.astype(np.float32) * (1 + relief)[..., None]
    stain = np.clip(smooth_noise(rng, size, 20 * scale) - rng.uniform(0.7, 1.8), 0, 0.5)  # oil, worn spots
    canvas *= (1 - rng.uniform(-0.5, 0.9) * stain)[..., None]
    return _rim(rng, _clutter(rng, canvas, scale), scale)


def _grid(size: tuple[int, int]) -> tuple[Array, Array]:
    return np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)[:, None]


def _rim(rng: np.random.Generator, tray: Array, scale: float) -> tuple[Array, list[int | None]]:
    """Raise the tray's wall along one or two sides of one picture in three; returns where, as `draw_tray` does."""
    walls: list[int | None] = [None, None, None, None]
    if rng.random() > 0.35:
        return tray, walls
    base, side = tray.mean((0, 1)), tray.shape[0]
    line = np.arange(side, dtype=np.float32)
    for edge in rng.permutation(4)[: rng.integers(1, 3)]:
        width = float(rng.uniform(5, 12)) * scale
        depth = width - line if edge < 2 else line - (side - width)  # pixels into the wall
        wall = np.clip(depth, 0, 1)
        shade = float(rng.uniform(0.75, 1.25)) + 0.5 * np.exp(-(((depth - 1.5 * scale) / scale) ** 2))
        foot = 1 - 0.4 * np.exp(np.minimum(depth, 0) / (3 * scale)) * (depth <= 0)
        shape = (1, -1, 1) if edge % 2 == 0 else (-1, 1, 1)
        wall, shade, foot = wall.reshape(shape), shade.reshape(shape), foot.reshape(shape)
        tray = tray * (foot * (1 - wall)) + base * (wall * shade)
        walls[edge] = math.ceil(width) if edge < 2 else math.floor(side - width)
    return tray, walls


def _clutter(rng: np.random.Generator, tray: Array, scale: float) -> Array:
    """Lay stickers, scratches, swarf, threads and chips on the tray: what a segmenter has to leave alone."""
    fine, side = 2, tray.shape[0]
    layer = Image.new("RGBA", (side * fine, side * fine))
    pen = ImageDraw.Draw(layer)
    unit = fine * scale

    def spot() -> Array:
        return rng.uniform(0, side, 2) * fine

    def curve(bend: float, steps: int, stride: float) -> list[tuple[float, float]]:
        turns = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(rng.normal(0, bend), bend, steps))
        path = spot() + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0) * stride * unit
        return [tuple(point) for point in path]

    if rng.random() < 0.45:
        _sticker(rng, pen, spot(), unit)
    for _ in range(rng.integers(0, 9)):  # scratches
        bright = int(rng.choice([20, 240]))
        tone = (bright, bright, bright, int(rng.integers(40, 130)))
        pen.line(curve(0.02, 8, rng.uniform(2, 9)), fill=tone, width=max(1, round(unit * rng.uniform(0.3, 0.6))))
    for _ in range(rng.integers(0, 4)):  # thread scraps
        path, ink = curve(0.22, 26, rng.uniform(0.9, 1.8)), THREADS[rng.integers(len(THREADS))]
        pen.line([(x + unit, y + unit) for x, y in path], fill=(0, 0, 0, 70), width=round(1.2 * unit))
        pen.line(path, fill=(*ink, 255), width=max(1, round(unit * rng.uniform(0.8, 1.3))))
    for _ in range(rng.integers(0, 5)):  # swarf: curled shavings, shiny on one side
        path = curve(0.5, 16, rng.uniform(0.7, 1.2))
        pen.line([(x + 0.7 * unit, y + 0.7 * unit) for x, y in path], fill=(20, 20, 22, 200), width=round(unit))
        pen.line(path, fill=(205, 208, 214, 255), width=max(1, round(0.7 * unit)))
    for _ in range(rng.integers(4, 30)):  # chips and dust
        centre, radius = spot(), unit * rng.uniform(0.3, 1.5)
        corners = np.sort(rng.uniform(0, 2 * math.pi, 5))
        points = centre + radius * np.stack([np.cos(corners), np.sin(corners)], 1)
        tone = int(np.clip(rng.normal(rng.choice([45, 200]), 25), 0, 255))
        pen.polygon([tuple(point) for point in points + unit * 0.5], fill=(0, 0, 0, 80))
        pen.polygon([tuple(point) for point in points], fill=(tone, tone, tone, 235))
    over = np.asarray(layer.reduce(fine), np.float32) / 255
    alpha = over[..., 3:]
    return tray * (1 - alpha) + over[..., :3] * alpha


def _sticker(rng: np.random.Generator, pen: ImageDraw.ImageDraw, centre: Array, unit: float) -> None:
    """A paper label with printed lines or a bar code, and its thin shadow."""
    angle = rng.uniform(0, 2 * math.pi)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    half = np.array([rng.uniform(11, 22), rng.uniform(6, 12)]) * unit

    def block(x0: float, y0: float, x1: float, y1: float, fill: tuple[int, ...], move: float = 0) -> None:
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) * half @ turn + centre + move * unit
        pen.polygon([tuple(corner) for corner in corners], fill=fill)

    paper = ((236, 233, 222, 255), (232, 205, 70, 255), (245, 245, 245, 255), (222, 120, 60, 255))[rng.integers(4)]
    block(-1, -1, 1, 1, (0, 0, 0, 90), move=1)
    block(-1, -1, 1, 1, paper)
    ink = (40, 40, 45, 230)
    if rng.random() < 0.5:
        for x in np.arange(-0.8, 0.75, 0.11):
            if rng.random() < 0.75:
                block(x, -0.6, x + rng.uniform(0.03, 0.08), 0.3, ink)
        block(-0.6, 0.5, 0.5, 0.68, ink)
    else:
        for y in (-0.65, -0.2, 0.25, 0.6):
            block(-0.82, y, rng.uniform(-0.2, 0.82), y + 0.16, ink)


def light_field(rng: np.random.Generator, side: int, light: tuple[float, float], scale: float) -> Array:
    """(side, side, 3) factors: falling off away from `light`, a hot spot, a broad shadow, a colour cast."""
    x, y = _grid((side, side))
    x, y = x / side - 0.5, y / side - 0.5
    field = 1 + rng.uniform(0.2, 1.0) * (x * light[0] + y * light[1])
    cx, cy = rng.uniform(-0.5, 0.5, 2)
    field += rng.uniform(0, 0.6) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(0.03, 0.2))
    if rng.random() < 0.45:  # a hand, a lamp's arm, the edge of a shelf
        angle, offset = rng.uniform(0, 2 * math.pi), rng.uniform(-0.1, 0.35)
        reach = (x * math.cos(angle) + y * math.sin(angle) - offset) / rng.uniform(0.01, 0.08)
        field *= 1 - rng.uniform(0.25, 0.5) * (0.5 + 0.5 * np.tanh(reach))
    cast = (1 + rng.normal(0, 0.035, 3)).astype(np.float32)
    return np.maximum(field, 0.25)[..., None] * cast


def photograph(rng: np.random.Generator, scene: Array) -> Array:
    """(side, side, 3) light → uint8 picture: exposure, a slightly soft lens, shot and read-out noise."""
    level, brightest = float(scene.mean()), float(np.partition(scene, -scene.size // 33, None)[-scene.size // 33])
    gain = rng.uniform(0.9, 1.15) * (0.55 + 0.45 * rng.uniform(0.34, 0.5) / max(level, 0.05))
    scene = scene * np.float32(min(gain, rng.uniform(0.85, 1.1) / brightest))
    soft = np.float32(rng.uniform(0.04, 0.14))  # weight of each neighbour
    for _ in range(2):  # along columns, then, transposed, along rows
        padded = np.concatenate([scene[:1], scene, scene[-1:]])
        scene = ((1 - 2 * soft) * scene + soft * (padded[:-2] + padded[2:])).swapaxes(0, 1)
    grey = rng.standard_normal((*scene.shape[:2], 1), dtype=np.float32)
    noise = 0.8 * grey + 0.5 * rng.standard_normal(scene.shape, dtype=np.float32)
    scene = scene + np.float32(rng.uniform(0.008, 0.03)) * noise * np.sqrt(0.15 + np.maximum(scene, 0))
    knee = np.where(scene > 0.8, 1 - 0.2 * np.exp(-(scene - 0.8) / 0.2), scene)  # highlights roll off
    return np.clip(knee * 255 + 0.5, 0, 255).astype(np.uint8)
