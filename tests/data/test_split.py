"""A split belongs to its seed and pictures."""

from __future__ import annotations

from pathlib import Path

from tracesight.data.dataset import Dataset
from tracesight.data.record import Record
from tracesight.data.split import keyed_split


def dataset(ids: list[int]) -> Dataset:
    return Dataset.of([Record(i, Path(f"{i}.png"), 1, 1) for i in ids], {1: "cell"})


def ids(part: Dataset | None) -> set[int]:
    return set() if part is None else {record.id for record in part}


def test_parts_are_disjoint_complete_and_independent_of_row_order() -> None:
    train, val = keyed_split(dataset(list(range(50))), 1)
    assert (len(train), len(ids(val))) == (40, 10)
    assert ids(train) | ids(val) == set(range(50))
    assert ids(keyed_split(dataset(list(range(50))[::-1]), 1)[1]) == ids(val)
    assert ids(keyed_split(dataset(list(range(50))), 2)[1]) != ids(val)


def test_small_sets() -> None:
    assert keyed_split(dataset([4]), 0)[1] is None
    train, val = keyed_split(dataset([4, 5]), 0)
    assert (len(train), len(ids(val))) == (1, 1)
