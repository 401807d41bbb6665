"""Names of categories: none, or the same one twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tracesight.data.checks.survey import Survey
from tracesight.data.finding import Finding, Kind

TWICE = Kind("category-name-twice", "warning", "categories that have the name of another", "merge or rename them")
NONE = Kind("category-unnamed", "warning", "categories without a name of their own", "name it")


def category_names(survey: Survey) -> Sequence[Finding]:
    """Names that are the same but for case, spaces and hyphens, and names that are blank or the number itself."""
    findings = []
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, name in survey.dataset.categories.items():
        plain = "".join(letter for letter in name.casefold() if letter.isalnum())
        if not name.strip() or name.strip() == str(number):
            findings.append(survey.finding(NONE, f"category {number} is called {name!r}"))
        elif plain and plain != "na":  # the numbers that COCO left out are called N/A
            by_name[plain].append(number)
    for numbers in by_name.values():
        first, *others = numbers
        for number in others:
            names = [survey.dataset.categories[n] for n in (number, first)]
            findings.append(survey.finding(TWICE, f"category {number} ({names[0]}) is category {first} ({names[1]})"))
    return findings
