"""Pictures that look nearly the same as another, in one set or across two."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from tracesight.data.checks.survey import SetsFound, Survey
from tracesight.data.facts import Facts
from tracesight.data.finding import Kind
from tracesight.data.phash import near_groups, nearest

WITHIN = Kind("picture-alike", "note", "pictures that look nearly the same as another of their set",
              "look whether they are copies")  # fmt: skip
ACROSS = Kind(
    "picture-alike-across-splits", "warning", "pictures that look nearly the same as one of another set",
    "split anew with what looks alike together (`tracesight data split`)",
)  # fmt: skip


def alike_within(surveys: Mapping[str, Survey]) -> SetsFound:
    """Every picture but the first of a group that looks alike. The same file twice is told elsewhere."""
    findings = []
    for survey in surveys.values():
        rows = list({facts.sha256: index for index, facts in reversed(list(enumerate(survey.facts)))}.values())[::-1]
        group = near_groups([_shown(survey.facts[row]) for row in rows])
        for place, first in enumerate(group):
            if first != place:
                like = survey.dataset[rows[first]]
                message = f"it looks nearly like {like.name}"
                findings.append(survey.of_picture(WITHIN, rows[place], message, other=like.path))
    return findings, {}


def alike_across(surveys: Mapping[str, Survey]) -> SetsFound:
    """Every picture of a set that looks like one of an earlier set. The same file is told elsewhere."""
    findings = []
    for one, other in combinations(surveys.values(), 2):
        digests = {facts.sha256 for facts in one.facts}
        rows = [index for index, facts in enumerate(other.facts) if facts.sha256 not in digests]
        near = nearest([_shown(other.facts[row]) for row in rows], [_shown(facts) for facts in one.facts])
        for row, index in zip(rows, near):
            if index is not None:
                like = one.dataset[index]
                message = f"it looks nearly like {like.name} of {one.name}"
                findings.append(other.of_picture(ACROSS, row, message, other=like.path))
    return findings, {}


def _shown(facts: Facts) -> str | None:
    """The hash, None where nothing is to be seen on the picture: flat ones all have the same."""
    return facts.phash if facts.phash.strip("0") else None
