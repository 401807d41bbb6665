from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tracesight.training.schedules import key_momentum, learning_rate


def test_cosine_warms_up_and_ends_at_its_floor():
    rates = [learning_rate(step, 100, lr=2.0, warmup_steps=10, final_lr_fraction=0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == max(rates[8:12])
    assert rates[55] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.55))))
    assert rates[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in pairwise(rates[11:]))


def test_step_schedule_drops_tenfold_at_each_milestone():
    args = {"lr": 1.0, "schedule": "step", "milestones": (0.5, 0.75)}
    assert [round(learning_rate(step, 100, **args), 6) for step in (0, 49, 50, 74, 75, 99)] == [
        1,
        1,
        0.1,
        0.1,
        0.01,
        0.01,
    ]
    assert learning_rate(99, 100, **args, final_lr_fraction=0.05) == 0.05


def test_key_momentum():
    assert key_momentum(7, 10, start=0.99, rises=False) == 0.99
    assert key_momentum(0, 10, start=0.99, rises=True) == pytest.approx(0.99)
    assert key_momentum(5, 10, start=0.99, rises=True) == pytest.approx(0.995)
    assert key_momentum(10, 10, start=0.99, rises=True) == pytest.approx(1.0)
