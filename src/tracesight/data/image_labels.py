"""Which categories a picture shows as a whole: what a classifier learns from, in training, evaluation and report."""

from __future__ import annotations

from dataclasses import dataclass

from tracesight.data.dataset import Dataset
from tracesight.data.record import Record
from tracesight.errors import UserError


@dataclass(frozen=True)
class ImageLabels:
    """How the labels of a set are read.

    objects: its pictures have no labels as wholes and show the categories of their objects, ignored ones left out.
    several: a picture may show any number of categories, or none (multi-label); else exactly one (multi-class).
    """

    objects: bool
    several: bool

    def of(self, record: Record) -> tuple[int, ...]:
        """Ids of the categories that a picture shows, ascending, each once."""
        ids = (a.category_id for a in record.annotations if not a.ignored) if self.objects else record.labels
        return tuple(sorted(set(ids)))


def image_labels(dataset: Dataset, several: bool | None = None) -> tuple[ImageLabels, list[str]]:
    """How the labels of `dataset` are read, and what of it should be said.

    several: None for False where every picture has exactly one label as a whole, else True.
    Raises UserError: no picture shows any category, or `several` is False and some show none or more than one.
    """
    objects = not any(record.labels for record in dataset)
    labels = ImageLabels(objects, several=True)
    counts = [len(labels.of(record)) for record in dataset]
    if not any(counts):
        raise UserError(
            f"{dataset.path}: no picture shows any category, so there is nothing to learn; label some first"
        )
    odd = [index for index, count in enumerate(counts) if count != 1]
    if several is False and odd:
        _refuse(dataset, labels, odd)
    notes = []
    if several is None:
        several = objects or bool(odd)
        if several:
            why = "labels are those of objects" if objects else f"{len(odd)} pictures show none or several categories"
            notes.append(f"multi-label, since {why}; multi_label=false wants exactly one for each picture")
    return ImageLabels(objects, several), notes


def check_image_labels(dataset: Dataset, labels: ImageLabels) -> None:
    """Raise UserError where a picture of `dataset` does not have exactly one category and should."""
    if not labels.several and (odd := [index for index, r in enumerate(dataset) if len(labels.of(r)) != 1]):
        _refuse(dataset, labels, odd)


def _refuse(dataset: Dataset, labels: ImageLabels, odd: list[int]) -> None:
    record = dataset[odd[0]]
    names = ", ".join(dataset.categories[number] for number in labels.of(record)) or "no category"
    more = f", and {len(odd) - 1} more pictures have none or several" if len(odd) > 1 else ""
    raise UserError(f"{record.path}: shows {names}{more}; give each exactly one, or say multi_label=true")
