"""The same picture in two sets, byte for byte: what is measured on it was learned by heart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from tracesight.data.checks.picture_check import left_out
from tracesight.data.checks.survey import SetsFound, Survey, wholly
from tracesight.data.finding import Finding, Kind

ALL = Kind("splits-same", "warning", "sets that are wholly part of another",
           "hold pictures back: figures on what was learned say nothing")  # fmt: skip
SOME = Kind("picture-across-splits", "warning", "pictures that are in two sets", "remove them from one",
            "left out of the set that is learned from")  # fmt: skip


def picture_across(surveys: Mapping[str, Survey]) -> SetsFound:
    """Files of two sets with the same SHA-256. Where all of a set are in another, that is told once."""
    findings, dropped = [], {}
    for one, other in combinations(surveys, 2):  # in the order train, val, test
        shared = surveys[one].digests & surveys[other].digests
        if not shared:
            continue
        if wholly(surveys[one], surveys[other]):
            findings.append(_wholly(surveys, one, other, shared == surveys[other].digests))
            continue
        where = {f.sha256: index for index, f in enumerate(surveys[other].facts)}
        for index, facts in enumerate(surveys[one].facts):
            if facts.sha256 in shared:
                dropped.setdefault(one, set()).add(index)
                again = surveys[other].dataset[where[facts.sha256]]
                change = left_out(surveys[one].dataset[index])
                message = f"it is also in {other}, as {again.name}"
                findings.append(surveys[one].of_picture(SOME, index, message, change, again.path))
    return findings, dropped


def _wholly(surveys: Mapping[str, Survey], one: str, other: str, later: bool) -> Finding:
    part, whole = (other, one) if later else (one, other)
    count = len(surveys[part].dataset)
    pictures = f"all {count} pictures" if count > 1 else "the only picture"
    return surveys[part].finding(ALL, f"{pictures} of {part} {'are' if count > 1 else 'is'} also in {whole}")
