"""Splits that belong to a seed, not to the order in which files were found by a machine."""

from __future__ import annotations

from tracesight.data.dataset import Dataset
from tracesight.data.random import generator


def keyed_split(dataset: Dataset, seed: int, share: float = 0.2) -> tuple[Dataset, Dataset | None]:
    """(train, val): `share` of the pictures held out, at least one, drawn as the smallest of keyed uniform numbers.

    The same seed and pictures give the same split. The number of a picture belongs to its rank by id, so that a file
    whose rows were shuffled splits alike. Pictures of one group are held out together, by the number of the first of
    them. With one picture, or one group, there is nothing to hold out: val is None.
    """
    records = [(record.id, record.group) for record in dataset]
    by_id = sorted(range(len(records)), key=lambda index: records[index][0])
    units: dict[object, list[int]] = {}
    for index in by_id:
        group = records[index][1]
        units.setdefault(index if group is None else group, []).append(index)
    if len(units) < 2:
        return dataset, None
    draws = generator(seed, 0, "split").random(len(units))
    count, held_out, groups = max(1, round(share * len(records))), set(), list(units.values())
    for unit in draws.argsort(kind="stable")[:-1]:
        if len(held_out) < count:
            held_out |= set(groups[unit])
    train = dataset.subset([index for index in range(len(dataset)) if index not in held_out])
    return train, dataset.subset(sorted(held_out))
