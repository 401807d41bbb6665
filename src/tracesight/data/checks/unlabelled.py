"""Pictures without labels."""

from __future__ import annotations

from collections.abc import Sequence

from tracesight.data.checks.survey import Survey
from tracesight.data.finding import Finding, Kind

KIND = Kind("picture-without-objects", "note", "sets with pictures on which nothing is labelled",
            "nothing need be done where nothing is on them: they teach what is background")  # fmt: skip


def unlabelled(survey: Survey) -> Sequence[Finding]:
    """Counts the pictures that have neither an annotation nor a category as a whole."""
    rows = (~survey.labelled).nonzero()[0]
    if not rows.size:
        return ()
    first = survey.dataset[int(rows[0])].name
    return [survey.finding(KIND, f"{rows.size} of {len(survey.dataset)} pictures, such as {first}")]
