"""Keypoint figures: those of pycocotools, and what is done with other points than a person's."""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tracesight.data.dataset import Dataset
from tracesight.data.points import PERSON, Keypoints
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError
from tracesight.evaluation import evaluate
from tracesight.evaluation.keypoints import SIGMA, SIGMAS, sigmas_of

TEN = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
SIDE = 400


def made(seed: int, objects: int, points: Keypoints = PERSON, category: int = 3) -> tuple[Dataset, list[dict]]:
    """People with some points hidden, missing or none at all, crowds among them, and results that are them shaken."""
    rng, records, results, number = np.random.default_rng(seed), [], [], 0
    for picture in range(3):
        annotations = []
        for place in range(objects if picture else 0):
            x, y, w, h = *rng.uniform(0, 250, 2), *rng.uniform(20, 150, 2)
            where = np.stack((rng.uniform(x, x + w, len(points.names)), rng.uniform(y, y + h, len(points.names))), 1)
            seen = rng.integers(0, 3, len(points.names)) if place % 5 else np.zeros(len(points.names), int)
            keypoints = tuple((float(a), float(b), int(v)) for (a, b), v in zip(where, seen))
            box = (float(x), float(y), float(x + w), float(y + h))
            area = float(w * h * rng.uniform(0.3, 0.7))
            annotations.append(
                Annotation(number, category, box, area=area, crowd=place % 7 == 3, keypoints=keypoints)
            )  # fmt: skip
            number += 1
            for _ in range(int(rng.integers(0, 3))):
                shaken = where + rng.normal(0, rng.choice([0.5, 1, 5]), where.shape)
                results.append({
                    "image_id": picture, "category_id": category, "bbox": [x, y, w, h],
                    "score": round(float(rng.uniform(0.05, 1)), 2),
                    "keypoints": [float(v) for a, b in shaken for v in (a, b, 1)],
                })  # fmt: skip
        records.append(Record(picture, Path(f"{picture}.png"), SIDE, SIDE, tuple(annotations)))
    return Dataset.of(records, {category: "person"}, keypoints={category: points}), results


def by_pycocotools(dataset: Dataset, results: list[dict], limit: int, sigmas: np.ndarray) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = []
    for record in dataset:
        for a in record.annotations:
            x1, y1, x2, y2 = a.box
            values = [v for point in a.keypoints or () for v in point]
            rows.append({
                "id": len(rows) + 1, "image_id": record.id, "category_id": a.category_id, "iscrowd": int(a.crowd),
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": a.area, "keypoints": values,
                "num_keypoints": sum(v > 0 for v in values[2::3]),
            })  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {}, "images": [{"id": r.id, "height": SIDE, "width": SIDE} for r in dataset], "annotations": rows,
            "categories": [{"id": i, "name": n} for i, n in dataset.categories.items()],
        }  # fmt: skip
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.params.maxDets = [limit]
        evaluation.evaluate()
        evaluation.accumulate()
        if limit == 20:
            evaluation.summarize()
            return evaluation.stats
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return np.array([precision[precision > -1].mean(), precision[0][precision[0] > -1].mean()])


@pytest.mark.parametrize("objects", [20, 60])
def test_the_figures_are_those_of_pycocotools(objects: int) -> None:
    dataset, results = made(objects, objects)
    figures = evaluate(results, dataset, max_objects=100, kinds=("keypoints",))["keypoints"]
    expected = by_pycocotools(dataset, results, 20, np.array(SIGMAS))
    assert (expected > -1).all() and expected[0] > 0
    for name, value in zip(TEN, expected, strict=True):
        assert figures[name] == pytest.approx(value, abs=1e-12), name
    assert [figures["AP@all"], figures["AP50@all"]] == pytest.approx(
        list(by_pycocotools(dataset, results, 100, np.array(SIGMAS))), abs=1e-12
    )
    assert 0.05 < figures["AP"] < 0.9


def test_other_points_have_a_sigma_that_is_said_and_each_category_its_own() -> None:
    points = Keypoints(("a", "b", "c"))
    assert sigmas_of(PERSON).tolist() == list(SIGMAS)
    assert sigmas_of(points).tolist() == [SIGMA] * 3
    people, found = made(1, 9)
    things, others = made(2, 9, points, category=8)
    alone = [
        evaluate(rows, data, max_objects=50, kinds=("keypoints",))["keypoints"]["AP"]
        for rows, data in ((found, people), (others, things))
    ]
    assert alone[1] == pytest.approx(by_pycocotools(things, others, 20, np.full(3, SIGMA))[0], abs=1e-12)
    records = [
        replace(one, annotations=(*one.annotations, *(replace(a, id=a.id + 1000) for a in other.annotations)))
        for one, other in zip(people, things)
    ]
    both = Dataset.of(
        records, {3: "person", 8: "thing", 9: "box"}, keypoints={**people.keypoints, **things.keypoints}
    )  # fmt: skip
    figures = evaluate([*found, *others], both, max_objects=50, kinds=("bbox", "keypoints"))
    assert figures["keypoints"]["AP"] == pytest.approx(np.mean(alone), abs=1e-12)
    rows = figures["keypoints"]["per_class"]
    assert [rows["person"]["AP"], rows["thing"]["AP"]] == pytest.approx(alone)
    assert rows.keys() == {"person", "thing"}
    assert rows["thing"]["objects"] < figures["bbox"]["per_class"]["thing"]["objects"]  # those with a labelled point


def test_truth_used_as_results_scores_one() -> None:
    dataset, _ = made(5, 30)
    results = [
        {"image_id": r.id, "category_id": 3, "score": 1.0, "bbox": [0, 0, 9, 9],
         "keypoints": [v for point in a.keypoints or () for v in point]}
        for r in dataset for a in r.annotations if not a.crowd and any(v for _, _, v in a.keypoints or ())
    ]  # fmt: skip
    figures = evaluate(results, dataset, max_objects=100, kinds=("keypoints",))["keypoints"]
    assert figures["AP@all"] == figures["AP50@all"] == 1.0


def test_nothing_labelled_gives_none_and_nothing_found_zero() -> None:
    dataset, results = made(4, 6)
    assert evaluate([], dataset, max_objects=20, kinds=("keypoints",))["keypoints"]["AP"] == 0.0
    hidden = Dataset.of(
        [replace(r, annotations=tuple(replace(a, keypoints=None) for a in r.annotations)) for r in dataset],
        dataset.categories, keypoints=dataset.keypoints,
    )  # fmt: skip
    figures = evaluate(results, hidden, max_objects=20, kinds=("keypoints",))["keypoints"]
    assert figures["AP"] is None and figures["per_class"]["person"]["objects"] == 0
    none = replace(hidden, keypoints={})
    assert evaluate(results, none, max_objects=20, kinds=("keypoints",))["keypoints"] == {
        **dict.fromkeys((*TEN, "AP@all", "AP50@all")), "per_class": {}
    }  # fmt: skip


def test_results_with_other_points_are_named() -> None:
    dataset, results = made(4, 6)
    spoilt = [{**results[0], "keypoints": [1.0, 2.0, 1.0]}]
    with pytest.raises(UserError, match="a result of person has 1 keypoints, the labels have 17"):
        evaluate(spoilt, dataset, max_objects=20, kinds=("keypoints",))
