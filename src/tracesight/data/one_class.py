"""Labels without their categories: what a region proposal network learns from."""

from __future__ import annotations

from dataclasses import replace

from tracesight.data.dataset import Dataset

OBJECT = {1: "object"}


def one_class(dataset: Dataset) -> Dataset:
    """The same pictures and objects, every one of them of the category "object", id 1."""
    records = (
        replace(
            record,
            annotations=tuple(replace(a, category_id=1) for a in record.annotations),
            absent=None,
            not_exhaustive=(),
            labels=(),
        )
        for record in dataset
    )
    return Dataset.of(records, OBJECT, dataset.path, dataset.notes)
