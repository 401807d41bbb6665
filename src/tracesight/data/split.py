"""Splits that belong to a seed, not to the order in which files were found by a machine."""

from __future__ import annotations

from tracesight.data.random import generator
from tracesight.data.record import Dataset


def keyed_split(dataset: Dataset, seed: int, share: float = 0.2) -> tuple[Dataset, Dataset | None]:
    """(train, val): `share` of the pictures held out, at least one, drawn as the smallest of keyed uniform numbers.

    The same seed and pictures give the same split. The number of a picture belongs to its rank by id, so that a file
    whose rows were shuffled splits alike. With one picture there is nothing to hold out: val is None.
    """
    if len(dataset) < 2:
        return dataset, None
    by_id = sorted(range(len(dataset)), key=lambda index: dataset[index].id)
    draws = generator(seed, 0, "split").random(len(dataset))
    count = max(1, round(share * len(dataset)))
    held_out = {by_id[rank] for rank in draws.argsort(kind="stable")[:count]}
    train = dataset.subset([index for index in range(len(dataset)) if index not in held_out])
    return train, dataset.subset(sorted(held_out))
