from __future__ import annotations

import numpy as np
import pytest
import torch

from tracesight.evaluation.classify import (
    average_precision,
    best_temperature,
    best_threshold,
    calibration_error,
    evaluate_classes,
)
from tracesight.ops.chances import probabilities

NAMES = {3: "ant", 7: "bee", 9: "cat"}


def one_of(labels: list[int], count: int) -> np.ndarray:
    return np.eye(count, dtype=bool)[labels]


def test_figures_by_hand():
    scores = np.log([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    metrics = evaluate_classes(scores, one_of([0, 1, 1, 0], 3), NAMES, several=False)
    image = metrics["image"]
    assert (image["top1"], image["top5"], image["pictures"]) == (0.5, None, 4)
    assert image["nll"] == pytest.approx(-np.log([0.7, 0.3, 0.8, 0.2]).mean())
    assert image["confusion"] == {"classes": ["ant", "bee", "cat"], "counts": [[1, 0, 1], [1, 1, 0], [0, 0, 0]]}
    assert image["per_class"]["ant"] == {"pictures": 2, "recall": 0.5, "precision": 0.5}
    assert image["per_class"]["cat"] == {"pictures": 0, "recall": None, "precision": 0.0}
    assert image["confused"] == [
        {"label": "ant", "answer": "cat", "pictures": 1}, {"label": "bee", "answer": "ant", "pictures": 1}
    ]  # fmt: skip
    assert metrics["warnings"] == ["no picture shows cat: no figure of these classes"]
    # Each in a bin of its own, but for the two wrong ones at 0.6.
    assert image["ece"] == pytest.approx((0.3 + 1.2 + 0.2) / 4)


def test_top_5_counts_the_five_best_and_of_equal_scores_the_first():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 12)), rng.integers(0, 12, 200)
    image = evaluate_classes(scores, one_of(labels, 12), {i: str(i) for i in range(12)}, several=False)["image"]
    best = torch.from_numpy(scores).topk(5).indices.numpy()
    assert image["top5"] == (best == labels[:, None]).any(1).mean()
    assert image["top1"] == (best[:, 0] == labels).mean()
    equal = evaluate_classes(np.zeros((3, 12)), one_of([0, 4, 5], 12), {i: str(i) for i in range(12)}, several=False)
    assert (equal["image"]["top1"], equal["image"]["top5"]) == (1 / 3, 2 / 3)


def test_calibration_error_of_the_calibrated_is_0_and_of_the_sure_and_wrong_1():
    sure = np.repeat([0.25, 0.75], 400)
    right = np.tile([1, 0, 0, 0], 100).tolist() + np.tile([1, 1, 1, 0], 100).tolist()
    assert calibration_error(sure, np.array(right)) == pytest.approx(0)
    assert calibration_error(np.ones(10), np.zeros(10)) == 1
    assert calibration_error(np.zeros(0), np.zeros(0)) is None


@pytest.mark.parametrize("several", [False, True])
def test_temperature_is_found_again(several):
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 2, (4000, 6))
    chances = probabilities(scores, several)
    if several:
        truth = rng.random(chances.shape) < chances
    else:
        truth = one_of([int(np.searchsorted(row.cumsum(), rng.random())) for row in chances], 6)
    assert best_temperature(scores * 3, truth, several) == pytest.approx(3, rel=0.08)
    metrics = evaluate_classes(scores * 3, truth, {i: str(i) for i in range(6)}, several=several, temperature=3)
    assert metrics["image"]["ece"] < 0.03 < 0.1 < metrics["image"]["ece_raw"]


def test_without_a_mistake_there_is_nothing_to_learn_a_temperature_from():
    truth = one_of([0, 1], 2)
    assert best_temperature(np.array([[3.0, 1], [0, 2]]), truth, several=False) == 1
    assert best_temperature(np.array([[3.0, -1], [-1, 2]]), truth, several=True) == 1


def test_average_precision_by_hand_and_with_ties():
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0], bool)) == pytest.approx(5 / 6)
    assert average_precision(np.array([0.5, 0.5]), np.array([1, 0], bool)) == 0.5
    assert average_precision(np.array([0.5]), np.array([False])) is None


def test_several_labels_by_hand():
    chances = np.array([[0.9, 0.2], [0.6, 0.7], [0.4, 0.1]])
    truth = np.array([[1, 0], [1, 1], [0, 0]], bool)
    metrics = evaluate_classes(np.log(chances / (1 - chances)), truth, {1: "a", 2: "b"}, several=True)
    assert (metrics["image"]["mAP"], metrics["image"]["f1"]) == (1.0, 1.0)
    assert metrics["image"]["threshold"] == pytest.approx(0.5)
    assert best_threshold(chances, np.zeros((3, 2), bool))["f1"] is None
    mixed = best_threshold(np.array([[0.9, 0.8, 0.3]]), np.array([[1, 0, 1]], bool))
    assert mixed["recall"] == 1.0 and mixed["precision"] == pytest.approx(2 / 3)
