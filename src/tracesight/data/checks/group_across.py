"""Pictures of one group, such as a patient or a slide, in two sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations

from tracesight.data.checks.survey import SetsFound, Survey, wholly
from tracesight.data.finding import Change, Finding, Kind

KIND = Kind(
    "group-across-splits", "error", "groups of pictures that are in two sets",
    "keep a group together (`tracesight data split`)", "left out of the set that is learned from",
)  # fmt: skip


def group_across(surveys: Mapping[str, Survey]) -> SetsFound:
    """A `Record.group` that two sets have, unless one of them is wholly in the other, which is told elsewhere."""
    findings, dropped = [], {}
    groups: dict[str, dict[str, list[int]]] = {}
    for name, survey in surveys.items():
        groups[name] = defaultdict(list)
        for index, group in enumerate(survey.groups):
            if group is not None:
                groups[name][group].append(index)
    for one, other in combinations(surveys, 2):  # in the order train, val, test
        if wholly(surveys[one], surveys[other]):
            continue
        for group in [group for group in groups[one] if group in groups[other]]:
            rows, survey = groups[one][group], surveys[one]
            message = f"group {group!r}: {len(rows)} pictures in {one}, {len(groups[other][group])} in {other}"
            record = survey.dataset[rows[0]]
            change = Change({"group": group, "pictures": [survey.dataset[row].name for row in rows]}, None)
            findings.append(
                Finding(KIND, f"{survey.dataset.path}: picture {record.name}", message, record.path, change=change,
                        split=one)
            )  # fmt: skip
            dropped.setdefault(one, set()).update(rows)
    return findings, dropped
