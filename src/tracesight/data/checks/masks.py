"""Objects that an instance segmenter cannot learn from, as they have no mask."""

from __future__ import annotations

from tracesight.data.record import Dataset
from tracesight.errors import UserError


def check_masks(dataset: Dataset) -> None:
    """Raises UserError that names the first object without a segmentation, and counts them. Crowds need none."""
    missing = [
        (record, annotation)
        for record in dataset
        for annotation in record.annotations
        if annotation.segmentation is None and not annotation.ignored
    ]
    if missing:
        record, annotation = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{dataset.path}: annotation {annotation.id} on {record.path.name} has no mask{more}; "
            "add masks, or train with --task detect"
        )
