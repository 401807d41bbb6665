"""Probes of an encoder and of a classifier beside each other, on pictures that brightness tells apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_runs import two_kinds, without_report

import tracesight as ts
from tracesight.bundle import Bundle
from tracesight.cli import _status as main_status
from tracesight.errors import UserError
from tracesight.models.build import build
from tracesight.recipes.probe import probe


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for split, each in (("train", 8), ("val", 4)):
        two_kinds(folder / split, each, (16, 16))
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An encoder, and a classifier with the same body."""
    folder = tmp_path_factory.mktemp("bundles")
    torch.manual_seed(0)
    encoder, classifier = build("cifar_resnet20", 0), build("cifar_resnet20", 3)
    classifier.load_state_dict(encoder.state_dict(), strict=False)
    Bundle.of(encoder, {}, image_size=16).save(folder / "one" / "best")
    Bundle.of(classifier, {1: "a", 2: "b", 3: "c"}, image_size=16).save(folder / "two" / "best")
    return [folder / "one" / "best", folder / "two" / "best"]


def test_bundles_are_compared(pictures, bundles, tmp_path):
    with without_report():
        metrics = probe(
            bundles, pictures, tmp_path / "out", kinds=("knn", "ridge", "linear"), progress=lambda line: None,
            keys=("max_steps=12", "batch_size=8", "lr=0.5", "workers=0", "threads=1", "device=cpu", "precision=fp32"),
        )  # fmt: skip
    assert list(metrics["bundles"]) == ["one-best", "two-best"]
    for row in metrics["bundles"].values():
        assert {"knn@0.07", "knn@0.1", "ridge", "linear"} <= row.keys()
        assert row["knn@0.07"] == row["ridge"] == 1.0 and row["linear"] >= 0.75
    page = (tmp_path / "out" / "report.html").read_text()
    assert "one-best" in page and "two-best" in page and "ridge regression" in page
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["data"] == {
        "train": 16,
        "val": 8,
        "categories": 2,
    }
    # Nothing but the last layer has moved.
    probed, before = ts.load(tmp_path / "out" / "linear" / "one-best" / "last").model, ts.load(bundles[0]).model
    for name, tensor in before.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(probed.state_dict()[name], tensor), name


def test_bad_input(pictures, bundles, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main_status(["probe", str(bundles[0]), *out]) == 2
    assert main_status(["probe", str(bundles[0]), str(pictures), "--kind", "svm", *out]) == 2
    assert "--kind svm: use knn, ridge, linear" in capsys.readouterr().err
    assert main_status(["probe", str(bundles[0]), str(bundles[0]), str(pictures), *out]) == 2
    assert "named twice" in capsys.readouterr().err
    detector = Bundle.of(build("faster_rcnn_resnet18_fpn", 2), {1: "a"})
    detector.save(tmp_path / "detector")
    with pytest.raises(UserError, match="finds objects"):
        probe([tmp_path / "detector"], pictures, tmp_path / "out", progress=lambda line: None)
