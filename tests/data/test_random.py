"""Numbers belong to seed, draw and purpose, and to nothing else."""

from __future__ import annotations

import numpy as np

from tracesight.data.random import generator, order

KNOWN = [0.35805542844086913, 0.2286044433561346, 0.17714996626437995]
KNOWN_ORDER = [5, 6, 0, 1, 7, 2, 3, 4]


def test_the_same_key_gives_the_same_numbers_and_another_gives_others() -> None:
    first = generator(3, 5, "augment").random(8)
    np.testing.assert_array_equal(first, generator(3, 5, "augment").random(8))
    for other in ((4, 5, "augment"), (3, 6, "augment"), (3, 5, "shuffle"), (-3, 5, "augment")):
        assert not np.isin(first, generator(*other).random(8)).any()


def test_known_numbers() -> None:
    """A change of these would change every training that is taken up again."""
    np.testing.assert_array_equal(generator(7, 11, "augment").random(3), KNOWN)
    assert order(7, 1, 8).tolist() == KNOWN_ORDER


def test_neighbouring_draws_do_not_overlap_and_are_uniform() -> None:
    numbers = np.stack([generator(0, draw, "augment").random(50) for draw in range(400)])
    assert np.unique(numbers).size == numbers.size
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.15


def test_an_order_is_a_permutation_that_belongs_to_its_epoch() -> None:
    assert sorted(order(0, 0, 100)) == list(range(100))
    np.testing.assert_array_equal(order(0, 4, 100), order(0, 4, 100))
    assert (order(0, 4, 100) != order(0, 5, 100)).any()
    assert (order(1, 4, 100) != order(0, 4, 100)).any()
