"""The bolts, nuts and washers of the demo's pictures: signed distances for their outline, normals for their shine.

Letters: u runs along a part, v across it, both in picture pixels from its centre; z points to the camera, which looks
straight down. h, w: size of the small picture (the "patch") that holds one part. All arrays are float32.

A part is drawn `SUPERSAMPLE` times finer than the picture and averaged down, so that its alpha is the share of each
pixel that it covers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SUPERSAMPLE = 3
CATEGORIES = {1: "bolt", 2: "nut", 3: "washer"}

Array = np.ndarray


@dataclass(frozen=True)
class Light:
    """One lamp: unit vector towards it (x right, y down, z to the camera) and the sharpness of what it mirrors."""

    x: float
    y: float
    z: float


@dataclass(frozen=True)
class Metal:
    """A finish: colour in 0–1, share of light mirrored as highlight, exponent of the highlight, depth of its grain."""

    colour: tuple[float, float, float]
    shine: float
    sharpness: float
    grain: float


METALS = (
    Metal((0.74, 0.78, 0.83), 0.75, 28, 0.05),  # bright zinc
    Metal((0.64, 0.63, 0.61), 0.60, 20, 0.06),  # stainless
    Metal((0.50, 0.52, 0.54), 0.30, 9, 0.11),  # hot-dip galvanised
    Metal((0.15, 0.15, 0.17), 0.42, 14, 0.03),  # black oxide
    Metal((0.82, 0.70, 0.40), 0.55, 22, 0.06),  # yellow zinc
    Metal((0.76, 0.57, 0.27), 0.60, 24, 0.05),  # brass
)
METAL_SHARES = (0.27, 0.22, 0.13, 0.18, 0.11, 0.09)


class Patch(NamedTuple):
    """One part on its own: colour (h, w, 3) in 0–1, alpha (h, w) covered share, height of its top in pixels."""

    category_id: int
    colour: Array
    alpha: Array
    height: float


class Surface(NamedTuple):
    """What a part looks like before light falls on it, at supersampled size.

    distance: (H, W) signed distance to the outline in pixels, negative inside; nu, nv: (H, W) the normal's components
    along u and v (z follows); dark: (H, W) factor for what light hardly reaches.
    """

    distance: Array
    nu: Array
    nv: Array
    dark: Array


def draw_part(rng: np.random.Generator, category_id: int, light: Light, scale: float) -> Patch:
    """A part of random size, finish and direction; `scale` is picture pixels per pixel of a 144-pixel picture."""
    angle = rng.uniform(0, 2 * math.pi)
    shift = rng.uniform(-0.5, 0.5, 2)
    design = {1: _bolt_design, 2: _nut_design, 3: _washer_design}[category_id](rng, scale)
    half = (design["half_length"] + 1.5, design["half_width"] + 1.5)
    cos, sin = math.cos(angle), math.sin(angle)
    half_w = math.ceil(abs(cos) * half[0] + abs(sin) * half[1] + 0.5)
    half_h = math.ceil(abs(sin) * half[0] + abs(cos) * half[1] + 0.5)
    x = _samples(half_w) - np.float32(shift[0])
    y = (_samples(half_h) - np.float32(shift[1]))[:, None]
    u = np.float32(cos) * x + np.float32(sin) * y
    v = np.float32(cos) * y - np.float32(sin) * x
    surface = {1: _bolt, 2: _nut, 3: _washer}[category_id](u, v, design)
    metal = METALS[rng.choice(len(METALS), p=METAL_SHARES)]
    tilt = rng.normal(0, 0.09, 2)
    nx = cos * surface.nu - sin * surface.nv + np.float32(tilt[0])
    ny = sin * surface.nu + cos * surface.nv + np.float32(tilt[1])
    covered = np.clip(0.5 - surface.distance * SUPERSAMPLE, 0, 1)
    colour = _shine(rng, nx, ny, metal, light) * (surface.dark * covered)
    alpha = _average(covered[None])
    colour = _average(colour) / np.maximum(alpha, 1e-3)
    return Patch(category_id, np.moveaxis(colour, 0, -1), alpha[0], design["height"])


def _samples(half: int) -> Array:
    """Positions of the sub-pixel centres of the 2 × `half` pixels around zero."""
    return ((np.arange(2 * half * SUPERSAMPLE, dtype=np.float32) + 0.5) / SUPERSAMPLE - half).astype(np.float32)


def _average(fine: Array) -> Array:
    """(C, h·S, w·S) → (C, h, w): mean of each S × S block."""
    channels, height, width = fine.shape
    rows = fine.reshape(channels, height // SUPERSAMPLE, SUPERSAMPLE, width).sum(2)
    total = rows[..., ::SUPERSAMPLE].copy()
    for k in range(1, SUPERSAMPLE):
        total += rows[..., k::SUPERSAMPLE]
    return total * np.float32(1 / SUPERSAMPLE**2)


def _shine(rng: np.random.Generator, nx: Array, ny: Array, metal: Metal, light: Light) -> Array:
    """(3, H, W) colours of a metal whose normals are (nx, ny, z): diffuse, highlight and a mirrored room."""
    nz = 1 / np.sqrt(nx * nx + ny * ny + 1)
    sideways = (nx * light.x + ny * light.y) * nz
    facing = sideways + nz * light.z
    towards = (facing + nz) * (1 / math.sqrt(light.x**2 + light.y**2 + (light.z + 1) ** 2))
    highlight = metal.shine * np.exp(metal.sharpness * 2.5 * (towards - 1))
    across = nz * sideways * (2 / math.hypot(light.x, light.y))
    window, beam = 3 * (across - 0.15), 4 * (across + 0.45)  # the mirrored room: bright to the lamp, a dark beam away
    room = 0.5 + 0.5 * window / np.sqrt(1 + window * window) - 0.3 / (1 + beam * beam)
    grain = rng.standard_normal((nx.shape[0] // SUPERSAMPLE, nx.shape[1] // SUPERSAMPLE), dtype=np.float32)
    grain = 1 + metal.grain * np.repeat(np.repeat(grain, SUPERSAMPLE, 0), SUPERSAMPLE, 1)
    base = (0.20 + 0.50 * np.maximum(facing, 0) + 0.40 * room) * grain
    colour = np.asarray(metal.colour, np.float32)[:, None, None]
    return colour * base + (0.35 + 0.65 * colour) * highlight


def _edge(distance: Array, width: float) -> Array:
    """0 inside, rising to 1 at the outline over `width` pixels: where an edge has been rounded."""
    return np.clip(1 + distance / width, 0, 1)


def _box(u: Array, v: Array, low: float, high: float, half: float | Array, corner: float) -> Array:
    """Signed distance to the rectangle low ≤ u ≤ high, |v| ≤ half, its corners cut by `corner` pixels."""
    du, dv = np.abs(u - (low + high) / 2) - (high - low) / 2, np.abs(v) - half
    return np.maximum(np.maximum(du, dv), (du + dv + corner) * 0.7071)


# ---------------------------------------------------------------------------------------------------------- washers


def _washer_design(rng: np.random.Generator, scale: float) -> dict[str, float]:
    outer = rng.uniform(11, 17) * scale
    return {
        "half_length": outer, "half_width": outer, "height": 1.6 * scale, "outer": outer,
        "inner": outer * rng.uniform(0.50, 0.62), "turned": rng.uniform(0.03, 0.16),
        "pitch": rng.uniform(1.1, 2) * scale, "domed": rng.uniform(-0.25, 0.25), "edge": rng.uniform(0.8, 1.6) * scale,
    }  # fmt: skip


def _washer(u: Array, v: Array, design: dict[str, float]) -> Surface:
    r = np.sqrt(u * u + v * v) + 1e-3
    outside, inside = r - design["outer"], design["inner"] - r
    middle = (design["outer"] + design["inner"]) / 2
    slope = 0.9 * _edge(outside, design["edge"]) - 0.9 * _edge(inside, design["edge"])
    slope += design["domed"] * (r - middle) / (design["outer"] - middle)
    slope += design["turned"] * np.sin(r * np.float32(2 * math.pi / design["pitch"]))  # rings left by the lathe
    return Surface(np.maximum(outside, inside), slope * u / r, slope * v / r, 1 - 0.25 * _edge(inside, design["edge"]))


# ------------------------------------------------------------------------------------------------------------- nuts


def _nut_design(rng: np.random.Generator, scale: float) -> dict[str, float]:
    apothem = rng.uniform(9.5, 13.5) * scale
    return {
        "half_length": apothem * 1.12, "half_width": apothem * 1.12, "height": apothem * 0.8, "apothem": apothem,
        "hole": apothem * rng.uniform(0.40, 0.46), "pitch": 1.7 * scale, "edge": 0.9 * scale,
    }  # fmt: skip


def _nut(u: Array, v: Array, design: dict[str, float]) -> Surface:
    r = np.sqrt(u * u + v * v) + 1e-3
    apothem, hole = design["apothem"], design["hole"]
    sides = [u * np.float32(math.cos(k * math.pi / 3)) + v * np.float32(math.sin(k * math.pi / 3)) for k in range(3)]
    hexagon = np.maximum(np.maximum(np.abs(sides[0]), np.abs(sides[1])), np.abs(sides[2])) - apothem
    outline = np.maximum(hexagon, r - apothem * 1.12)
    chamfer = np.clip((r - 0.93 * apothem) / design["edge"], 0, 1)  # the cone that cuts the six corners
    sink = np.clip((hole * 1.38 - r) / design["edge"], 0, 1)  # the funnel where the thread begins
    thread = sink * np.sin(r * np.float32(2 * math.pi / design["pitch"]))
    slope = 0.62 * chamfer - 0.75 * sink + 0.5 * thread + 0.5 * _edge(outline, design["edge"])
    deep = sink * np.clip((hole * 1.38 - r) / (hole * 0.38), 0, 1)
    dark = (1 - 0.45 * deep) * (1 - 0.25 * _edge(hexagon, design["edge"]))
    return Surface(np.maximum(outline, hole - r), slope * u / r, slope * v / r, dark)


# ------------------------------------------------------------------------------------------------------------ bolts


def _bolt_design(rng: np.random.Generator, scale: float) -> dict[str, float]:
    shank = rng.uniform(4.4, 5.8) * scale
    length = rng.uniform(31, 45) * scale
    corner = shank * rng.uniform(1.75, 1.95)  # half the width across the head's corners
    head = shank * rng.uniform(1.15, 1.4)
    turn = rng.uniform(-math.pi / 6, math.pi / 6)
    return {
        "half_length": length / 2, "half_width": corner, "height": corner, "shank": shank, "corner": corner,
        "head": head, "turn": turn, "thread": head + (length - head) * (0.05, 0.25, 0.45)[rng.integers(3)],
        "pitch": rng.uniform(2.1, 2.8) * scale, "depth": 0.35 * scale, "edge": 0.9 * scale,
    }  # fmt: skip


def _bolt(u: Array, v: Array, design: dict[str, float]) -> Surface:
    along = u + np.float32(design["half_length"])  # 0 at the head's top
    head_nu, head_nv, head_half = _bolt_head(along, v, design)
    head = _box(along, v, 0, design["head"], head_half, 1.2 * design["edge"])
    end, pitch = 2 * design["half_length"], design["pitch"]
    threaded = np.clip((along - design["thread"]) / pitch, 0, 1)
    phase = (along + 0.22 * pitch * v / design["shank"]) * np.float32(2 * math.pi / pitch)
    radius = design["shank"] - design["depth"] * threaded * (1 - np.cos(phase))
    shank = _box(along, v, design["head"] - 1, end, radius, 2.2 * design["edge"])
    across = np.clip(v / design["shank"], -0.97, 0.97)
    shank_nv = across / np.sqrt(1 - across * across)
    shank_nu = 0.75 * threaded * np.sin(phase) + 1.2 * np.clip((along - end) / design["edge"] + 1.5, 0, 1)
    in_head = head < shank
    dark = np.where(in_head, 1, 1 - 0.28 * threaded * (1 - np.cos(phase)))
    dark = dark * (1 - 0.45 * np.exp(-np.abs(along - design["head"] - 0.5) / design["edge"]) * ~in_head)
    nu, nv = np.where(in_head, head_nu, shank_nu), np.where(in_head, head_nv, shank_nv)
    return Surface(np.minimum(head, shank), nu, nv, dark)


def _bolt_head(along: Array, v: Array, design: dict[str, float]) -> tuple[Array, Array, float]:
    """Slopes of the hexagon lying on its side, and its half width: each facet mirrors as a plane of its own."""
    corners = [design["corner"] * math.sin(design["turn"] + (k + 0.5) * math.pi / 3) for k in (-2, -1, 0, 1)]
    facets = [math.tan(np.clip(design["turn"] + k * math.pi / 3, -1.25, 1.25)) for k in (-1, 0, 1)]
    half = max(abs(c) for c in corners)
    nv = np.where(v < corners[1], facets[0], np.where(v < corners[2], facets[1], facets[2])).astype(np.float32)
    nu = -0.9 * np.clip(1 - along / (1.6 * design["edge"]), 0, 1) + 0.4 * np.clip(
        1 + (along - design["head"]) / design["edge"], 0, 1
    )
    return nu, nv, half
