"""Pictures for a report: truth beside prediction, whole pictures or a close look at one mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from tracesight.data.channels import as_rgb
from tracesight.data.pictures import open_picture
from tracesight.data.points import named_points
from tracesight.report.mistakes import Box, Mistake
from tracesight.scene.draw import draw_objects, side_by_side
from tracesight.scene.mask import Mask
from tracesight.scene.scene import SceneObject

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset
    from tracesight.data.record import Annotation, Record

Result = Mapping[str, Any]

SIDE = 640  # pixels, long side of one drawn picture: small ones are enlarged, so that labels can be read
CLOSE = 400  # the same for a close look
LEAST_WINDOW = 48  # a close look never shows fewer pixels than this across
TITLES = ("label", "prediction")


@dataclass(frozen=True)
class Shot:
    """A picture with its caption; `title` is a word or two, e.g. the kind of mistake."""

    image: Image.Image
    caption: str
    title: str = ""


def truth_objects(record: Record, dataset: Dataset) -> list[SceneObject]:
    """The labels of a picture, crowd regions left out, as objects of score 1."""
    return [_truth(a, record, dataset) for a in record.annotations if not a.ignored]


def _truth(a: Annotation, record: Record, dataset: Dataset) -> SceneObject:
    labelled = [(x, y, float(seen > 0)) for x, y, seen in a.keypoints or ()]
    points = named_points(labelled, dataset.keypoints.get(a.category_id))
    name, mask = dataset.categories[a.category_id], a.mask(record.height, record.width)
    return SceneObject(name, a.category_id, 1.0, a.box, mask, **points)


def result_objects(results: Sequence[Result], dataset: Dataset, threshold: float) -> list[SceneObject]:
    """COCO results of one picture from `threshold` up, as objects."""
    categories, objects = dataset.categories, []
    for result in results:
        if result["score"] < threshold:
            continue
        x, y, width, height = result["bbox"]
        mask = Mask.from_coco(result["segmentation"]) if result.get("segmentation") else None
        name = categories.get(result["category_id"], str(result["category_id"]))
        box = (x, y, x + width, y + height)
        values = result.get("keypoints", ())
        points = named_points(
            zip(values[0::3], values[1::3], values[2::3]), dataset.keypoints.get(result["category_id"])
        )
        objects.append(SceneObject(name, result["category_id"], float(result["score"]), box, mask, **points))
    return objects


def samples(
    dataset: Dataset,
    results_by_picture: Mapping[int, Sequence[Result]],
    threshold: float,
    count: int,
    channels: int = 3,
) -> list[Shot]:
    """Truth beside prediction for `count` pictures, spread evenly over those with objects, in the data's order.

    channels: of the pictures, as in `open_picture`; they are shown by `channels.as_rgb`.
    """
    indices = [i for i, record in enumerate(dataset) if record.annotations] or list(range(len(dataset)))
    chosen = [indices[k * len(indices) // count] for k in range(count)] if count < len(indices) else indices
    shots = []
    for index in chosen:
        record = dataset[index]
        truth = truth_objects(record, dataset)
        shown = result_objects(results_by_picture.get(record.id, ()), dataset, threshold)
        whole = (0.0, 0.0, float(record.width), float(record.height))
        caption = f"{Path(record.path).name}: {_count(len(truth))} labelled, {len(shown)} predicted"
        picture = as_rgb(open_picture(record.path, channels))
        shots.append(Shot(beside(picture, truth, shown, whole, SIDE), caption))
    return shots


def close_looks(
    mistakes: Sequence[Mistake],
    dataset: Dataset,
    results_by_picture: Mapping[int, Sequence[Result]],
    threshold: float,
    channels: int = 3,
) -> list[Shot]:
    """Truth beside prediction around each mistake, framed. channels: as in `samples`."""
    records = {record.id: record for record in dataset}
    shots = []
    for mistake in mistakes:
        record = records[mistake.image_id]
        truth = truth_objects(record, dataset)
        shown = result_objects(results_by_picture.get(record.id, ()), dataset, threshold)
        window = _around(mistake.box, record.width, record.height)
        picture = as_rgb(open_picture(record.path, channels))
        image = beside(picture, truth, shown, window, CLOSE, frame=mistake.box)
        shots.append(Shot(image, f"{mistake.sentence} ({Path(record.path).name})", mistake.kind))
    return shots


def beside(
    picture: np.ndarray,
    truth: Sequence[SceneObject],
    shown: Sequence[SceneObject],
    window: Box,
    side: int,
    frame: Box | None = None,
) -> Image.Image:
    """Truth beside prediction within `window` (xyxy pixels), its long side scaled to `side` pixels.

    Args:
        picture: (H, W, 3) uint8.
        truth: labelled objects.
        shown: predicted objects.
        window: what part of the picture.
        side: pixels, long side of each of the two.
        frame: a box (xyxy pixels) to mark on both; without one, each says below how many objects it shows.
    """
    x0, y0, x1, y1 = (round(v) for v in window)
    scale = side / max(x1 - x0, y1 - y0)
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    base = Image.fromarray(picture[y0:y1, x0:x1]).resize(size, Image.Resampling.BICUBIC)
    halves = []
    for objects, scores in ((truth, False), (shown, True)):
        moved = [m for o in objects if (m := _moved(o, (x0, y0, x1, y1), size)) is not None]
        half = draw_objects(base, moved, scale=1, scores=scores, legend=frame is None)
        if frame is not None:
            _mark(half, [(v - origin) * scale for v, origin in zip(frame, (x0, y0, x0, y0))])
        halves.append(half)
    return side_by_side(halves[0], halves[1], TITLES)


def _moved(item: SceneObject, window: tuple[int, int, int, int], size: tuple[int, int]) -> SceneObject | None:
    """The object in the window's own pixels, scaled to `size` (width, height); None if it lies outside."""
    x0, y0, x1, y1 = window
    sx, sy = size[0] / (x1 - x0), size[1] / (y1 - y0)
    left, top, right, bottom = item.box
    box = max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)
    if box[0] >= box[2] or box[1] >= box[3]:
        return None
    mask = None
    if item.mask is not None:
        crop, (y, x) = item.mask.to_crop()
        if crop.size:
            mask = _moved_mask(crop, (x - x0) * sx, (y - y0) * sy, (sx, sy), size)
    box = (box[0] - x0) * sx, (box[1] - y0) * sy, (box[2] - x0) * sx, (box[3] - y0) * sy
    points = tuple(replace(p, x=(p.x - x0) * sx, y=(p.y - y0) * sy) for p in item.keypoints)
    return replace(item, box=box, mask=mask, keypoints=points)


def _moved_mask(crop: np.ndarray, x: float, y: float, scale: tuple[float, float], size: tuple[int, int]) -> Mask:
    """The crop scaled, with its corner at (x, y), in a picture of `size` (width, height)."""
    left, top = round(x), round(y)
    width = max(1, round(x + crop.shape[1] * scale[0]) - left)
    height = max(1, round(y + crop.shape[0] * scale[1]) - top)
    scaled = Image.fromarray(crop.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
    return Mask.from_crop(np.asarray(scaled) >= 128, (top, left), (size[1], size[0]))


def _around(box: Box, width: int, height: int) -> Box:
    """A square window with room around the box, inside the picture."""
    side = max(LEAST_WINDOW, 2.2 * max(box[2] - box[0], box[3] - box[1]))
    w, h = min(side, width), min(side, height)
    x = min(max((box[0] + box[2] - w) / 2, 0), width - w)
    y = min(max((box[1] + box[3] - h) / 2, 0), height - h)
    return x, y, x + w, y + h


def _mark(image: Image.Image, box: Sequence[float]) -> None:
    """Corner brackets around the box, white on black so that they show on everything."""
    x0, y0, x1, y1 = box[0] - 5, box[1] - 5, box[2] + 5, box[3] + 5
    x0, y0, x1, y1 = max(x0, 3), max(y0, 3), min(x1, image.width - 4), min(y1, image.height - 4)
    arm = max(8.0, min(x1 - x0, y1 - y0) / 4)
    draw = ImageDraw.Draw(image)
    for colour, thickness in (("black", 5), ("white", 2)):
        for cx, dx in ((x0, arm), (x1, -arm)):
            for cy, dy in ((y0, arm), (y1, -arm)):
                draw.line([(cx + dx, cy), (cx, cy), (cx, cy + dy)], fill=colour, width=thickness, joint="curve")


def _count(objects: int) -> str:
    return f"{objects} object" if objects == 1 else f"{objects} objects"
