"""Category id 0 in a COCO file, which other programs take for background."""

from __future__ import annotations

from collections.abc import Sequence

from tracesight.data.checks.survey import Survey
from tracesight.data.finding import Finding, Kind

KIND = Kind(
    "category-id-0", "warning", "COCO files that use category id 0",
    "nothing need be done here; number from 1 if other programs read it, some of which take 0 for background",
)  # fmt: skip


def category_zero(survey: Survey) -> Sequence[Finding]:
    """Id 0 in a .json file with objects of it. (YOLO numbers from 0 by definition.)"""
    name = survey.dataset.categories.get(0)
    if name is None or survey.dataset.numbered or survey.dataset.path.suffix.lower() != ".json":
        return ()
    return [survey.finding(KIND, f"category {name} has id 0, which {survey.counts[0]} objects have")]
