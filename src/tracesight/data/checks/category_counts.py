"""Categories that nothing can be learned of, and those of which there is far less than of others."""

from __future__ import annotations

from collections.abc import Sequence

from tracesight.data.checks.survey import Survey
from tracesight.data.finding import Finding, Kind

ABSENT = Kind("category-absent", "warning", "sets that lack examples of categories", "label some, or drop the category")
IMBALANCE = Kind(
    "category-imbalance", "note", "sets with far more of one category than of another",
    "label more, or train with sampling=repeat_factor or class_balanced",
)  # fmt: skip
TIMES = 20  # the most frequent category against the rarest that is there at all
_SHOWN = 5


def category_counts(survey: Survey) -> Sequence[Finding]:
    """Counts of objects by category: zeros, and a largest of `TIMES` the smallest."""
    names, findings = survey.dataset.categories, []
    counts = {number: count for number, count in survey.counts.items() if names.get(number) not in (None, "N/A")}
    absent = [names[number] for number, count in counts.items() if not count]
    if absent and len(absent) < len(counts):
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        findings.append(survey.finding(ABSENT, f"no example of {', '.join(absent[:_SHOWN])}{more}"))
    there = {number: count for number, count in counts.items() if count}
    if there:
        most, least = max(there, key=lambda n: there[n]), min(there, key=lambda n: there[n])
        if there[most] >= TIMES * there[least]:
            message = f"{there[most]} of {names[most]}, but {there[least]} of {names[least]}"
            findings.append(survey.finding(IMBALANCE, message))
    return findings
