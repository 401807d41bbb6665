"""Objects without a mask where others have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tracesight.data.checks.label_check import Labels, finding
from tracesight.data.checks.survey import Survey
from tracesight.data.dataset import Dataset
from tracesight.data.finding import Finding, Kind
from tracesight.data.record import Annotation
from tracesight.errors import UserError

KIND = Kind("mask-missing", "warning", "objects without a mask where others have one",
            "draw it, or train with --task detect")  # fmt: skip


def mask_missing(survey: Survey) -> Sequence[Finding]:
    """The objects without a mask in a set of which some have one. Crowds need none."""
    objects, labels = survey.objects, Labels(survey.dataset.categories, survey.dataset.path)
    bare = ~objects.masked & ~objects.ignored
    if not objects.masked.any():
        return ()
    return [
        finding(KIND, record, labels, "it has no mask", annotation)
        for record, annotation in map(survey.object, bare.nonzero()[0].tolist())
    ]


def with_masks(dataset: Dataset, allow: Sequence[str] = ()) -> Dataset:
    """The set for an instance segmenter, which cannot learn from objects without a mask. Crowds need none.

    With "mask-missing" in `allow` they are left out, and `notes` count them; else the first is named in a UserError.
    """
    changed, bare = {}, []
    for index, record in enumerate(dataset):
        kept = tuple(annotation for annotation in record.annotations if not _bare(annotation))
        if len(kept) < len(record.annotations):
            changed[index] = replace(record, annotations=kept)
            bare += [(record, annotation) for annotation in record.annotations if _bare(annotation)]
    if not bare:
        return dataset
    if KIND.code not in allow:
        record, annotation = bare[0]
        more = f" (and {len(bare) - 1} more)" if len(bare) > 1 else ""
        raise UserError(
            f"{dataset.path}: annotation {annotation.id} on {record.path.name} has no mask{more}; add masks, or train "
            f"with --task detect, or leave such objects out with --allow {KIND.code}"
        )
    name = f"{dataset.path.parent.name}/{dataset.path.name}"
    return dataset.with_records(changed).with_notes([f"{name}: {len(bare)} objects without a mask, left out"])


def _bare(annotation: Annotation) -> bool:
    return annotation.segmentation is None and not annotation.ignored
