"""Average recall of proposals: by hand, and against pycocotools without categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation, Record
from tracesight.evaluation.recall import proposal_recall

HERE = Path(__file__)


def labelled(boxes: list, **options) -> Dataset:
    objects = tuple(Annotation(i, 1 + i % 2, tuple(box), **options) for i, box in enumerate(boxes))
    return Dataset.of([Record(1, HERE, 100, 100, objects), Record(2, HERE, 100, 100)], {1: "a", 2: "b"})


def results(boxes: list, scores: list[float]) -> list[dict]:
    return [
        {"image_id": 1, "category_id": 1, "score": s, "bbox": [x, y, right - x, bottom - y]}
        for (x, y, right, bottom), s in zip(boxes, scores)
    ]


def test_by_hand():
    data = labelled([[0, 0, 10, 10], [50, 50, 60, 60]])
    # One exactly, one with an IoU of 0.8: found at 7 of the 10 thresholds (0.50 to 0.80).
    found = results([[0, 0, 10, 10], [50, 50, 60, 58]], [0.9, 0.8])
    figures = proposal_recall(found, data, limits=(1, 2))
    assert figures == pytest.approx({"AR@1": 0.5, "AR@2": (10 + 7) / 20, "recall@2": 1.0})
    assert proposal_recall([], data)["AR@1000"] == 0
    assert proposal_recall(found, labelled([]))["AR@100"] is None
    assert proposal_recall(found, labelled([[0, 0, 10, 10]], crowd=True))["AR@100"] is None


def test_a_proposal_finds_one_object_and_the_best_by_score_come_first():
    data = labelled([[0, 0, 10, 10], [1, 0, 11, 10]])
    assert proposal_recall(results([[0, 0, 10, 10]], [1.0]), data)["recall@1000"] == 0.5
    two = results([[0, 0, 10, 10], [1, 0, 11, 10], [80, 80, 90, 90]], [0.5, 0.4, 0.9])
    assert proposal_recall(two, data, limits=(1, 3)) == pytest.approx({"AR@1": 0.0, "AR@3": 1.0, "recall@3": 1.0})


def test_equals_pycocotools_without_categories():
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 60, (12, 2)), rng.uniform(8, 40, (12, 2))
    truth = np.concatenate((corner, corner + side), 1)
    near = truth[rng.integers(0, 12, 60)] + rng.normal(0, 3, (60, 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    found = results(near.tolist(), rng.random(60).tolist())
    data = labelled(truth.tolist())
    limits = (5, 20, 60)
    ours = proposal_recall(found, data, limits)
    theirs = coco.COCO()
    theirs.dataset = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": w * h, "bbox": [x, y, w, h]}
            for i, (x, y, w, h) in enumerate(np.concatenate((corner, side), 1).tolist())
        ],
    }
    theirs.createIndex()
    scored = COCOeval(theirs, theirs.loadRes(found), "bbox")
    scored.params.useCats, scored.params.maxDets = 0, list(limits)
    scored.evaluate()
    scored.accumulate()
    recall = scored.eval["recall"][:, 0, 0, :]  # thresholds, one category, all areas, limits
    for column, limit in enumerate(limits):
        assert ours[f"AR@{limit}"] == pytest.approx(recall[:, column].mean(), abs=1e-9)
