"""What is made of many scenes: COCO results to score, and the folder that `tracesight predict` writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from tracesight.bundle import UNUSED, Bundle
from tracesight.data.channels import as_rgb
from tracesight.data.pictures import open_picture
from tracesight.data.proposals import ProposalSet, Source
from tracesight.data.tiles import Tiling
from tracesight.errors import UserError
from tracesight.predict.scenes import Failure, scenes
from tracesight.scene import Scene, write_categories_csv, write_csv
from tracesight.scene.values import write_whole

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset

EVALUATION_THRESHOLD = 0.05  # least score that figures are made from


@dataclass(frozen=True)
class Written:
    """What `write` did: folder, pictures tried, objects (or categories of whole pictures) found, what failed."""

    out: Path
    pictures: int
    objects: int
    failures: tuple[Failure, ...]


def dataset_results(
    bundle: Bundle,
    dataset: Dataset,
    *,
    threshold: float = EVALUATION_THRESHOLD,
    max_objects: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
    proposals: ProposalSet | Source | None = None,
    tiling: Tiling | None = None,
    tta: str | None = None,
    nms: str | None = None,
    progress: Callable[[Scene], None] | None = None,
) -> list[dict[str, Any]]:
    """COCO results for every picture of a dataset: `image_id` is the record's id, `category_id` the dataset's.

    Categories are matched by name where ids differ; what the dataset has no category for is left out.
    progress: called with each scene. Other arguments as in `scenes`.
    Raises UserError: a picture that cannot be read, or no category in common.
    """
    numbers = {name: number for number, name in dataset.categories.items()}
    to_dataset = {
        number: number if dataset.categories.get(number) == name else numbers.get(name)
        for number, name in bundle.categories.items()
    }
    if not any(number is not None for number in to_dataset.values()):
        theirs = ", ".join(list(numbers)[:5])
        raise UserError(f"{dataset.path}: no category ({theirs}) is one of the bundle's, so nothing can be compared")
    results: list[dict[str, Any]] = []
    ids = (record.id for record in dataset)
    paths = (record.path for record in dataset)
    stream = scenes(
        bundle, paths, threshold, max_objects, device, batch_size, precision, proposals=proposals, tiling=tiling,
        tta=tta, nms=nms,
    )  # fmt: skip
    for image_id, item in zip(ids, stream):
        if isinstance(item, Failure):
            raise UserError(item.reason)
        for result in item.to_coco(image_id):
            category = to_dataset[result["category_id"]]
            if category is not None:
                results.append({**result, "category_id": category})
        if progress is not None:
            progress(item)
    return results


def write(
    bundle: Bundle,
    pictures: Sequence[tuple[Path, str]],
    out: str | Path,
    *,
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
    image_ids: Mapping[str, int] | None = None,
    progress: Callable[[Scene | Failure], None] | None = None,
) -> Written:
    """Predict and write `out/scenes/NAME.json`, `out/overlays/NAME.png`, `out/results.coco.json`, `out/objects.csv`.

    Of a classifier scenes, overlays and `out/categories.csv`.

    pictures: (path, NAME), as `find_pictures` gives them. Overlays draw what passes the operating threshold.
    image_ids: COCO's image_id by NAME; None numbers the pictures from 1 in the order given, failed ones included.
    `out/pictures.coco.json` says which is which, in the form that COCO's tools load before results.
    progress: called after each picture. Other arguments as in `scenes`. A picture that fails does not stop the rest.
    """
    out = Path(out)
    ids = dict(image_ids) if image_ids is not None else {name: row for row, (_, name) in enumerate(pictures, start=1)}
    paths, classifies = [path for path, _ in pictures], bundle.task == "classify"
    seen = {"proposals": proposals, "tiling": tiling, "tta": tta, "nms": nms}
    stream = scenes(bundle, paths, threshold, max_objects, device, batch_size, precision, views, **seen)
    failures: list[Failure] = []
    images: list[dict[str, Any]] = []
    objects = 0
    try:
        for folder in ("scenes", "overlays"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        with nullcontext() if classifies else _results_file(out / "results.coco.json") as add:
            for (path, name), item in zip(pictures, stream):
                if isinstance(item, Failure):
                    failures.append(item)
                else:
                    _write_one(bundle, item, path, out, name)
                    objects += len(item.objects) + len(item.categories)
                    size = {"width": item.picture.width, "height": item.picture.height}
                    images.append({"id": ids[name], "file_name": path.as_posix(), "name": name, **size})
                    if add is not None:
                        add(item.to_coco(ids[name]))
                if progress is not None:
                    progress(item)
        found = (Scene.load(out / "scenes" / f"{image['name']}.json") for image in images)
        if classifies:
            write_categories_csv(found, out / "categories.csv")
            return Written(out, len(pictures), objects, tuple(failures))
        catalogue = [{"id": number, "name": n} for number, n in bundle.categories.items() if n != UNUSED]
        listing = {"images": images, "categories": catalogue, "annotations": []}
        write_whole(out / "pictures.coco.json", json.dumps(listing, ensure_ascii=False))
        write_csv(found, out / "objects.csv")
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot be written ({error.strerror or error})") from error
    return Written(out, len(pictures), objects, tuple(failures))


def _write_one(bundle: Bundle, scene: Scene, path: Path, out: Path, name: str) -> None:
    for folder in ("scenes", "overlays"):
        (out / folder / name).parent.mkdir(parents=True, exist_ok=True)
    scene.save(out / "scenes" / f"{name}.json")
    picture = Image.fromarray(as_rgb(open_picture(path, bundle.in_channels)))
    scene.draw(picture, threshold=bundle.threshold).save(out / "overlays" / f"{name}.png")


@contextmanager
def _results_file(path: Path) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """A JSON list, written row by row, so that few are held at a time; the file is there whole or not at all."""
    making = path.with_name(f".{path.name}.writing")
    try:
        with making.open("w", encoding="utf-8") as stream:
            separator = "[\n"

            def add(rows: list[dict[str, Any]]) -> None:
                nonlocal separator
                for row in rows:
                    stream.write(separator + json.dumps(row))
                    separator = ",\n"

            yield add
            stream.write("\n]\n" if separator != "[\n" else "[]\n")
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
