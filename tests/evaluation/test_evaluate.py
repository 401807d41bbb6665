from __future__ import annotations

import contextlib
import copy
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_labels import CATEGORIES, SIDE, annotation, ellipse, made, result

from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation, Record
from tracesight.evaluation import evaluate
from tracesight.evaluation.coco import coco_truth

TWELVE = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def by_pycocotools(dataset: Dataset, results: list[dict], kind: str, limits: list[int]) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco_truth(dataset, "segm")[0]
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), kind)
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
        if limits == [1, 10, 100]:
            evaluation.summarize()
            return evaluation.stats
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return np.array([precision[precision > -1].mean(), precision[0][precision[0] > -1].mean()])


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("objects", [15, 150])
def test_the_figures_are_those_of_pycocotools(kind: str, objects: int) -> None:
    dataset, results = made(seed=objects, pictures=3, objects=objects)
    assert any(a.id == 0 for record in dataset for a in record.annotations)
    metrics = evaluate(results, dataset, max_objects=250)
    expected = by_pycocotools(dataset, results, kind, [1, 10, 100])
    assert (expected > 0).all()  # every area range has objects
    for name, value in zip(TWELVE, expected):
        assert metrics[kind][name] == pytest.approx(value, abs=1e-12), name
    expected = by_pycocotools(dataset, results, kind, [1, 10, 250])
    assert [metrics[kind]["AP@all"], metrics[kind]["AP50@all"]] == pytest.approx(list(expected), abs=1e-12)
    assert 0.1 < metrics[kind]["AP"] < 0.9


@pytest.mark.parametrize("max_objects", [1, 10, 25, 100])
def test_a_small_limit_counts_too(max_objects: int) -> None:
    dataset, results = made(pictures=3, objects=60)
    metrics = evaluate(results, dataset, max_objects=max_objects, kinds=("bbox",))
    expected = by_pycocotools(dataset, results, "bbox", [max_objects])
    assert [metrics["bbox"]["AP@all"], metrics["bbox"]["AP50@all"]] == pytest.approx(list(expected), abs=1e-12)
    assert metrics["bbox"]["AP"] == evaluate(results, dataset, max_objects=300, kinds=("bbox",))["bbox"]["AP"]


def test_truth_used_as_results_scores_one() -> None:
    dataset, _ = made(pictures=3, objects=150)
    most = max(len(record.annotations) for record in dataset)
    assert most > 100
    results = [
        result(record.id, a.category_id, 1.0, a.mask(SIDE, SIDE)) for record in dataset for a in record.annotations
    ]
    metrics = evaluate(results, dataset, max_objects=most)
    for kind in ("bbox", "segm"):
        assert metrics[kind]["AP@all"] == 1.0
        assert metrics[kind]["AP50@all"] == 1.0
        assert metrics[kind]["AP"] < 1.0  # 100 detections cannot find the more than 100 nuts
        rows = metrics[kind]["per_class"]
        assert {name: row["AP@all"] for name, row in rows.items()} == {
            "bolt": 1.0, "nut": 1.0, "washer": 1.0, "never there": None
        }  # fmt: skip
        assert rows["nut"]["recall"] == 1.0


def test_a_single_object_with_id_zero_scores_one() -> None:
    mask = ellipse(40, 40, 20, 12)
    dataset = Dataset.of([Record(3, Path("a.png"), SIDE, SIDE, (annotation(0, 7, mask),))], {7: "nut"})
    metrics = evaluate([result(3, 7, 0.9, mask)], dataset, max_objects=1)
    assert metrics["bbox"]["AP"] == metrics["segm"]["AP@all"] == 1.0
    assert metrics["segm"]["per_class"]["nut"]["objects"] == 1


def test_hand_computed_precision() -> None:
    """Two objects; in order of score: right, wrong, right. Precision 1 up to recall 0.5, then 2/3: 51 and 50 points."""
    one, two, nowhere = ellipse(30, 30, 10, 10), ellipse(100, 100, 10, 10), ellipse(30, 120, 10, 10)
    dataset = Dataset.of(
        [Record(0, Path("a.png"), SIDE, SIDE, (annotation(0, 7, one), annotation(1, 7, two)))], {7: "nut"}
    )
    results = [result(0, 7, 0.9, one), result(0, 7, 0.8, nowhere), result(0, 7, 0.7, two)]
    figures = evaluate(results, dataset, max_objects=100)["segm"]
    assert figures["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert figures["AR1"] == 0.5
    assert figures["AR100"] == 1.0


def test_no_results_score_zero_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    dataset, _ = made(pictures=2, objects=5)
    metrics = evaluate([], dataset, max_objects=300)
    assert metrics["bbox"]["AP"] == metrics["segm"]["AP50@all"] == metrics["segm"]["AR100"] == 0.0
    evaluate(made(pictures=2, objects=5)[1], dataset, max_objects=300)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_class_without_examples_is_null_and_named() -> None:
    dataset, results = made(pictures=2, objects=9)
    metrics = evaluate(results, dataset, max_objects=100)
    row = metrics["segm"]["per_class"]["never there"]
    assert row == {**dict.fromkeys(["AP", "AP50", "AP75", "AP@all", "AP50@all", "recall"]), "objects": 0}
    assert any("never there" in warning for warning in metrics["warnings"])
    with_examples = [r["AP"] for r in metrics["segm"]["per_class"].values() if r["AP"] is not None]
    assert metrics["segm"]["AP"] == pytest.approx(np.mean(with_examples))
    json.dumps(metrics, allow_nan=False)


def test_data_without_objects_gives_nulls() -> None:
    dataset = Dataset.of([Record(0, Path("a.png"), SIDE, SIDE)], CATEGORIES)
    metrics = evaluate([result(0, 7, 0.5, ellipse(50, 50, 9, 9))], dataset, max_objects=100)
    assert all(metrics["bbox"][name] is None for name in TWELVE)
    assert metrics["warnings"] == ["the data holds no object to find: no figure could be computed"]


def test_unused_ids_of_a_catalogue_are_not_shown() -> None:
    dataset, results = made(pictures=2, objects=6)
    dataset = replace(dataset, categories={**CATEGORIES, 12: "N/A", 26: "N/A"})
    metrics = evaluate(results, dataset, max_objects=100)
    assert "N/A" not in json.dumps(metrics)


def test_results_of_foreign_categories_are_left_out_with_a_warning() -> None:
    dataset, results = made(pictures=2, objects=6)
    foreign = result(0, 1234, 0.99, ellipse(50, 50, 9, 9))
    metrics = evaluate([foreign, *results], dataset, max_objects=100)
    assert metrics["segm"]["AP"] == evaluate(results, dataset, max_objects=100)["segm"]["AP"]
    assert any("1234" in warning for warning in metrics["warnings"])


def test_objects_without_a_mask_are_ignored_where_masks_are_scored() -> None:
    mask = ellipse(40, 40, 20, 12)
    boxed = Annotation(1, 7, (100.0, 100.0, 120.0, 130.0))
    dataset = Dataset.of([Record(0, Path("a.png"), SIDE, SIDE, (annotation(0, 7, mask), boxed))], {7: "nut"})
    results = [result(0, 7, 0.9, mask), result(0, 7, 0.95, ellipse(110, 115, 8, 12))]
    metrics = evaluate(results, dataset, max_objects=100)
    assert metrics["segm"]["AP"] == 1.0
    assert metrics["segm"]["per_class"]["nut"]["objects"] == 1
    assert metrics["bbox"]["per_class"]["nut"]["objects"] == 2
    assert any("no mask" in warning for warning in metrics["warnings"])


def test_results_are_left_as_they_were() -> None:
    dataset, results = made(pictures=2, objects=6)
    before = copy.deepcopy(results)
    evaluate(results, dataset, max_objects=100)
    assert results == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 99}, "picture 99 is not in the data"),
        ({"score": float("nan")}, "score nan"),
        ({"bbox": [0, 0, float("inf"), 1]}, "box"),
        ({"segmentation": {"size": [4, 4], "counts": "`0"}}, "mask of size"),
    ],
)
def test_results_that_cannot_be_placed_are_named(change: dict, words: str) -> None:
    dataset, results = made(pictures=2, objects=6)
    with pytest.raises(ValueError, match=f"result 1.*{words}"):
        evaluate([results[0], {**results[1], **change}], dataset, max_objects=100)
