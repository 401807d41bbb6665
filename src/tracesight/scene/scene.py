"""What a picture holds, as values: its categories as a whole; objects with boxes, masks, categories, tracks and
measurements; JSON in and out.

Pixels, boxes (x1, y1, x2, y2) half-open with the origin top left, after EXIF orientation has been applied.
The JSON form is described by `scene.schema.json` in this folder; `schema` is its version.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from tracesight.errors import UserError
from tracesight.scene.draw import draw_categories, draw_objects, to_rgb
from tracesight.scene.mask import Mask
from tracesight.scene.values import (
    checked_fields,
    checked_list,
    checked_number,
    checked_text,
    checked_whole,
    inside,
    refuse_constant,
    write_whole,
)

SCHEMA_VERSION = "3"
READABLE = ("1", "2", "3")  # version 1 had no categories of the picture as a whole, version 2 no keypoints

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Track:
    """Which moving thing an object is: objects of several scenes with one `id` are the same thing."""

    id: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", checked_whole(self.id, "track id"))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured quantity of an object, as in Measurement("area", 41.5, "µm²"); `unit` is "" for pure numbers."""

    name: str
    value: float
    unit: str

    def __post_init__(self) -> None:
        checked_text(self.name, "measurement name")
        checked_text(self.unit, "measurement unit", empty=True)
        object.__setattr__(self, "value", checked_number(self.value, f"measurement {self.name!r}"))


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named point of an object: x and y in pixels, `score` 0–1 (1 for what a person labelled) for its place."""

    name: str
    x: float
    y: float
    score: float

    def __post_init__(self) -> None:
        checked_text(self.name, "name of a keypoint")
        for side in ("x", "y"):
            object.__setattr__(self, side, checked_number(getattr(self, side), f"keypoint {self.name!r}"))
        object.__setattr__(self, "score", _score(self.score))


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object: `category` is the name and `category_id` the number of the labels it was learnt from.

    `score` is 0–1 (1 for what a person labelled), `box` (x1, y1, x2, y2) in pixels, `mask` as large as the picture.
    keypoints: in the order of the labels; skeleton: which of them are joined, as pairs of names.
    Numbers may be given as numpy scalars. Raises ValueError for one that is not finite, a score outside 0–1 or a box
    whose sides are swapped.
    """

    category: str
    category_id: int
    score: float
    box: Box
    mask: Mask | None = None
    track: Track | None = None
    measurements: tuple[Measurement, ...] = ()
    keypoints: tuple[Keypoint, ...] = ()
    skeleton: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        checked_text(self.category, "category")
        object.__setattr__(self, "category_id", checked_whole(self.category_id, "category_id"))
        object.__setattr__(self, "score", _score(self.score))
        object.__setattr__(self, "keypoints", tuple(self.keypoints))
        object.__setattr__(self, "skeleton", tuple((a, b) for a, b in self.skeleton))
        if not hasattr(self.box, "__len__") or len(self.box) != 4:
            raise ValueError(f"box must be four numbers, not {self.box!r}")
        x1, y1, x2, y2 = (checked_number(side, "box") for side in self.box)
        if x2 < x1 or y2 < y1:
            raise ValueError(f"box must be (x1, y1, x2, y2) with x1 ≤ x2 and y1 ≤ y2, not {(x1, y1, x2, y2)}")
        object.__setattr__(self, "box", (x1, y1, x2, y2))
        object.__setattr__(self, "measurements", tuple(self.measurements))


@dataclass(frozen=True, slots=True)
class SceneCategory:
    """What the picture as a whole shows: name and number of a category as in the labels, `score` 0–1.

    Raises ValueError for a score outside 0–1.
    """

    category: str
    category_id: int
    score: float

    def __post_init__(self) -> None:
        checked_text(self.category, "category")
        object.__setattr__(self, "category_id", checked_whole(self.category_id, "category_id"))
        object.__setattr__(self, "score", _score(self.score))


@dataclass(frozen=True, slots=True)
class Picture:
    """Which picture a scene is of: SHA-256 of the file's bytes, size in pixels after EXIF orientation, where it was.

    `sha256` and `path` are None for a picture that never was a file.
    """

    sha256: str | None
    width: int
    height: int
    path: str | None = None

    def __post_init__(self) -> None:
        if self.sha256 is not None and not (isinstance(self.sha256, str) and re.fullmatch("[0-9a-f]{64}", self.sha256)):
            raise ValueError(f"sha256 must be 64 lower-case hex digits, not {self.sha256!r}")
        for side in ("width", "height"):
            object.__setattr__(self, side, checked_whole(getattr(self, side), side))
            if getattr(self, side) < 1:
                raise ValueError(f"{side} must be at least 1, not {getattr(self, side)}")
        if self.path is not None:
            object.__setattr__(self, "path", checked_text(os.fspath(self.path), "path"))


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything one picture holds: `bundle` is the digest of the model that said so, `threshold` its least score.

    Both are None for scenes that no model made. categories: of the picture as a whole, the surest first; empty where
    nothing was said of it. schema: version of the format; a scene keeps the one it was read from.
    Raises ValueError when a mask is not as large as the picture, or a scene holds what its version has no place for.
    """

    picture: Picture
    objects: tuple[SceneObject, ...] = ()
    bundle: str | None = None
    threshold: float | None = None
    schema: str = SCHEMA_VERSION
    categories: tuple[SceneCategory, ...] = ()

    def __post_init__(self) -> None:
        _check_version(self.schema)
        object.__setattr__(self, "objects", tuple(self.objects))
        object.__setattr__(self, "categories", tuple(self.categories))
        if self.categories and self.schema == "1":
            raise ValueError("a scene of version 1 has no categories of its picture")
        if self.schema in ("1", "2") and any(item.keypoints or item.skeleton for item in self.objects):
            raise ValueError(f"a scene of version {self.schema} has no keypoints")
        size = (self.picture.height, self.picture.width)
        for number, item in enumerate(self.objects):
            if item.mask is not None and item.mask.size != size:
                raise ValueError(f"objects[{number}]: mask of size {item.mask.size} in a picture of size {size}")
        if self.bundle is not None:
            checked_text(self.bundle, "bundle")
        if self.threshold is not None:
            object.__setattr__(self, "threshold", checked_number(self.threshold, "threshold"))
            if not 0 <= self.threshold <= 1:
                raise ValueError(f"threshold must lie between 0 and 1, not at {self.threshold}")

    # ---- JSON

    def to_json(self) -> dict[str, Any]:
        """The scene as JSON values, as `scene.schema.json` describes them."""
        value = {
            "schema": self.schema,
            "picture": asdict(self.picture),
            "bundle": self.bundle,
            "threshold": self.threshold,
            "objects": [_object_to_json(item) for item in self.objects],
        }
        return value if self.schema == "1" else {**value, "categories": [asdict(item) for item in self.categories]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scene:
        """The scene of what `to_json` gave. Raises ValueError that says where it differs from `scene.schema.json`."""
        if not isinstance(value, Mapping) or "schema" not in value:
            raise ValueError('not a scene: it has no "schema"')
        _check_version(value["schema"])
        optional = {"bundle", "threshold"} | (set() if value["schema"] == "1" else {"categories"})
        fields = checked_fields(value, "scene", required={"schema", "picture", "objects"}, optional=optional)
        keys, named = {"sha256", "width", "height"}, {"category", "category_id", "score"}
        with inside("picture"):
            picture = Picture(**checked_fields(fields["picture"], "picture", required=keys, optional={"path"}))
        objects = []
        for number, item in enumerate(checked_list(fields["objects"], "objects")):
            with inside(f"objects[{number}]"):
                objects.append(_object_from_json(item, value["schema"]))
        categories = []
        for number, item in enumerate(checked_list(fields.get("categories", []), "categories")):
            with inside(f"categories[{number}]"):
                categories.append(SceneCategory(**checked_fields(item, "category", required=named)))
        return cls(**{**fields, "picture": picture, "objects": tuple(objects), "categories": tuple(categories)})

    def save(self, path: str | Path) -> None:
        """Write the scene as UTF-8 JSON, one object a line; the file is there whole or not at all."""
        head = self.to_json()
        lines = [json.dumps(item, allow_nan=False) for item in head.pop("objects")]
        text = json.dumps(head, allow_nan=False)[:-1] + ', "objects": ['
        text += "\n " + ",\n ".join(lines) + "\n]}\n" if lines else "]}\n"
        write_whole(path, text)

    @classmethod
    def load(cls, path: str | Path) -> Scene:
        """The scene in a file. Raises UserError naming the file and what is wrong with it."""
        try:
            value = json.loads(Path(path).read_bytes(), parse_constant=refuse_constant)
            return cls.from_json(value)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path}: not JSON ({error}); give a file that a prediction wrote") from None
        except ValueError as error:
            raise UserError(f"{path}: {error}; give a file that a prediction wrote") from None

    # ---- turned into

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO results: one dict an object with image_id, category_id, bbox (x, y, width, height) and score, and its
        mask and keypoints (x, y, score), where it has any."""
        results = []
        for item in self.objects:
            x1, y1, x2, y2 = item.box
            result: dict[str, Any] = {"image_id": image_id, "category_id": item.category_id}
            result |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": item.score}
            if item.mask is not None:
                result["segmentation"] = item.mask.to_coco()
            if item.keypoints:
                result["keypoints"] = [value for point in item.keypoints for value in (point.x, point.y, point.score)]
            results.append(result)
        return results

    def digest(self) -> str:
        """SHA-256 of the scene's content, 64 hex digits; where the picture lay does not count."""
        value = replace(self, picture=replace(self.picture, path=None)).to_json()
        return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()

    def draw(self, picture: Image.Image | None = None, threshold: float | None = None) -> Image.Image:
        """The picture with its objects drawn on it, as `draw_objects` draws them.

        Without `picture` the file at `picture.path` is opened. `threshold` leaves out objects of lower score.
        Raises UserError when that file is gone or another one, ValueError when `picture` has another size.
        """
        image = self._open() if picture is None else to_rgb(picture)
        if image.size != (self.picture.width, self.picture.height):
            raise ValueError(f"the scene is of a picture of {self.picture.width}×{self.picture.height} pixels, "
                             f"this one has {image.width}×{image.height}")  # fmt: skip
        drawn = draw_objects(image, self.objects, threshold=threshold, legend=bool(self.objects) or not self.categories)
        shown = [item for item in self.categories if threshold is None or item.score >= threshold]
        return draw_categories(drawn, shown) if shown else drawn

    def _open(self) -> Image.Image:
        path = self.picture.path
        if path is None:
            raise UserError("the scene does not say where its picture is: pass it, as in scene.draw(picture)")
        try:
            content = Path(path).read_bytes()
            if self.picture.sha256 not in (None, hashlib.sha256(content).hexdigest()):
                raise UserError(f"{path}: not the picture that the scene is of any more; pass that one to scene.draw()")
            return to_rgb(Image.open(io.BytesIO(content)))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            unknown = isinstance(error, UnidentifiedImageError)
            reason = "Pillow does not know its kind" if unknown else getattr(error, "strerror", None) or error
            raise UserError(f"{path}: the scene's picture cannot be read ({reason}); pass it to scene.draw()") from None


def _check_version(schema: Any) -> None:
    if schema not in READABLE:
        raise ValueError(f"scene version {schema!r} is not one that this release reads ({', '.join(READABLE)})")


def _score(value: Any) -> float:
    score = checked_number(value, "score")
    if not 0 <= score <= 1:
        raise ValueError(f"score must lie between 0 and 1, not at {score}")
    return score


def _object_to_json(item: SceneObject) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if item.keypoints:
        more["keypoints"] = [asdict(point) for point in item.keypoints]
    if item.skeleton:
        more["skeleton"] = [list(pair) for pair in item.skeleton]
    return {
        "category": item.category,
        "category_id": item.category_id,
        "score": item.score,
        "box": list(item.box),
        "mask": None if item.mask is None else item.mask.to_coco(),
        "track": None if item.track is None else asdict(item.track),
        "measurements": [asdict(measurement) for measurement in item.measurements],
        **more,
    }


def _object_from_json(value: Any, schema: str) -> SceneObject:
    required, optional = {"category", "category_id", "score", "box"}, {"mask", "track", "measurements"}
    optional |= set() if schema in ("1", "2") else {"keypoints", "skeleton"}
    fields = checked_fields(value, "object", required=required, optional=optional)
    fields["box"] = tuple(checked_list(fields["box"], "box"))
    if fields.get("mask") is not None:
        with inside("mask"):
            fields["mask"] = Mask.from_coco(checked_fields(fields["mask"], "mask", required={"size", "counts"}))
    if fields.get("track") is not None:
        fields["track"] = Track(**checked_fields(fields["track"], "track", required={"id"}))
    rows = checked_list(fields.get("measurements", []), "measurements")
    keys = {"name", "value", "unit"}
    fields["measurements"] = tuple(Measurement(**checked_fields(row, "measurement", required=keys)) for row in rows)
    points, keys = checked_list(fields.get("keypoints", []), "keypoints"), {"name", "x", "y", "score"}
    fields["keypoints"] = tuple(Keypoint(**checked_fields(row, "keypoint", required=keys)) for row in points)
    pairs = [checked_list(pair, "skeleton") for pair in checked_list(fields.get("skeleton", []), "skeleton")]
    if not all(len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in pairs):
        raise ValueError("skeleton must be pairs of names")
    fields["skeleton"] = tuple((a, b) for a, b in pairs)
    return SceneObject(**fields)
