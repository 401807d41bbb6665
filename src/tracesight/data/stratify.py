"""Parts of a set that are alike: each has its share of the pictures, and of every class of pictures and of objects.

In the manner of Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data" (ECML PKDD 2011), section 3:
the rarest label is dealt out first, while there is still room for its few examples, and each example goes where it is
missed most. The paper looks at the label in turn alone; here all labels of an example count, by how far each part is
from its share (χ²), since examples are groups of pictures with many objects. A few sweeps then move what lies better
elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_SWEEPS = 5
_PICTURES = 0  # the column that counts pictures


def stratify(units: Sequence[dict[int, float]], shares: Sequence[float], ranks: Sequence[int]) -> np.ndarray:
    """The part (n,) int64 of each unit, a group of pictures that stays together.

    Args:
        units: what each holds: count by column. Column 0 counts its pictures, the others whatever shall be balanced.
        shares: of the parts, above 0, with the sum 1. Every part gets a unit, where there are as many.
        ranks: order among units that are alike; it comes from a seed.

    The same arguments give the same parts. One that is asked for by a rare column alone goes to the largest part.
    """
    columns = 1 + max((column for unit in units for column in unit), default=0)
    totals, holders = np.zeros(columns), np.zeros(columns, np.int64)
    for unit in units:
        for column, count in unit.items():
            totals[column] += count
            holders[column] += 1
    where = [np.fromiter(unit, np.int64, len(unit)) for unit in units]
    what = [np.fromiter(unit.values(), np.float64, len(unit)) / totals[at] for unit, at in zip(units, where)]
    weight = np.ones(columns)
    weight[_PICTURES] = max(1, columns - 1)  # as much as all others together
    wanted = np.asarray(shares, np.float64)[:, None]
    have = np.zeros((len(shares), columns))
    part = np.full(len(units), -1, np.int64)
    order = _order(where, what, holders, ranks)
    for _ in range(1 + _SWEEPS):
        moved = False
        for unit in order:
            at, count, before = where[unit], what[unit], part[unit]
            if before >= 0:
                have[before, at] -= count
            # What (have − wanted)² / wanted grows by, over the columns of the unit.
            growth = ((2 * (have[:, at] - wanted) + count) * count / wanted * weight[at]).sum(1)
            best = int(growth.argmin())
            if before >= 0 and growth[best] > growth[before] - 1e-12:
                best = int(before)
            have[best, at] += count
            moved |= best != before
            part[unit] = best
        if not moved:
            break
    return _none_empty(part, [unit[_PICTURES] for unit in units], len(shares), order)


def _order(where: list[np.ndarray], what: list[np.ndarray], holders: np.ndarray, ranks: Sequence[int]) -> list[int]:
    """The units with the rarest column first, of those the largest, of those by rank; those without any come last."""
    held = [int(holders[at[at != _PICTURES]].min(initial=np.iinfo(np.int64).max)) for at in where]
    return sorted(range(len(where)), key=lambda unit: (held[unit], -round(float(what[unit].sum()), 12), ranks[unit]))


def _none_empty(part: np.ndarray, pictures: list[float], parts: int, order: list[int]) -> np.ndarray:
    """Give empty parts the smallest unit of the part with most units."""
    for empty in range(parts):
        counts = np.bincount(part, minlength=parts)
        if counts[empty] or counts.max() < 2:
            continue
        largest = int(counts.argmax())
        part[min((unit for unit in order[::-1] if part[unit] == largest), key=lambda unit: pictures[unit])] = empty
    return part
