"""Pictures for `tracesight demo`: trays of bolts, nuts and washers lying at random, with exact masks as COCO.

Everything is computed with numpy and Pillow from (seed, picture number); nothing is downloaded and nobody's rights are
touched, so the pictures are CC0. A part on top cuts the mask of the one beneath, holes are not part of a mask, and no
part shows less than half of itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from tracesight.data.random import generator
from tracesight.data.tray_parts import CATEGORIES, Light, Patch, draw_part
from tracesight.data.tray_surface import draw_tray, light_field, photograph
from tracesight.scene.mask import Mask

VERSION = 1
TOOL = f"tracesight.data.trays {VERSION}"
LICENCE = {"id": 1, "name": "CC0-1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
LEAST_VISIBLE = 0.6  # share of a part that must show, of what the whole part would cover
LEANING = 0.35  # share of parts dropped against another one
FEWEST, MOST = 6, 12  # parts put into a tray; a few may not find room

Array = np.ndarray


class Placed(NamedTuple):
    """A part in the tray. y, x: canvas pixel of its patch's corner; visible (h, w): share of each pixel that shows."""

    patch: Patch
    y: int
    x: int
    visible: Array

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.visible.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


def make_trays(
    folder: Path | str,
    *,
    pictures: int,
    seed: int,
    side: int = 144,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `folder`/images/NNNN.png and `folder`/instances.json: `pictures` trays of `side` × `side` pixels.

    The same seed gives the same pictures, whatever their number. `progress` is called with (done, all) after each.
    Raises ValueError for fewer than one picture, or a side under 96 pixels, where a tray holds no six parts.
    """
    folder = Path(folder)
    if pictures < 1:
        raise ValueError(f"pictures={pictures}: at least one is needed")
    if side < 96:
        raise ValueError(f"side={side}: at least 96 pixels are needed")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(pictures):
        picture, objects = draw_picture(seed, number, side)
        name = f"{number:04d}.png"
        Image.fromarray(picture).save(folder / "images" / name, compress_level=3)
        images.append({"id": number + 1, "file_name": name, "height": side, "width": side, "license": LICENCE["id"]})
        for category_id, mask in objects:
            annotations.append(_annotation(len(annotations) + 1, number + 1, category_id, mask))
        if progress is not None:
            progress(number + 1, pictures)
    description = f"Trays of bolts, nuts and washers, made by {TOOL} with seed {seed}; no photographs"
    coco = {
        "info": {"description": description, "version": str(VERSION), "contributor": TOOL, "url": LICENCE["url"]},
        "licenses": [LICENCE],
        "categories": [{"id": i, "name": name, "supercategory": "part"} for i, name in CATEGORIES.items()],
        "images": images,
        "annotations": annotations,
    }
    (folder / "instances.json").write_text(json.dumps(coco) + "\n", encoding="utf-8")


def _annotation(number: int, image: int, category_id: int, mask: Mask) -> dict:
    x0, y0, x1, y1 = (float(edge) for edge in mask.box)
    return {
        "id": number,
        "image_id": image,
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(mask.area),
        "iscrowd": 0,
        "segmentation": mask.to_coco(),
        "tool": TOOL,
    }


def draw_picture(seed: int, number: int, side: int = 144) -> tuple[Array, list[tuple[int, Mask]]]:
    """Picture `number` of a seed: (side, side, 3) uint8 and, from the lowest part up, (category id, visible mask)."""
    rng = generator(seed, number, "tray")
    scale = side / 144
    margin = round(56 * scale)  # no part reaches farther out of the picture
    tray, walls = draw_tray(rng, side, scale)
    canvas = np.pad(tray, [(margin, margin), (margin, margin), (0, 0)])
    limits = (0, 0, side + 2 * margin, side + 2 * margin)
    room = tuple(limit if wall is None else wall + margin for wall, limit in zip(walls, limits))
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.55, 1.15)
    level = math.cos(elevation)
    light = Light(level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation))
    wanted = int(rng.integers(FEWEST, MOST + 1))
    patches = [draw_part(rng, int(rng.integers(1, len(CATEGORIES) + 1)), light, scale) for _ in range(wanted)]
    placed = _lay_out(rng, patches, room, margin, side)
    depth = rng.uniform(0.45, 0.8)
    for part in placed:
        _shadow(canvas, part, light, depth, scale)
        window, alpha = part.window, part.patch.alpha[..., None]
        canvas[window] = canvas[window] * (1 - alpha) + part.patch.colour * alpha
    scene = canvas[margin : margin + side, margin : margin + side]
    scene = scene * light_field(rng, side, (math.cos(azimuth), math.sin(azimuth)), scale)
    objects = []
    for part in placed:
        origin = (part.y - margin, part.x - margin)
        objects.append((part.patch.category_id, Mask.from_crop(part.visible > 0.5, origin, (side, side))))
    return photograph(rng, scene), objects


def _lay_out(
    rng: np.random.Generator, patches: list[Patch], room: tuple[int, ...], margin: int, side: int
) -> list[Placed]:
    """Drop the parts one after another: some slide into or onto one that lies there already, the others find room.

    A place where any part would show less than `LEAST_VISIBLE` of itself is given up; after ten of them, the part is.
    """
    placed: list[Placed] = []
    for patch in patches:
        leaning = rng.random() < LEANING
        for _ in range(10):
            if leaning and placed:
                y, x = _slide(rng, patch, placed[rng.integers(len(placed))])
            else:
                y, x = (margin + int(rng.integers(side)) - length // 2 for length in patch.alpha.shape)
                if any(_overlap(patch, y, x, part) > 0 for part in placed):
                    continue
            after = _drop(patch, y, x, placed, room, margin, side)
            if after is not None:
                placed = after
                break
    return placed


def _slide(rng: np.random.Generator, patch: Patch, other: Placed) -> tuple[int, int]:
    """The place where `patch`, coming from a random direction, has run a little into or onto `other`."""
    angle = rng.uniform(0, 2 * math.pi)
    height, width = patch.alpha.shape
    centre_y = other.y + (other.visible.shape[0] - height) / 2
    centre_x = other.x + (other.visible.shape[1] - width) / 2

    def place(distance: float) -> tuple[int, int]:
        return round(centre_y + distance * math.sin(angle)), round(centre_x + distance * math.cos(angle))

    near, far = 0.0, float(max(height, width) + max(other.visible.shape)) / 1.4
    while far - near > 1:
        middle = (near + far) / 2
        if _overlap(patch, *place(middle), other) > 1:
            near = middle
        else:
            far = middle
    return place(near - rng.uniform(0, 0.22) * min(height, width) * rng.integers(2))


def _overlap(patch: Patch, y: int, x: int, other: Placed) -> float:
    """Pixels that `patch` at (y, x) would cover of `other`."""
    common = _common((y, x), patch.alpha.shape, (other.y, other.x), other.visible.shape)
    return 0.0 if common is None else float((patch.alpha[common[0]] * other.patch.alpha[common[1]]).sum())


def _common(
    a: tuple[int, int], a_shape: tuple[int, ...], b: tuple[int, int], b_shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Where two patches with corners a and b lie over each other: as slices of each; None where they do not."""
    y0, x0 = max(a[0], b[0]), max(a[1], b[1])
    y1, x1 = min(a[0] + a_shape[0], b[0] + b_shape[0]), min(a[1] + a_shape[1], b[1] + b_shape[1])
    if y0 >= y1 or x0 >= x1:
        return None
    return (
        (slice(y0 - a[0], y1 - a[0]), slice(x0 - a[1], x1 - a[1])),
        (slice(y0 - b[0], y1 - b[0]), slice(x0 - b[1], x1 - b[1])),
    )


def _drop(
    patch: Patch,
    y: int,
    x: int,
    placed: list[Placed],
    room: tuple[int, ...],
    margin: int,
    side: int,
) -> list[Placed] | None:
    """The tray with `patch` on top at (y, x), the masks beneath it cut; None where too little of a part would show."""
    height, width = patch.alpha.shape
    if x < room[0] or y < room[1] or x + width > room[2] or y + height > room[3]:
        return None
    visible = np.zeros_like(patch.alpha)
    within = _common((y, x), patch.alpha.shape, (margin, margin), (side, side))
    if within is not None:
        visible[within[0]] = patch.alpha[within[0]]
    if not _shows(patch, visible):
        return None
    after = []
    for part in placed:
        overlap = _common((y, x), patch.alpha.shape, (part.y, part.x), part.visible.shape)
        if overlap is not None:
            left = part.visible.copy()
            left[overlap[1]] *= 1 - patch.alpha[overlap[0]]
            if not _shows(part.patch, left):
                return None
            part = part._replace(visible=left)
        after.append(part)
    return [*after, Placed(patch, y, x, visible)]


def _shows(patch: Patch, visible: Array) -> bool:
    return bool(np.count_nonzero(visible > 0.5) >= LEAST_VISIBLE * np.count_nonzero(patch.alpha > 0.5))


def _shadow(canvas: Array, part: Placed, light: Light, depth: float, scale: float) -> None:
    """Darken what lies under a part: a cast shadow, shifted away from the lamp, and a tight one where it rests."""
    pad = round(8 * scale)
    height, width = part.visible.shape
    alpha = np.zeros((height + 2 * pad, width + 2 * pad), np.uint8)
    alpha[pad:-pad, pad:-pad] = part.patch.alpha * 255
    outline = Image.fromarray(alpha)
    reach = min(part.patch.height * 0.8, 7 * scale) / max(light.z, 0.3) * 0.6
    cast = np.roll(
        np.asarray(outline.filter(ImageFilter.GaussianBlur(0.7 * scale + 0.22 * reach)), np.float32),
        (round(-light.y * reach), round(-light.x * reach)),
        (0, 1),
    )
    contact = np.asarray(outline.filter(ImageFilter.GaussianBlur(1.3 * scale)), np.float32)
    darkness = np.maximum(depth * cast, 0.5 * contact) / 255
    top, left = max(part.y - pad, 0), max(part.x - pad, 0)
    bottom, right = min(part.y + height + pad, canvas.shape[0]), min(part.x + width + pad, canvas.shape[1])
    darkness = darkness[top - part.y + pad : bottom - part.y + pad, left - part.x + pad : right - part.x + pad]
    canvas[top:bottom, left:right] *= (1 - darkness)[..., None]
