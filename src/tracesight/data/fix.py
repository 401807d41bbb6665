"""A corrected copy of labelled pictures, with a list of everything that is other in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracesight.data.checks.everything import Report
from tracesight.data.finding import Finding
from tracesight.data.formats import FORMATS, write_sets
from tracesight.data.formats.places import Data, places_of
from tracesight.scene.values import write_whole

LIST = "changes.json"
FORMAT = "tracesight changes"  # by which readers of labels know that this is none


@dataclass(frozen=True)
class Fixed:
    """A copy that was written.

    format: how it is labelled. counts: changes by code. left: findings that only a person can mend, by code.
    lost: what the format has no place for, one sentence each.
    """

    format: str
    counts: dict[str, int]
    left: dict[str, int]
    lost: list[str]


def write_fixed(data: Data, report: Report, folder: Path, format: str | None = None) -> Fixed:
    """Write the sets of `report`, which was made with `mend_warnings`, into a new folder, and `changes.json` with them.

    format: as the data was read; the copy is in the same one, or in COCO where that cannot be written. Nothing of
    `data` is altered. Raises UserError: the folder is not empty, cannot be written, or lies inside the data.
    """
    names = {place.format for place in places_of(data, FORMATS, format).values()}
    name = names.pop() if len(names) == 1 else "coco"
    name = name if FORMATS[name].write is not None else "coco"
    lost = write_sets(report.sets, folder, name)
    counts = Counter(finding.kind.code for finding in report.findings if finding.kind.fix)
    left = Counter(f.kind.code for f in report.findings if not f.kind.fix and f.kind.severity != "note")
    fixed = Fixed(name, dict(counts), dict(left), lost)
    write_whole(folder / LIST, json.dumps(_list(data, report.findings, fixed), indent=1, ensure_ascii=False))
    return fixed


def _list(data: Data, findings: Sequence[Finding], fixed: Fixed) -> dict[str, Any]:
    source = {name: str(path) for name, path in data.items()} if isinstance(data, Mapping) else str(data)
    return {
        "format": FORMAT, "version": 1, "source": source, "labels": fixed.format, "counts": fixed.counts,
        "left": fixed.left, "lost": fixed.lost, "changes": [_row(finding) for finding in findings if finding.kind.fix],
    }  # fmt: skip


def _row(finding: Finding) -> dict[str, Any]:
    change = finding.change
    return {
        "code": finding.kind.code,
        "where": finding.where,
        "message": finding.message,
        "picture": None if finding.picture is None else str(finding.picture),
        "annotation": finding.annotation,
        "done": finding.kind.fix,
        "before": None if change is None else change.before,
        "after": None if change is None else change.after,
    }
