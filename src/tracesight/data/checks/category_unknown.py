"""Objects whose category has no name."""

from __future__ import annotations

from dataclasses import replace

from tracesight.data.checks.label_check import Found, Labels, Verdict, each, finding
from tracesight.data.finding import Change, Kind
from tracesight.data.record import Annotation, Record

KIND = Kind(
    "category-unknown", "error", "objects of a category that is not there", "name the category or correct the id",
    "removed",
)  # fmt: skip


def category_unknown(record: Record, labels: Labels) -> Found:
    """An object, or a picture as a whole, of a category id that `labels.categories` does not have."""

    def judge(annotation: Annotation) -> Verdict | None:
        if annotation.category_id in labels.categories:
            return None
        return KIND, f"there is no category with id {annotation.category_id!r}", None

    record, findings = each(record, labels, judge)
    unknown = [number for number in record.labels if number not in labels.categories]
    if unknown:
        known = tuple(number for number in record.labels if number in labels.categories)
        change = Change({"labels": list(record.labels)}, {"labels": list(known)})
        messages = [f"there is no category with id {number!r}" for number in unknown]
        findings = [*findings, *(finding(KIND, record, labels, text, change=change) for text in messages)]
        record = replace(record, labels=known)
    return record, findings
