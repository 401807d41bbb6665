"""Objects of a size that is not their category's: often another category was meant, or the box slipped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tracesight.data.checks.label_check import Labels, finding
from tracesight.data.checks.survey import Survey
from tracesight.data.finding import Finding, Kind

KIND = Kind("box-size-odd", "warning", "boxes of a size unlike the others of their category",
            "look whether category and box are right")  # fmt: skip
LEAST = 30  # objects of a category, to know its usual size,
PICTURES = 10  # on so many pictures
AWAY = 6.0  # standard deviations from it, of the size's logarithm,
TIMES = 2.0  # and so many times larger or smaller
_TO_SIGMA = 1.4826  # of a median deviation; it is not moved by the odd ones themselves


def box_size_odd(survey: Survey) -> Sequence[Finding]:
    """The root of a box's area against the median of its category. What the picture's edge may have cut is not odd,
    and of single pixels it is told elsewhere."""
    objects, labels = survey.objects, Labels(survey.dataset.categories, survey.dataset.path)
    sides = np.sqrt((objects.box[:, 2:] - objects.box[:, :2]).prod(1))
    logs = np.log2(np.maximum(sides, 1e-3))
    cut = np.minimum(objects.box[:, :2], objects.size[:, ::-1] - objects.box[:, 2:]).min(1) <= 1
    cut |= (sides <= 1) & ~objects.masked
    findings = []
    for place, number in enumerate(survey.dataset.category_ids):
        rows = np.flatnonzero((objects.category == place) & ~objects.ignored)
        if rows.size < LEAST or np.unique(objects.picture[rows]).size < PICTURES:
            continue
        usual = float(np.median(logs[rows]))
        spread = _TO_SIGMA * float(np.median(np.abs(logs[rows] - usual)))
        most = max(AWAY * spread, math.log2(TIMES))
        odd = (logs[rows] > usual + most) | ((logs[rows] < usual - most) & ~cut[rows])
        for row in rows[odd].tolist():
            record, annotation = survey.object(row)
            name = labels.categories[number]
            message = f"{name} of {_size(annotation.box)} pixels, where the usual side is {2**usual:.0f}"
            findings.append(finding(KIND, record, labels, message, annotation))
    return findings


def _size(box: Sequence[float]) -> str:
    return f"{box[2] - box[0]:.0f} × {box[3] - box[1]:.0f}"
