"""The same picture twice in a set, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

from tracesight.data.checks.picture_check import left_out
from tracesight.data.checks.survey import SetsFound, Survey
from tracesight.data.finding import Kind
from tracesight.data.record import Record

SAME = Kind("picture-twice", "warning", "pictures that are there twice, with the same labels", "remove one of them",
            "the later one left out")  # fmt: skip
OTHER = Kind("picture-twice-otherwise", "warning", "pictures that are there twice, with other labels",
             "look which labels are right and remove the others")  # fmt: skip


def picture_twice(surveys: Mapping[str, Survey]) -> SetsFound:
    """Files of one set with the same SHA-256."""
    findings, dropped = [], {}
    for name, survey in surveys.items():
        first: dict[str, int] = {}
        for index, facts in enumerate(survey.facts):
            before = first.setdefault(facts.sha256, index) if facts.sha256 else index
            if before == index:
                continue
            one, again = survey.dataset[before], survey.dataset[index]
            message = f"it is {one.name} once more"
            if _labels(one) == _labels(again):
                dropped.setdefault(name, set()).add(index)
                findings.append(survey.of_picture(SAME, index, message, left_out(again), one.path))
            else:
                findings.append(survey.of_picture(OTHER, index, f"{message}, with other labels", other=one.path))
    return findings, dropped


def _labels(record: Record) -> object:
    return sorted((a.category_id, a.box) for a in record.annotations), sorted(record.labels)
