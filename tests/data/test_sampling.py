"""Repeat factors by hand, and an order of every epoch that follows its weights as closely as whole numbers can."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracesight.data import dataset as holder
from tracesight.data import sampling
from tracesight.data.dataset import Dataset
from tracesight.data.random import order
from tracesight.data.record import Annotation, Record
from tracesight.data.sampling import epoch_length, picture_weights, weighted_order

KNOWN_ORDER = [0, 2, 2, 4, 4, 4]

# ---- the weights of pictures


def dataset_of(*pictures: list[int], crowds: dict[int, list[int]] | None = None) -> Dataset:
    """Pictures with an object of each category given; crowds: categories of crowds, by picture."""
    records = []
    for number, categories in enumerate(pictures):
        objects = [(category, False) for category in categories]
        objects += [(category, True) for category in (crowds or {}).get(number, [])]
        annotations = tuple(Annotation(i, c, (0, 0, 4, 4), None, crowd) for i, (c, crowd) in enumerate(objects))
        records.append(Record(number, Path("none.png"), 8, 8, annotations))
    return Dataset.of(records, {4: "cell", 9: "dust", 30: "hair", 31: "never"})


# f(4) = 8 / 10, f(9) = 2 / 10, f(30) = 1 / 10; picture 9 has no objects.
TEN = [[4, 4, 4], [4], [4], [4], [4], [4], [4, 9, 9], [4, 30, 9], [], []]


def test_repeat_factors_by_hand() -> None:
    weights = picture_weights(dataset_of(*TEN), "repeat_factor", 0.4)
    assert weights is not None
    # r(4) = max(1, sqrt(0.4 / 0.8)) = 1, r(9) = sqrt(0.4 / 0.2), r(30) = sqrt(0.4 / 0.1); the rarest one counts.
    np.testing.assert_allclose(weights, [1] * 6 + [math.sqrt(2), 2, 1, 1], rtol=1e-15)
    assert weights.dtype == np.float64
    assert epoch_length(10, weights) == 11  # 11.41


def test_a_category_at_the_threshold_is_not_repeated() -> None:
    rare = picture_weights(dataset_of(*TEN), "repeat_factor", 0.1)
    assert rare is not None
    np.testing.assert_array_equal(rare, np.ones(10))
    every = picture_weights(dataset_of(*TEN), "repeat_factor", 1.0)
    assert every is not None  # pictures without objects are repeated at no threshold
    expected = [math.sqrt(10 / 8)] * 6 + [math.sqrt(5), math.sqrt(10), 1, 1]
    np.testing.assert_allclose(every, expected, rtol=1e-15)


def test_balanced_categories_by_hand() -> None:
    weights = picture_weights(dataset_of(*TEN), "class_balanced", 0.001)
    assert weights is not None
    # Four categories occur, "no objects" being one: 10 / 4 × (1 / 8, 1 / 2, 1, 1 / 2).
    four = 1 / 8
    expected = [four] * 6 + [four + 1 / 2, four + 1 + 1 / 2, 1 / 2, 1 / 2]
    np.testing.assert_allclose(weights, 2.5 * np.array(expected), rtol=1e-15)
    assert weights.sum() == pytest.approx(10)
    only = picture_weights(dataset_of([4], [4], [4], [9]), "class_balanced", 0.001)
    assert only is not None
    np.testing.assert_allclose(only, [2 / 3, 2 / 3, 2 / 3, 2])  # no picture is without objects


def test_crowds_do_not_count() -> None:
    bare, crowded = dataset_of([4], [], [4]), dataset_of([4], [], [4], crowds={0: [9], 1: [30, 9], 2: [4]})
    for kind in ("repeat_factor", "class_balanced"):
        expected, weights = (picture_weights(dataset, kind, 0.9) for dataset in (bare, crowded))
        assert weights is not None
        assert expected is not None
        np.testing.assert_array_equal(weights, expected)


def test_weights_belong_to_the_subset_and_its_order() -> None:
    part = dataset_of(*TEN).subset([8, 7, 0])
    weights = picture_weights(part, "repeat_factor", 1.0)
    assert weights is not None
    np.testing.assert_allclose(weights, [1, math.sqrt(3), math.sqrt(1.5)])


def test_each_record_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of(*TEN)
    ids, seen = [one.id for one in dataset], []
    with monkeypatch.context() as patch:
        original = holder.unpacked
        patch.setattr(holder, "unpacked", lambda packed: (seen.append((read := original(packed)).id), read)[1])
        for kind in ("repeat_factor", "class_balanced"):
            picture_weights(dataset, kind, 0.5)
            assert seen == ids
            seen.clear()


def test_uniform_is_none_and_an_epoch_is_every_picture() -> None:
    assert picture_weights(dataset_of(*TEN), "uniform", 0.001) is None
    assert epoch_length(7, None) == 7


@pytest.mark.parametrize(("kind", "threshold"), [("rare", 0.1), ("uniform", 0), ("repeat_factor", 1.01)])
def test_what_is_no_kind_or_threshold(kind: str, threshold: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        picture_weights(dataset_of([4]), kind, threshold)
    with pytest.raises(ValueError, match="threshold"):
        picture_weights(dataset_of([4]), "repeat_factor", math.nan)


# ---- the order of an epoch


def counts(seed: int, epoch: int, weights: np.ndarray) -> np.ndarray:
    return np.bincount(weighted_order(seed, epoch, weights), minlength=len(weights))


# Whole and nearly whole shares, tiny and huge weights, and zeros: where rounding could show.
WEIGHTS = st.lists(
    st.one_of(
        st.floats(0, 8), st.integers(0, 5).map(float), st.floats(1e-300, 1e-3), st.just(0.1), st.floats(1e3, 1e4)
    ),
    min_size=1,
    max_size=40,
).filter(any)


@settings(deadline=None, max_examples=300)
@given(WEIGHTS, st.integers(0, 2**63), st.integers(0, 2**40))
@example([0.1], 0, 0)
@example([5e-324], 0, 0)
@example([0.0, 3.7, 0.0], 0, 0)
@example([1.0] * 40, 1, 1)
@example([0.1] * 30, 1, 1)
def test_every_picture_occurs_as_often_as_its_share_rounded_up_or_down(
    values: list[float], seed: int, epoch: int
) -> None:
    weights = np.array(values)
    drawn = weighted_order(seed, epoch, weights)
    length = epoch_length(len(weights), weights)
    assert (drawn.dtype, drawn.shape) == (np.dtype(np.int64), (length,))
    assert length == max(1, round(sum(values))) or abs(sum(values) % 1 - 0.5) < 1e-6  # of a sum in another order
    occurs = np.bincount(drawn, minlength=len(weights))
    assert len(occurs) == len(weights)
    assert not occurs[weights == 0].any()
    share = weights / weights.sum() * length
    assert (occurs >= np.floor(share + 1e-9) - (np.abs(share - np.round(share)) < 1e-9)).all()
    assert (occurs <= np.ceil(share - 1e-9) + (np.abs(share - np.round(share)) < 1e-9)).all()


def test_equal_weights_show_every_picture_once_and_thrice() -> None:
    for epoch in range(50):
        assert counts(0, epoch, np.ones(97)).tolist() == [1] * 97
        assert counts(0, epoch, np.full(97, 3.0)).tolist() == [3] * 97


def test_over_epochs_pictures_occur_in_proportion() -> None:
    weights = np.array([0.25, 1.0, 1.7, 0.0, 3.4, 0.05, 2.0])  # 8.4, so that 8 are drawn
    epochs = 4000
    occurs = np.stack([counts(3, epoch, weights) for epoch in range(epochs)])
    assert (occurs.sum(axis=1) == 8).all()
    share = weights / weights.sum() * 8
    fraction = share % 1
    error = np.sqrt(fraction * (1 - fraction) / epochs)  # each occurs floor or ceil of its share
    assert (np.abs(occurs.mean(axis=0) - share) <= 4 * error + 1e-12).all()


def test_every_position_of_an_epoch_sees_every_picture_in_proportion() -> None:
    weights = np.array([1.0, 2.0, 0.5, 1.5])
    orders = np.stack([weighted_order(1, epoch, weights) for epoch in range(4000)])
    for place in orders.T:
        seen, expected = np.bincount(place, minlength=4), weights / 5 * 4000
        assert ((seen - expected) ** 2 / expected).sum() < 16.3  # χ² of 3 degrees of freedom, 0.1 %


def test_pictures_are_picked_in_random_company() -> None:
    """Of many pictures that are drawn half the time, neighbours are picked neither together nor in turn."""
    picked = np.stack([counts(0, epoch, np.full(20, 0.5)) for epoch in range(2000)])
    together = np.corrcoef(picked.T)[~np.eye(20, dtype=bool)]
    assert abs(together.mean() + 1 / 19) < 0.01  # as in any draw of exactly ten
    assert np.abs(together + 1 / 19).max() < 5 / math.sqrt(2000)


class Largest:
    """In place of a generator: the largest number below 1, so that the last point is rounded past the last end."""

    def random(self, count: int) -> np.ndarray:
        return np.full(count, np.nextafter(1.0, 0.0))


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [2.5, 0.1, 0.0], [0.1] * 33, [0.0, 3.0, 0.0]])
def test_rounding_at_the_end_leads_to_no_picture_that_is_not_there(
    values: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "generator", lambda *_: Largest())
    weights = np.array(values)
    occurs = counts(0, 0, weights)
    assert (len(occurs), occurs.sum()) == (len(weights), epoch_length(len(weights), weights))
    assert not occurs[weights == 0].any()


def test_an_order_belongs_to_seed_and_epoch_alone() -> None:
    weights = np.random.default_rng(0).random(200) * 2
    first = weighted_order(5, 7, weights)
    np.testing.assert_array_equal(first, weighted_order(5, 7, weights.copy()))
    for other in (weighted_order(5, 8, weights), weighted_order(6, 7, weights)):
        assert len(other) == len(first)
        assert (other != first).any()
    assert (weighted_order(0, 1, np.ones(50)) != order(0, 1, 50)).any()


def test_a_known_order() -> None:
    """A change of this would change every weighted training that is taken up again."""
    assert weighted_order(7, 1, np.array([1.0, 0.5, 2.0, 0.0, 2.5])).tolist() == KNOWN_ORDER


def test_as_many_pictures_as_large_sets_have() -> None:
    weights = np.random.default_rng(1).pareto(2, 120_000) + 0.1
    occurs = counts(0, 3, weights)
    share = weights / weights.sum() * epoch_length(len(weights), weights)
    assert occurs.sum() == round(weights.sum())
    assert (np.abs(occurs - share) < 1 + 1e-6).all()


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -0.5], [1.0, math.nan], [1.0, math.inf], []])
def test_what_are_no_weights(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        weighted_order(0, 0, np.array(weights))
