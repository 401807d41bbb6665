"""From pictures to categories: what a classifier says of whole pictures, as scores and as scenes.

K categories; scores (K,) are logits, or logarithms of probabilities where those of several views were averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tracesight.bundle import UNUSED, Bundle
from tracesight.data.dataset import Dataset
from tracesight.data.image_labels import ImageLabels
from tracesight.data.pictures import open_picture
from tracesight.data.whole import VIEWS, unit, views_of
from tracesight.errors import UserError
from tracesight.lineage import file_digest
from tracesight.models.pixels import standardised
from tracesight.ops.chances import averaged, probabilities
from tracesight.predict.ahead import read_ahead
from tracesight.predict.scenes import Failure, evaluating, placed
from tracesight.scene import Picture, Scene, SceneCategory

AT_ONCE = 64  # pictures read, and views in a batch, unless told otherwise


@dataclass(frozen=True)
class Scored:
    """One picture, its size in pixels when upright, the SHA-256 of its file, and its scores (K,)."""

    path: Path
    height: int
    width: int
    sha256: str
    scores: np.ndarray


def picture_scores(
    bundle: Bundle,
    pictures: Iterable[str | Path],
    *,
    views: str = "center",
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Iterator[Scored | Failure]:
    """What a classifier says of each picture, in order, or why it could not be read; `pictures` may be endless.

    views: "center", "ten-crop" or "multi-scale" (`data/whole.py`). device, batch_size, precision: as in `scenes`.
    Raises UserError at once for an argument out of range.
    """
    if views not in VIEWS:
        raise UserError(f"views '{views}': use {', '.join(VIEWS)}")
    if precision not in ("fp32", "bf16"):
        raise UserError(f"precision '{precision}': use fp32 or bf16")
    size = AT_ONCE if batch_size is None else batch_size
    if size < 1:
        raise UserError(f"batch_size {size}: need at least 1")
    place = placed(bundle.model, device)
    bundle.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _stream(bundle, pictures, views, place, size, precision)


def class_scenes(
    bundle: Bundle,
    pictures: Iterable[str | Path],
    threshold: float,
    most: int,
    *,
    views: str = "center",
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Iterator[Scene | Failure]:
    """One `Scene` with categories of the whole picture, or the `Failure` to read it, for each picture, in order.

    The surest first, from `threshold` up, at most `most`; those named "N/A" are left out. Others as `picture_scores`.
    """
    digest, ids = bundle.digest, sorted(bundle.categories)
    used = [place for place, number in enumerate(ids) if bundle.categories[number] != UNUSED]
    stream = picture_scores(
        bundle, pictures, views=views, device=device, batch_size=batch_size, precision=precision
    )  # fmt: skip

    def made() -> Iterator[Scene | Failure]:
        for item in stream:
            if isinstance(item, Failure):
                yield item
                continue
            chances = probabilities(item.scores[None], bundle.multi_label, bundle.thresholds["temperature"])[0]
            surest = sorted(used, key=lambda place: -chances[place])[:most]
            categories = tuple(
                SceneCategory(bundle.categories[ids[place]], ids[place], min(1.0, float(chances[place])))
                for place in surest
                if chances[place] >= threshold
            )
            picture = Picture(sha256=item.sha256, width=item.width, height=item.height, path=str(item.path))
            yield Scene(picture=picture, bundle=digest, threshold=threshold, categories=categories)

    return made()


def dataset_scores(
    bundle: Bundle,
    dataset: Dataset,
    labels: ImageLabels,
    *,
    progress: Callable[[Scored], None] | None = None,
    **options: object,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, K) of every picture of a dataset, and what it shows, (n, K) bool; columns are the bundle's categories.

    labels: how the set's labels are read. options: those of `picture_scores`. Categories are matched by name where ids
    differ. Raises UserError: a picture that cannot be read, or shows a category that the bundle does not know.
    """
    columns = columns_of(bundle.categories, dataset)
    truth = np.zeros((len(dataset), len(bundle.categories)), np.bool_)
    for row, record in enumerate(dataset):
        for number in labels.of(record):
            if columns[number] is None:
                raise UserError(
                    f"{record.path}: shows {dataset.categories[number]}, which is not a category of the bundle "
                    f"({', '.join(list(bundle.categories.values())[:5])}, …)"
                )
            truth[row, columns[number]] = True
    scores = np.zeros(truth.shape, np.float64)
    stream = picture_scores(bundle, (record.path for record in dataset), **options)  # type: ignore[arg-type]
    for row, item in enumerate(stream):
        if isinstance(item, Failure):
            raise UserError(item.reason)
        scores[row] = item.scores
        if progress is not None:
            progress(item)
    return scores, truth


def columns_of(categories: Mapping[int, str], dataset: Dataset) -> dict[int, int | None]:
    """For each category of the dataset, its place among `categories` in ascending order of ids; None: not there."""
    place = {number: column for column, number in enumerate(sorted(categories))}
    named = {name: place[number] for number, name in categories.items()}
    return {
        number: place[number] if categories.get(number) == name else named.get(name)
        for number, name in dataset.categories.items()
    }


def _stream(
    bundle: Bundle, pictures: Iterable[str | Path], views: str, place: torch.device, size: int, precision: str
) -> Iterator[Scored | Failure]:
    channels = bundle.in_channels
    for reads in read_ahead(lambda path: _read(path, channels), pictures, size):
        yield from _window(bundle, reads, views, place, size, precision)


_Read = tuple[Path, np.ndarray, str]


def _read(path: str | Path, channels: int) -> _Read | Failure:
    path = Path(path)
    try:
        return path, open_picture(path, channels), file_digest(path)
    except UserError as error:
        return Failure(path, str(error))


def _window(
    bundle: Bundle, reads: Sequence[_Read | Failure], views: str, place: torch.device, size: int, precision: str
) -> Iterator[Scored | Failure]:
    """The pictures read at one time: views of one size go through the network together."""
    image_size, resize = bundle.preprocessing["image_size"], bundle.preprocessing["resize"]
    seen = [[] if isinstance(item, Failure) else views_of(item[1], views, image_size, resize) for item in reads]
    places: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for picture, made in enumerate(seen):
        for number, view in enumerate(made):
            places.setdefault((view.shape[0], view.shape[1]), []).append((picture, number))
    logits: dict[tuple[int, int], np.ndarray] = {}
    for (height, width), group in places.items():
        # Views at many scales may be large: no more pixels at a time than `size` pictures of the usual size have.
        count = max(1, size * image_size**2 // (height * width))
        for first in range(0, len(group), count):
            part = group[first : first + count]
            rows = _logits(bundle, [seen[picture][number] for picture, number in part], place, precision)
            logits.update(zip(part, rows))
    for picture, item in enumerate(reads):
        if isinstance(item, Failure):
            yield item
            continue
        rows = np.stack([logits[picture, number] for number in range(len(seen[picture]))])
        scores = rows[0] if len(rows) == 1 else averaged(probabilities(rows, bundle.multi_label), bundle.multi_label)
        yield Scored(item[0], item[1].shape[0], item[1].shape[1], item[2], scores)


def _logits(bundle: Bundle, views: Sequence[np.ndarray], place: torch.device, precision: str) -> np.ndarray:
    """(views, K) float64."""
    pixels = torch.from_numpy(np.stack([unit(view) for view in views])).permute(0, 3, 1, 2).to(place)
    model = bundle.model
    with (
        evaluating(model),
        torch.inference_mode(),
        torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        return model(standardised(model, pixels)).double().cpu().numpy()
