"""Rare, common and frequent categories, and labels that do not speak of every category (LVIS)."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_labels import SIDE, annotation, ellipse, made, result

from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation, Record
from tracesight.evaluation import evaluate, frequency_groups, table, training_pictures
from tracesight.evaluation.coco import coco_truth, scored_positions
from tracesight.evaluation.matching import IGNORED, matchings
from tracesight.scene.mask import Mask

NUT, BOLT, WASHER = 7, 8, 9
NAMES = {NUT: "nut", BOLT: "bolt", WASHER: "washer"}
ONE, TWO, NOWHERE = ellipse(30, 30, 10, 10), ellipse(100, 100, 10, 10), ellipse(30, 120, 10, 10)


def picture(number: int, *objects: tuple[int, Any], **known: Any) -> Record:
    labels = tuple(annotation(100 * number + i, c, mask) for i, (c, mask) in enumerate(objects))
    return Record(number, Path(f"{number}.png"), SIDE, SIDE, labels, **known)


def rows(results: list[dict], *records: Record) -> dict[str, dict[str, Any]]:
    """The figures by class, which must be the same for boxes and masks."""
    metrics = evaluate(results, Dataset.of(records, NAMES), max_objects=100)
    assert metrics["bbox"]["per_class"] == metrics["segm"]["per_class"]
    return metrics["segm"]["per_class"]


def test_pictures_are_counted_once_and_crowds_not_at_all() -> None:
    crowd = replace(annotation(9, BOLT, TWO), crowd=True)
    third = Record(3, Path("3.png"), SIDE, SIDE, (crowd, annotation(8, WASHER, ONE)))
    dataset = Dataset.of([picture(1, (NUT, ONE), (NUT, TWO)), picture(2, (NUT, ONE)), third, picture(4)], NAMES)
    assert training_pictures(dataset) == {NUT: 2, BOLT: 0, WASHER: 1}
    assert training_pictures(dataset.subset([1])) == {NUT: 1, BOLT: 0, WASHER: 0}


def test_the_bounds_of_the_groups_are_those_of_lvis() -> None:
    counts = {6: 10**6, 5: 101, 4: 100, 3: 11, 2: 10, 1: 1, 0: 0}
    assert frequency_groups(counts) == {"rare": [1, 2], "common": [3, 4], "frequent": [5, 6]}
    assert frequency_groups({}) == {"rare": [], "common": [], "frequent": []}


def test_the_groups_are_means_over_their_classes() -> None:
    dataset, results = made(pictures=4, objects=60)
    plain = evaluate(results, dataset, max_objects=30)
    metrics = evaluate(results, dataset, max_objects=30, train_pictures={0: 3, 90: 10, 7: 101, 91: 50, 1234: 5})
    for kind in ("bbox", "segm"):
        by_class = {name: row["AP@all"] for name, row in plain[kind]["per_class"].items()}
        assert metrics[kind]["APr"] == pytest.approx((by_class["bolt"] + by_class["washer"]) / 2, abs=1e-12)
        assert metrics[kind]["APc"] is None  # 91, "never there", has no object in this data
        assert metrics[kind]["APf"] == pytest.approx(by_class["nut"], abs=1e-12)
        assert by_class["nut"] != metrics[kind]["per_class"]["nut"]["AP"]  # `max_objects` is what counts
        pictures = {name: row.pop("train_pictures") for name, row in metrics[kind]["per_class"].items()}
        assert pictures == {"bolt": 3, "nut": 101, "washer": 10, "never there": 50}
        for figure in ("APr", "APc", "APf"):
            del metrics[kind][figure]
    assert metrics == plain  # and nothing else is touched


def test_a_class_without_training_pictures_is_in_no_group_and_named() -> None:
    dataset, results = made(pictures=2, objects=20)
    metrics = evaluate(results, dataset, max_objects=100, train_pictures={0: 0, 7: 5}, kinds=("bbox",))
    by_class = metrics["bbox"]["per_class"]
    assert metrics["bbox"]["APr"] == pytest.approx(by_class["nut"]["AP@all"])
    assert metrics["bbox"]["APc"] is metrics["bbox"]["APf"] is None
    assert by_class["washer"]["train_pictures"] == 0
    said = [warning for warning in metrics["warnings"] if "training pictures" in warning]
    assert len(said) == 1
    assert said[0].endswith("neither rare nor common nor frequent: bolt, washer, never there")
    json.dumps(metrics, allow_nan=False)


def test_the_table_shows_groups_where_there_are_several() -> None:
    dataset, results = made(pictures=2, objects=30)
    several = evaluate(results, dataset, max_objects=120, train_pictures={0: 1, 7: 500, 90: 2, 91: 50})
    text = table(several)
    rare = next(line for line in text.splitlines() if "rare, 2 classes" in line)
    assert rare.split()[-3:] == ["120", *(f"{several[kind]['APr']:.3f}" for kind in ("bbox", "segm"))]
    assert "frequent, 1 class)" in text
    common = next(line for line in text.splitlines() if "common, 0 classes" in line)
    assert common.split()[-2:] == ["–", "–"]
    one_group = evaluate(results, dataset, max_objects=120, train_pictures={0: 1, 7: 2, 90: 3, 91: 50})
    assert one_group["segm"]["APr"] == pytest.approx(one_group["segm"]["AP@all"])
    assert "rare" not in table(one_group)


def test_what_the_labels_do_not_speak_of_is_not_scored() -> None:
    second = picture(1, (WASHER, ONE), (BOLT, ONE))
    results = [
        result(0, WASHER, 0.9, ONE),
        result(0, BOLT, 0.9, ONE),
        result(0, NUT, 0.9, ONE),
        result(1, WASHER, 0.8, ONE),
        result(1, BOLT, 0.8, ONE),
    ]
    # As COCO has it, both are wrong on picture 0 and right, with a lower score, on picture 1: precision 1/2 throughout.
    figures = rows(results, picture(0, (NUT, ONE)), second)
    assert [figures[name]["AP"] for name in ("nut", "bolt", "washer")] == pytest.approx([1, 0.5, 0.5])
    # Bolts are known to be absent there, of washers nobody knows.
    figures = rows(results, picture(0, (NUT, ONE), absent=(BOLT,)), second)
    assert [figures[name]["AP"] for name in ("nut", "bolt", "washer")] == pytest.approx([1, 0.5, 1])
    # Nothing is known to be absent; nuts are labelled and count as before.
    figures = rows([*results, result(0, NUT, 0.95, NOWHERE)], picture(0, (NUT, ONE), absent=()), second)
    assert [figures[name]["AP"] for name in ("nut", "bolt", "washer")] == pytest.approx([0.5, 1, 1])


def test_what_is_not_scored_is_counted() -> None:
    dataset = Dataset.of([picture(0, (NUT, ONE), absent=())], NAMES)
    results = [result(0, NUT, 0.9, ONE), result(0, BOLT, 0.8, ONE), result(0, 1234, 0.8, ONE)]
    assert scored_positions(results, dataset) == [0]
    warnings = evaluate(results, dataset, max_objects=9)["warnings"]
    assert sum(w.startswith("1 results were not scored: the labels do not say") for w in warnings) == 1
    assert sum(w.startswith("1 results of category id 1234") for w in warnings) == 1


def test_where_not_all_is_labelled_a_find_without_an_object_counts_neither_way() -> None:
    doubled = ellipse(31, 30, 10, 10)
    results = [
        result(0, NUT, 0.95, NOWHERE),
        result(0, NUT, 0.9, ONE),
        result(0, NUT, 0.85, doubled),
        result(1, NUT, 0.5, ONE),
    ]
    first, second = (picture(number, (NUT, ONE), (NUT, TWO)) for number in (0, 1))
    # Wrong, right, wrong, right; two of four objects found, the 51 recall points up to 0.5 at precision 1/2.
    figures = rows(results, first, second)["nut"]
    assert figures["AP"] == pytest.approx(51 / 101 / 2)
    assert figures["recall"] == 0.5
    # The two that found nothing drop out; the object that nobody found is missed all the same.
    figures = rows(results, replace(first, not_exhaustive=(NUT,)), second)["nut"]
    assert figures["AP"] == pytest.approx(51 / 101)
    assert (figures["recall"], figures["objects"]) == (0.5, 4)
    # Of another category it says nothing.
    assert rows(results, replace(first, not_exhaustive=(BOLT,)), second)["nut"]["AP"] == pytest.approx(51 / 101 / 2)


def test_a_find_that_sticks_out_of_the_picture_is_ignored_too() -> None:
    dataset = Dataset.of([picture(0, (NUT, ONE), not_exhaustive=(NUT,))], NAMES)
    outside = {"image_id": 0, "category_id": NUT, "score": 0.95, "bbox": [-500.0, 3.0, 510.3, 2000.1]}
    boxed = [outside, {k: v for k, v in result(0, NUT, 0.9, ONE).items() if k != "segmentation"}]
    metrics = evaluate(boxed, dataset, max_objects=100, kinds=("bbox",))
    assert metrics["bbox"]["AP"] == 1.0


def test_a_find_of_no_area_is_ignored_too() -> None:
    nothing = {**result(0, NUT, 0.95, ONE), "bbox": [5, 5, 0, 0]}
    nothing["segmentation"] = Mask.from_array(np.zeros((SIDE, SIDE), bool)).to_coco()
    results = [nothing, result(0, NUT, 0.9, ONE)]
    assert rows(results, picture(0, (NUT, ONE)))["nut"]["AP"] == pytest.approx(0.5)
    assert rows(results, picture(0, (NUT, ONE), not_exhaustive=(NUT,)))["nut"]["AP"] == 1.0


def test_the_readable_matching_ignores_them_as_well() -> None:
    dataset = Dataset.of([picture(0, (BOLT, TWO), (NUT, ONE), not_exhaustive=(NUT, BOLT))], NAMES)
    results = [result(0, NUT, 0.95, NOWHERE), result(0, NUT, 0.9, ONE)]
    for kind in ("bbox", "segm"):
        found = {m.category_id: m for m in matchings(results, dataset, kind=kind)}
        assert found[NUT].matched.tolist() == [IGNORED, 0]
        assert found[NUT].objects == (1,)


def federated(seed: int) -> tuple[Dataset, list[dict]]:
    """Made labels without crowds, pictures of which know little: some categories absent, some not exhaustive."""
    dataset, results = made(seed=seed, pictures=8, objects=30)
    rng = np.random.default_rng(seed)
    records = []
    for record in dataset:
        labels = [a for a in record.annotations if not a.crowd and (a.category_id == 7 or rng.random() < 0.5)]
        if record.id % 3 == 0:
            labels = [a for a in labels if a.category_id != 90]
        labels = tuple(replace(a, id=a.id + 1) if isinstance(a.id, int) else a for a in labels)
        here = {a.category_id for a in labels}
        absent = tuple(c for c in (0, 7, 90) if c not in here and rng.random() < 0.5)
        vague = tuple(c for c in sorted(here) if rng.random() < 0.5)
        records.append(replace(record, annotations=labels, absent=absent, not_exhaustive=vague))
    return Dataset.of(records, dataset.categories), results


def by_lvis(
    folder: Path, dataset: Dataset, results: list[dict], kind: str, frequency: dict[int, str]
) -> dict[str, float]:
    lvis = pytest.importorskip("lvis")
    truth = coco_truth(Dataset.of([replace(r, not_exhaustive=()) for r in dataset], dataset.categories), "segm")[0]
    assert not any(row["iscrowd"] for row in truth["annotations"])
    for image, record in zip(truth["images"], dataset, strict=True):
        image["neg_category_ids"] = list(record.absent or ())
        image["not_exhaustive_category_ids"] = list(record.not_exhaustive)
    for category in truth["categories"]:
        category["frequency"] = frequency[category["id"]]
    (folder / "labels.json").write_text(json.dumps(truth))
    labels = lvis.LVIS(str(folder / "labels.json"))
    evaluation = lvis.LVISEval(labels, lvis.LVISResults(labels, copy.deepcopy(results)), kind)
    evaluation.run()
    return evaluation.get_results()


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_figures_are_those_of_lvis(kind: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis-api is from the days when NumPy had it
    dataset, results = federated(seed)
    pictures, frequency = {0: 4, 7: 300, 90: 10, 91: 12}, {0: "r", 7: "f", 90: "r", 91: "c"}
    metrics = evaluate(results, dataset, max_objects=300, train_pictures=pictures)[kind]
    theirs = by_lvis(tmp_path, dataset, results, kind, frequency)
    ours = {**metrics, "AP": metrics["AP@all"], "AP50": metrics["AP50@all"]}
    compared = 0
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"):
        assert (-1 if ours[name] is None else ours[name]) == pytest.approx(theirs[name], abs=1e-12), name
        compared += theirs[name] > 0
    assert compared >= 7
    # The labels' silence matters: as COCO reads them, the figure is another.
    coco = Dataset.of([replace(r, absent=None, not_exhaustive=()) for r in dataset], dataset.categories)
    assert evaluate(results, coco, max_objects=300)[kind]["AP@all"] < ours["AP"] - 0.01


def test_the_command_takes_the_counts_from_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from small_networks import CATEGORIES, small_bundle
    from small_networks import picture as picture_file

    from tracesight.cli import main
    from tracesight.lineage.record import split_record

    row = {"image_id": 1, "bbox": [4, 4, 40, 30], "area": 1200, "iscrowd": 0}
    row["segmentation"] = [[4, 4, 44, 4, 44, 34, 4, 34]]
    labels = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        "annotations": [{**row, "id": number, "category_id": number} for number in CATEGORIES],
    }
    picture_file(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "labels.json").write_text(json.dumps(labels))
    for name, counts in (("old", None), ("new", {3: 200, 7: 4})):
        lineage = {"seed": 0, "data": {"train": split_record("ab" * 32, 204, 300, counts)}}
        small_bundle(lineage=lineage).save(tmp_path / name)
        out = tmp_path / f"figures of {name}"
        with pytest.raises(SystemExit) as left:
            main(["evaluate", str(tmp_path / name), str(tmp_path / "data"), "--out", str(out), "--device", "cpu"])
        assert not left.value.code
        text = capsys.readouterr().out
        metrics = json.loads((out / "metrics.json").read_text())
        if counts is None:
            assert "APr" not in metrics["bbox"] and "rare" not in text
        else:
            assert metrics["bbox"]["APr"] is not None and metrics["segm"]["APf"] is not None
            assert metrics["bbox"]["per_class"]["nut"]["train_pictures"] == 4
            assert "APr (rare, 1 class)" in text and "APf (frequent, 1 class)" in text


def test_labels_of_coco_are_scored_as_before() -> None:
    record = Record(0, Path("a.png"), 10, 10, (Annotation(1, NUT, (0, 0, 5, 5)),))
    dataset = Dataset.of([record], NAMES)
    assert coco_truth(dataset, "bbox")[0]["annotations"] == [
        {"image_id": 0, "category_id": NUT, "bbox": [0, 0, 5, 5], "iscrowd": 0, "area": 25.0, "id": 1}
    ]
    results = [{"image_id": 0, "category_id": BOLT, "score": 0.5, "bbox": [0, 0, 5, 5]}]
    assert scored_positions(results, dataset) == [0]
