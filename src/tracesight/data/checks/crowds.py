"""Regions and objects that are neither learned from nor counted."""

from __future__ import annotations

from collections.abc import Sequence

from tracesight.data.checks.survey import Survey
from tracesight.data.finding import Finding, Kind

KIND = Kind("object-ignored", "note", "sets with crowds, or objects marked as difficult",
            "nothing need be done: they are neither learned from nor counted")  # fmt: skip


def crowds(survey: Survey) -> Sequence[Finding]:
    """Counts both."""
    ignored, crowd = survey.objects.ignored, survey.objects.crowd
    if not ignored.any():
        return ()
    difficult = int((ignored & ~crowd).sum())
    message = f"{int(crowd.sum())} crowds and {difficult} difficult objects among {ignored.size}"
    return [survey.finding(KIND, message)]
