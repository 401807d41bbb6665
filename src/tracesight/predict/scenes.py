"""From pictures to scenes: the only place where tensors become a `Scene`.

D detections a picture; boxes are xyxy pixels, of the network's picture until they are scaled to the original's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracesight.bundle import UNUSED, Bundle
from tracesight.data.batch import STRIDE, Batch, moved, predict_batch
from tracesight.data.pictures import open_picture
from tracesight.data.points import Keypoints, named_points
from tracesight.data.proposals import ProposalSet, Source
from tracesight.data.tiles import Tiling
from tracesight.data.transforms import MIN_PROPOSAL_SIDE, Window, resized_size
from tracesight.errors import PartialFailure, UserError
from tracesight.lineage import file_digest
from tracesight.models.augmented import View, detect_in_views
from tracesight.models.detections import Detections
from tracesight.models.proposals import GivenProposals, proposes_only
from tracesight.ops.paste import mask_runs
from tracesight.ops.soft_nms import METHODS
from tracesight.predict.ahead import read_ahead
from tracesight.predict.augment import mirrored_points, views_of
from tracesight.predict.propose import source_of
from tracesight.predict.tiles import cut_by_seam, merged, tiling_of
from tracesight.scene import Mask, Picture, Scene, SceneObject


@dataclass(frozen=True)
class Failure:
    """A picture that could not be read, and why: one line that names it."""

    path: Path
    reason: str


def scenes(
    bundle: Bundle,
    pictures: Iterable[str | Path],
    threshold: float | None = None,
    max_objects: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
    views: str = "center",
    proposals: ProposalSet | Source | None = None,
    tiling: Tiling | None = None,
    tta: str | None = None,
    nms: str | None = None,
) -> Iterator[Scene | Failure]:
    """One `Scene`, or the `Failure` to read it, for each picture, in order; `pictures` may be endless.

    threshold: least score, 0–1, that an object has; None for the operating threshold. max_objects: most objects a
    picture; None for the bundle's. device: None for where the model is, otherwise the model is moved there.
    batch_size: pictures read at a time; None for 1 on the CPU, 8 elsewhere. Only pictures that are padded to the same
    size are put together, so that neither neighbours nor batch size have a say. precision: "fp32" or "bf16".

    tta: test-time augmentation, further views of each picture as in "flip,0.75,1.25": "flip" sees each one mirrored
    too, a number at that many times its size; None for none. Each view takes as long as the first.
    nms: what becomes of boxes of a category that overlap a better one: "hard" drops them, "linear" and "gaussian" lower
    their scores (soft-NMS); None: as the bundle says. Between tiles it is always "hard".

    Of a classifier scenes hold the categories of whole pictures, seen as `views` says (`data/whole.py`).

    proposals: for a model that finds none of its own; None: selective search. tiling: pictures are looked at in tiles,
    whose objects are put together (`predict/tiles.py`); None: as the bundle was trained.

    Raises UserError at once: an argument out of range, or proposals that are needed and cannot be had.
    """
    if bundle.task == "features":
        raise UserError(
            f"the bundle ({bundle.spec['name']}) holds features alone and names nothing: train from it with --init, or "
            "judge it with `tracesight probe`"
        )
    threshold = bundle.threshold if threshold is None else float(threshold)
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold {threshold}: need a number from 0 to 1")
    most = bundle.max_objects if max_objects is None else int(max_objects)
    if most < 1:
        raise UserError(f"max_objects {most}: need at least 1")
    if precision not in ("fp32", "bf16"):
        raise UserError(f"precision '{precision}': use fp32 or bf16")
    extra = None if tta is None else views_of(tta)
    if nms not in (None, "hard", *METHODS):
        raise UserError(f"nms '{nms}': use hard, {' or '.join(METHODS)}")
    if bundle.task == "classify":
        if extra is not None or nms is not None:
            said = f"nms '{nms}'" if extra is None else f"tta '{tta}'"
            raise UserError(f"{said} is for detectors; {bundle.spec['name']} classifies whole pictures: use views")
        from tracesight.predict.classes import class_scenes

        same = {"device": device, "batch_size": batch_size, "precision": precision}
        return class_scenes(bundle, pictures, threshold, most, views=views, **same)
    if views != "center":
        raise UserError(f"views '{views}' are for classifiers; {bundle.spec['name']} finds objects on whole pictures")
    digest = bundle.digest
    place = placed(bundle.model, device)
    size = batch_size if batch_size is not None else (1 if place.type == "cpu" else 8)
    if size < 1:
        raise UserError(f"batch_size {size}: need at least 1")
    if extra is not None and (proposes_only(bundle.model) or isinstance(bundle.model.rpn, GivenProposals)):
        raise UserError(f"tta '{tta}' needs a model of both stages; {bundle.spec['name']} has one of them only")
    if nms is not None and proposes_only(bundle.model):
        raise UserError(f"nms '{nms}' needs a model of both stages; {bundle.spec['name']} has the first one only")
    source, tiling = source_of(bundle, proposals), tiling or tiling_of(bundle)
    call = _Call(bundle, threshold, most, place, precision, digest, source, tiling, extra, nms)
    return _stream(call, pictures, size)


def readable(
    bundle: Bundle, pictures: Iterable[str | Path], threshold: float | None = None, max_objects: int | None = None
) -> Iterator[Scene]:
    """Scenes alone. What could not be read is raised after the last of them, so that nothing is lost in silence:
    UserError when no picture could be read, PartialFailure when some could not."""
    stream = scenes(bundle, pictures, threshold, max_objects)

    def only() -> Iterator[Scene]:
        failures: list[Failure] = []
        count = 0
        for item in stream:
            if isinstance(item, Failure):
                failures.append(item)
            else:
                count += 1
                yield item
        if failures:
            raise failed(failures, count + len(failures))

    return only()


def failed(failures: Sequence[Failure], pictures: int) -> UserError | PartialFailure:
    """The error that says which of `pictures` could not be read."""
    if pictures == 1:
        return UserError(failures[0].reason)
    kind = UserError if len(failures) == pictures else PartialFailure
    return kind(f"{len(failures)} of {pictures} pictures could not be read, the first: {failures[0].reason}")


@dataclass(frozen=True)
class _Call:
    """What one call of `scenes` fixes."""

    bundle: Bundle
    threshold: float
    max_objects: int
    device: torch.device
    precision: str
    digest: str
    source: Source | None
    tiling: Tiling | None
    views: tuple[tuple[float, bool], ...] | None
    nms: str | None


@dataclass(frozen=True)
class _Read:
    path: Path
    pixels: np.ndarray  # (H, W, C) uint8, or float32 in 0–1
    sha256: str
    proposals: np.ndarray | None  # (p, 4) in its own pixels


def placed(model: nn.Module, device: str | torch.device | None) -> torch.device:
    if device is None:
        return next(model.parameters()).device
    try:
        place = torch.device(device)
        if place.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("there is no CUDA GPU")
        model.to(place)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{device}' cannot be used ({str(error).splitlines()[0]})") from error
    return place


def _stream(call: _Call, pictures: Iterable[str | Path], batch_size: int) -> Iterator[Scene | Failure]:
    call.bundle.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    channels, source = call.bundle.in_channels, call.source
    for items in read_ahead(lambda path: _read(path, channels, source), pictures, batch_size):
        yield from _window(call, items)


def _read(path: str | Path, channels: int, source: Source | None = None) -> _Read | Failure:
    path = Path(path)
    try:
        pixels, sha256 = open_picture(path, channels), file_digest(path)
        return _Read(path, pixels, sha256, None if source is None else source(path, sha256, pixels))
    except UserError as error:
        return Failure(path, str(error))


def _window(call: _Call, items: list[_Read | Failure]) -> list[Scene | Failure]:
    """Scenes of the pictures read at one time, in their order."""
    done: dict[int, Scene | Failure] = {}
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, item in enumerate(items):
        if isinstance(item, Failure):
            done[position] = item
        elif call.tiling is not None:
            done[position] = _tiled(call, item, call.tiling, len(items))
        else:
            size = _padded_size(call.bundle, item.pixels)
            # Pictures that pad to one size may not do so in every view.
            groups.setdefault(size if call.views is None else (position,), []).append(position)
    for positions in groups.values():
        reads = [item for position in positions if isinstance(item := items[position], _Read)]
        for position, scene in zip(positions, _group(call, reads)):
            done[position] = scene
    return [done[position] for position in range(len(items))]


def _padded_size(bundle: Bundle, pixels: np.ndarray) -> tuple[int, ...]:
    height, width = pixels.shape[:2]
    size = resized_size(height, width, bundle.preprocessing["image_size"], bundle.preprocessing["max_size"])
    return tuple(math.ceil(side / STRIDE) * STRIDE for side in size)


def _group(call: _Call, reads: list[_Read]) -> Iterator[Scene]:
    """Scenes of pictures that are padded to one size."""
    for read, found, network_size in zip(reads, *_found(call, reads)):
        yield _scene(call, read, found, network_size)


def _scene(call: _Call, read: _Read, found: Detections, network_size: tuple[int, int]) -> Scene:
    height, width = read.pixels.shape[:2]
    objects = detections_to_objects(
        *found,
        categories=call.bundle.categories,
        points=call.bundle.keypoints,
        network_size=network_size,
        picture_size=(height, width),
        threshold=call.threshold,
    )
    picture = Picture(sha256=read.sha256, width=width, height=height, path=str(read.path))
    return Scene(picture=picture, objects=objects, bundle=call.digest, threshold=call.threshold)


def _tiled(call: _Call, read: _Read, tiling: Tiling, at_once: int) -> Scene:
    """The scene of a picture that is looked at tile by tile, `at_once` of them together."""
    height, width = read.pixels.shape[:2]
    windows = tiling.windows(height, width)
    parts, cuts = [], []
    for start in range(0, len(windows), at_once):
        some = windows[start : start + at_once]
        for window, found, inner in zip(some, *_found(call, [_tile(read, window) for window in some])):
            top, left, tall, wide = window
            ratio = torch.tensor([wide / inner[1], tall / inner[0]] * 2)
            boxes = found.boxes[found.valid] * ratio + torch.tensor([left, top] * 2)
            scores, labels, valid, masks, points = (c if c is None else c[found.valid] for c in found[1:])
            if points is not None:
                places = points[..., :2] * ratio[:2] + torch.tensor([left, top])
                points = torch.cat((places, points[..., 2:]), dim=-1)
            parts.append(Detections(boxes, scores, labels, valid, masks, points))  # type: ignore[arg-type]
            cuts.append(cut_by_seam(boxes.numpy(), window, (height, width)))
    whole: list[Any] = [None if column[0] is None else torch.cat(column) for column in zip(*parts)]
    boxes, scores, labels = (column.numpy() for column in whole[:3])
    keep = torch.from_numpy(merged(boxes, scores, labels, np.concatenate(cuts), call.max_objects))
    kept: list[Any] = [column if column is None else column[keep] for column in whole]
    return _scene(call, read, Detections(*kept), (height, width))


def _tile(read: _Read, window: Window) -> _Read:
    top, left, height, width = window
    boxes = read.proposals
    if boxes is not None:
        boxes = np.clip(boxes - np.array([left, top] * 2), 0, [width, height] * 2).astype(np.float32)
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= MIN_PROPOSAL_SIDE).all(axis=1)]
    return _Read(read.path, read.pixels[top : top + height, left : left + width], read.sha256, boxes)


def _found(call: _Call, reads: list[_Read]) -> tuple[list[Detections], list[tuple[int, int]]]:
    """Detections of each picture, on the CPU, and the size (height, width) that the network saw it in."""
    batch = _batch(call, reads)
    # The model keeps scores above its limit, a scene those from the limit up.
    floor = max(0.0, float(np.nextafter(np.float32(call.threshold), np.float32(-1))))
    model = call.bundle.model
    with (
        evaluating(model),
        torch.inference_mode(),
        torch.autocast(call.device.type, torch.bfloat16, enabled=call.precision == "bf16"),
    ):
        limits = {"max_objects": call.max_objects, "score_threshold": floor, "nms": call.nms}
        if call.views is None:
            detections = model(batch, **limits)
        else:
            further = [View(_batch(call, reads, factor, mirrored), mirrored) for factor, mirrored in call.views]
            views, places = [View(batch, False), *further], mirrored_points(call.bundle, call.device)
            detections = detect_in_views(model, views, places, **limits)  # type: ignore[arg-type]
    columns: list[Any] = [column if column is None else column.cpu() for column in detections]
    rows: list[list[Any]] = [[c if c is None else c[index] for c in columns] for index in range(len(reads))]
    return [Detections(*row) for row in rows], [(height, width) for height, width in batch.sizes.cpu().tolist()]


def _batch(call: _Call, reads: Sequence[_Read], factor: float = 1.0, mirrored: bool = False) -> Batch:
    """The pictures as the network takes them, `factor` times as large as usual."""
    prepared = call.bundle.preprocessing
    short, long = (max(1, round(prepared[side] * factor)) for side in ("image_size", "max_size"))
    given = [read.proposals for read in reads if read.proposals is not None]
    images = [np.flip(read.pixels, 1) if mirrored else read.pixels for read in reads]
    return moved(predict_batch(images, short, long, given), call.device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for batch norm, and each module's own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def detections_to_objects(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    valid: Tensor,
    masks: Tensor | None,
    keypoints: Tensor | None = None,
    *,
    categories: Mapping[int, str],
    points: Mapping[int, Keypoints] | None = None,
    network_size: tuple[int, int],
    picture_size: tuple[int, int],
    threshold: float,
) -> tuple[SceneObject, ...]:
    """One picture's detections (on the CPU) as objects of a scene, in their order.

    boxes (D, 4) in the network's pixels, scores (D,), labels (D,) 1 to C, valid (D,), masks (D, 28, 28) probabilities
    or None, keypoints (D, K, 3) in the network's pixels and how sure they are, or None. points: what a category's
    keypoints are called; a category that is not in it has none. network_size and picture_size are (height, width)
    before padding and of the original. Objects below `threshold` and of the categories named "N/A" are left out.
    """
    ids = sorted(categories)
    unused = torch.tensor([False, *(categories[number] == UNUSED for number in ids)])
    keep = valid & (scores.double() >= threshold) & ~unused[labels]
    boxes, scores, labels = boxes[keep].float(), scores[keep].double(), labels[keep]
    masks = None if masks is None else masks[keep]
    rows: list[list[list[float]]] = [[]] * len(boxes)
    # Per axis, in float32, as torchvision scales boxes back.
    ratio = torch.tensor(picture_size, dtype=torch.float32) / torch.tensor(network_size, dtype=torch.float32)
    limit = torch.tensor([picture_size[1], picture_size[0]] * 2, dtype=torch.float32)
    boxes = torch.minimum((boxes * ratio.flip(0).repeat(2)).clamp(min=0), limit)
    shapes: Sequence[Mask | None] = [None] * len(boxes)
    if masks is not None:
        shapes = Mask.from_edges(*mask_runs(masks, boxes, picture_size), picture_size)
    if keypoints is not None:
        places = keypoints[keep].double()
        places[..., :2] = torch.minimum((places[..., :2] * ratio.flip(0)).clamp(min=0), limit[:2])
        rows = places.tolist()
    objects = []
    for box, score, label, mask, row in zip(boxes.tolist(), scores.tolist(), labels.tolist(), shapes, rows):
        number = ids[label - 1]
        named = named_points([(x, y, sure) for x, y, sure in row], (points or {}).get(number))
        x1, y1, x2, y2 = box
        objects.append(SceneObject(categories[number], number, min(score, 1.0), (x1, y1, x2, y2), mask, **named))
    return tuple(objects)
