from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_labels import SIDE, annotation, ellipse, made, result

from tracesight.data.dataset import Dataset
from tracesight.data.record import Record
from tracesight.evaluation import at_threshold, operating_threshold
from tracesight.evaluation.matching import FREE, IGNORED, greedy, matchings


def dataset_of(*annotations: object) -> Dataset:
    return Dataset.of([Record(0, Path("a.png"), SIDE, SIDE, tuple(annotations))], {7: "nut", 8: "bolt"})  # type: ignore[arg-type]


ONE, TWO, NOWHERE = ellipse(30, 30, 10, 10), ellipse(100, 100, 10, 10), ellipse(30, 120, 10, 10)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_hand_computed_threshold(kind: str) -> None:
    dataset = dataset_of(annotation(0, 7, ONE), annotation(1, 8, TWO))
    results = [result(0, 7, 0.9, ONE), result(0, 8, 0.6, TWO), result(0, 7, 0.3, NOWHERE), result(0, 7, 0.2, ONE)]
    best = operating_threshold(results, dataset, kind=kind)
    assert best == {"threshold": 0.45, "f1": 1.0, "precision": 1.0, "recall": 1.0}
    assert at_threshold(results, dataset, 0.25, kind=kind) == pytest.approx(
        {"threshold": 0.25, "f1": 0.8, "precision": 2 / 3, "recall": 1.0}
    )
    assert at_threshold(results, dataset, 0.95, kind=kind)["precision"] is None


def test_the_wrong_class_is_not_a_find() -> None:
    found = operating_threshold([result(0, 8, 0.9, ONE)], dataset_of(annotation(0, 7, ONE)))
    assert found == {"threshold": 0.5, "f1": 0.0, "precision": None, "recall": 0.0}


def test_crowds_excuse_and_are_not_missed() -> None:
    dataset = dataset_of(annotation(0, 7, ONE), annotation(1, 7, ellipse(100, 100, 40, 40), crowd=True))
    results = [result(0, 7, 0.9, TWO), result(0, 7, 0.8, ONE)]
    assert operating_threshold(results, dataset)["f1"] == 1.0


def test_equal_scores_are_shown_together() -> None:
    dataset = dataset_of(annotation(0, 7, ONE))
    results = [result(0, 7, 0.5, ONE), result(0, 7, 0.5, NOWHERE)]
    best = operating_threshold(results, dataset)
    assert best["precision"] == 0.5
    assert best["threshold"] <= 0.5


def test_the_threshold_gives_the_figures_it_states_and_none_is_better() -> None:
    dataset, results = made(seed=3)
    best = operating_threshold(results, dataset, kind="segm")
    assert at_threshold(results, dataset, best["threshold"], kind="segm") == pytest.approx(best)
    others = [at_threshold(results, dataset, t, kind="segm")["f1"] for t in np.linspace(0, 1, 41)]
    assert max(others) <= best["f1"] + 1e-12


def test_without_results_or_objects() -> None:
    assert operating_threshold([], dataset_of(annotation(0, 7, ONE)))["f1"] == 0.0
    empty = operating_threshold([result(0, 7, 0.9, ONE)], dataset_of())
    assert empty == {"threshold": 0.5, "f1": None, "precision": None, "recall": None}


def test_matching_agrees_with_pycocotools() -> None:
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from tracesight.evaluation.coco import coco_truth

    dataset, results = made(seed=5, pictures=4, objects=60)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco_truth(dataset, "segm")[0]
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(r) for r in results]), "segm")
        evaluation.params.maxDets = [1000]
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
    theirs = {(e["image_id"], e["category_id"]): e for e in evaluation.evalImgs if e}
    compared = 0
    for ours in matchings(results, dataset, kind="segm"):
        row = theirs[ours.image_id, ours.category_id]
        ignored = row["dtIgnore"][0].astype(bool)
        assert ((ours.matched == IGNORED) == ignored).all()
        assert ((ours.matched >= 0) == ((row["dtMatches"][0] > 0) & ~ignored)).all()
        compared += len(ours.matched)
    assert compared == len(results)


def test_greedy_takes_turns() -> None:
    ious = np.array([[0.6, 0.9], [0.7, 0.95], [0.55, 0.8], [0.1, 0.2]])
    crowds = np.array([[0.0], [0.0], [0.4], [0.9]])
    assert greedy(ious, crowds, 0.5).tolist() == [1, 0, FREE, IGNORED]
