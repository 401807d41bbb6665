"""Features judged: neighbours and ridge regression by hand, and beside slow ways of the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tracesight.evaluation.knn import accuracy, neighbours, votes
from tracesight.evaluation.ridge import PENALTIES, ridge
from tracesight.training.collapse import complaint, deviation, rank


def test_votes_by_hand():
    bank = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8], [-1.0, 0.0]])
    near = neighbours(torch.tensor([[3.0, 0.0]]), bank, 3)
    assert near.indices.tolist() == [[0, 2, 1]]
    torch.testing.assert_close(near.similarities, torch.tensor([[1.0, 0.6, 0.0]]))
    scores = votes(near, torch.tensor([0, 1, 1, 2]), 3, temperature=0.5)
    expected = [1.0, math.exp(-0.8) + math.exp(-2.0), 0.0]
    assert scores.tolist()[0] == pytest.approx(expected)
    assert accuracy(scores, torch.tensor([0])) == 1 and accuracy(scores, torch.tensor([1])) == 0
    assert accuracy(scores, torch.tensor([1]), 2) == 1
    assert neighbours(torch.randn(700, 2), bank, 200).indices.shape == (700, 4)


def test_ridge_leaves_each_picture_out_in_closed_form():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, 40))
    features = torch.from_numpy(rng.standard_normal((40, 6)) + np.eye(3, 6)[labels] * 2)
    fitted = ridge(features, labels, 3)
    assert float((fitted.scores(features).argmax(1) == labels).double().mean()) > 0.8
    x = (features - fitted.mean) / fitted.deviation
    y = torch.nn.functional.one_hot(labels, 3).double()

    def solved(x, y, penalty, count):
        return torch.linalg.solve(x.T @ x + penalty * count * torch.eye(6, dtype=torch.float64), x.T @ (y - y.mean(0)))

    torch.testing.assert_close(fitted.weights, solved(x, y, fitted.penalty, 40))
    # Left out in turn, as the slow way does it but for means and deviations, which the picture has a share in.
    right = {}
    for penalty in PENALTIES:
        hat = x @ torch.linalg.solve(x.T @ x + penalty * 40 * torch.eye(6, dtype=torch.float64), x.T) + 1 / 40
        left_out = y - (y - hat @ y) / (1 - hat.diagonal())[:, None]
        right[penalty] = float((left_out.argmax(1) == labels).double().mean())
    assert right[fitted.penalty] == max(right.values())


def test_collapse_is_seen():
    generator = torch.Generator().manual_seed(0)
    good = torch.nn.functional.normalize(torch.randn(4000, 16, generator=generator), dim=1)
    assert float(deviation(good)) == pytest.approx(1, abs=0.02) and float(rank(good)) == pytest.approx(16, abs=0.5)
    same = good[:1].expand(50, 16)
    assert float(deviation(same)) == pytest.approx(0, abs=1e-6) and float(rank(same)) == pytest.approx(1, abs=1e-3)
    assert complaint(500, 1000, 0.9, 12.0) is None and complaint(50, 1000, 0.0, 1.0) is None
    assert "collapsed" in (complaint(500, 1000, 0.01, 12.0) or "")
    assert "rank 1.2" in (complaint(500, 1000, 0.9, 1.2) or "")
