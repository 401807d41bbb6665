"""Parts are alike in every class, as far as there are examples to deal out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracesight.data.stratify import stratify


def counts(units: list[dict[int, float]], part: np.ndarray, column: int, parts: int) -> list[float]:
    return [sum(unit.get(column, 0) for unit, at in zip(units, part) if at == j) for j in range(parts)]


def test_every_column_gets_its_share() -> None:
    """Pictures with some of 12 classes, common ones and rare ones, with many objects each."""
    rng = np.random.default_rng(0)
    units: list[dict[int, float]] = []
    for _ in range(1000):
        unit: dict[int, float] = {0: 1}
        for label in range(12):
            if rng.random() < 0.5 / (1 + label):
                unit |= {1 + 2 * label: 1, 2 + 2 * label: int(rng.geometric(0.2))}
        units.append(unit)
    shares = [0.7, 0.2, 0.1]
    part = stratify(units, shares, list(rng.permutation(1000)))
    for column in range(25):
        total = sum(unit.get(column, 0) for unit in units)
        for share, count in zip(shares, counts(units, part, column, 3)):
            objects = column > 0 and column % 2 == 0
            assert abs(count - share * total) <= (0.1 * share * total if objects else 1), column


def test_an_exact_division_is_found() -> None:
    units: list[dict[int, float]] = [{0: 1, 1 + n % 4: 1} for n in range(40)]
    part = stratify(units, [0.5, 0.25, 0.25], list(range(40)))
    assert counts(units, part, 0, 3) == [20, 10, 10]
    for column in range(1, 5):
        assert counts(units, part, column, 3) in ([5, 2, 3], [5, 3, 2])


def test_large_units_and_rare_classes() -> None:
    units: list[dict[int, float]] = [{0: 50, 1: 50}, *({0: 1, 1: 1} for _ in range(50)), {0: 1, 2: 1}]
    part = stratify(units, [0.5, 0.5], list(range(52)))
    assert counts(units, part, 0, 2) in ([50, 51], [51, 50])
    alone = stratify([{0: 1}, {0: 1}, {0: 1}, {0: 1, 1: 9}], [0.75, 0.25], [0, 1, 2, 3])
    assert alone[3] == 0  # the only example of a class is learned from


def test_the_same_units_and_ranks_give_the_same_and_others_another() -> None:
    rng = np.random.default_rng(1)
    units: list[dict[int, float]] = [{0: 1, 1 + int(rng.integers(3)): 1} for _ in range(60)]
    ranks = list(rng.permutation(60))
    part = stratify(units, [0.8, 0.2], ranks)
    assert (part == stratify(units, [0.8, 0.2], ranks)).all()
    back = stratify(units[::-1], [0.8, 0.2], ranks[::-1])
    assert (part == back[::-1]).all()
    assert (part != stratify(units, [0.8, 0.2], list(rng.permutation(60)))).any()


@settings(max_examples=40)
@given(
    st.lists(st.dictionaries(st.integers(1, 4), st.integers(1, 20), max_size=3), min_size=2, max_size=20),
    st.integers(2, 5),
)
def test_all_are_dealt_out_and_no_part_is_empty(classes: list[dict[int, float]], parts: int) -> None:
    units = [{0: 1, **some} for some in classes]
    part = stratify(units, [1 / parts] * parts, list(range(len(units))))
    assert part.min() >= 0 and part.max() < parts
    assert len(set(part.tolist())) == min(parts, len(units))


@pytest.mark.parametrize("parts", [2, 3])
def test_one_label_for_all(parts: int) -> None:
    units: list[dict[int, float]] = [{0: 1, 1: 1} for _ in range(30)]
    part = stratify(units, [1 / parts] * parts, list(range(30)))
    assert counts(units, part, 0, parts) == [30 / parts] * parts
