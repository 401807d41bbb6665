from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import picture

import tracesight as ts
from tracesight.data.dataset import Dataset
from tracesight.data.image_labels import ImageLabels
from tracesight.data.record import Record
from tracesight.evaluation import evaluate_classes
from tracesight.report import html
from tracesight.report.classes import class_shots
from tracesight.report.facts import ReportFacts, split_facts

NAMES = {1: "ant <b>", 2: "bee", 3: "cat"}


def bundle(**more) -> ts.Bundle:
    torch.manual_seed(0)
    return ts.Bundle.of(ts.build("cifar_resnet20", num_classes=3), NAMES, image_size=32, **more)


@pytest.fixture
def val(tmp_path: Path) -> Dataset:
    paths = [picture(tmp_path / f"{n}.png", (40, 30), n) for n in range(4)]
    records = [Record(n, path, 30, 40, labels=(n % 3 + 1,)) for n, path in enumerate(paths)]
    return Dataset.of(records, NAMES, tmp_path)


SCORES = np.log([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6], [0.3, 0.6, 0.1]])


def truth_of(val: Dataset) -> np.ndarray:
    return np.eye(3, dtype=bool)[[record.labels[0] - 1 for record in val]]


def test_samples_are_spread_and_mistakes_are_the_surest_first(val):
    drawn, mistakes = class_shots(bundle(), val, SCORES, truth_of(val), 2, 5)
    assert [shot.caption for shot in drawn] == [
        "0.png: labelled ant <b>, answered ant <b>", "2.png: labelled cat, answered cat"
    ]  # fmt: skip
    assert [(shot.caption, shot.title) for shot in mistakes] == [
        ("1.png: labelled bee, answered ant <b>", "wrong"), ("3.png: labelled ant <b>, answered bee", "wrong")
    ]  # fmt: skip
    assert drawn[0].image.size[0] == 240 and drawn[0].image.size[1] > 320
    assert len(class_shots(bundle(), val, SCORES, truth_of(val), 9, 0)[0]) == 4


def test_several_labels_are_wrong_both_ways(val):
    made = bundle(multi_label=True, thresholds={"operating": 0.5})
    scores = np.array([[5.0, 4.0, -5], [5, -5, -5], [-5, -5, 5], [-5, -5, -5]])
    truth = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0]], bool)
    _, mistakes = class_shots(made, val, scores, truth, 0, 5)
    assert [shot.caption for shot in mistakes] == [
        "3.png: labelled ant <b>, bee, answered nothing", "0.png: labelled ant <b>, answered ant <b>, bee"
    ]  # fmt: skip


@pytest.mark.parametrize("several", [False, True])
def test_the_page_says_how_good_it_is_and_what_was_taken_for_what(val, tmp_path, several):
    labels, truth = ImageLabels(objects=False, several=several), truth_of(val)
    metrics = evaluate_classes(SCORES, truth, NAMES, several=several)
    shots = class_shots(bundle(), val, SCORES, truth, 2, 2)
    facts = ReportFacts(
        "kinds", "classify", splits=(split_facts("val", val, labels),), metrics=metrics, samples=tuple(shots[0]),
        mistakes=tuple(shots[1]),
    )  # fmt: skip
    html.write_report(tmp_path / "report.html", facts)
    page = (tmp_path / "report.html").read_text()
    assert "<b>ant" not in page and "ant &lt;b&gt;" in page
    assert "expected calibration error" in page and "of these without labels" in page
    assert ("What was taken for what" in page) is not several
    assert (">mAP<" in page) is several
    assert page.count("data:image/jpeg") == 4
