"""Polygons that reach beyond everything are filled in no time, to the pixels that they cover of the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tracesight.data.checks.everything import check
from tracesight.data.checks.labels import checked
from tracesight.data.clip import within_reach
from tracesight.data.dataset import Dataset
from tracesight.data.leaves import labels_digest
from tracesight.data.record import Annotation, Record

H, W = 20, 30


def filled(*parts: list[float]) -> np.ndarray:
    mask = Annotation(1, 1, (0, 0, 1, 1), list(parts)).mask(H, W)
    assert mask is not None
    return mask.to_array()


@pytest.mark.parametrize("far", [1e4, 1e9, 1e23, 1.7e308])
def test_what_is_far_away(far: float) -> None:
    left_half = np.arange(W)[None] < 15
    assert (filled([-far, -far, 15, -far, 15, far, -far, far]) == left_half).all()
    assert filled([-far, -far, far, -far, far, far, -far, far]).all()
    assert not filled([far, far, far, far / 2, far / 2, far]).any()
    assert not filled([-far, 2, -far, 9, -far / 2, 9]).any()
    slope = filled([0, 0, far, far, 0, far])  # what lies below the diagonal
    assert (slope == (np.arange(W)[None] <= np.arange(H)[:, None])).mean() > 0.96


def test_checks_and_digests_of_what_no_number_can_be_larger_than(tmp_path: Path) -> None:
    Image.new("RGB", (W, H)).save(tmp_path / "a.png")
    part = [2.0, 2.0, 1.7e308, 3.0, -1.7e308, 9.0, 4.0, 1e300]
    objects = (Annotation(1, 1, (2, 2, 9, 9), [part]), Annotation(2, 1, (-1.7e308, 2, 1.7e308, 9)))
    dataset = Dataset.of([Record(1, tmp_path / "a.png", W, H, objects)], {1: "cell"})
    _, found = checked(dataset[0], dataset.categories, tmp_path)
    assert [(f.kind.code, f.annotation) for f in found] == [("box-outside", 2)]
    assert check({"all": dataset}, workers=0).count("error") == 0
    assert len(labels_digest(dataset[0])) == 64
    far, farther = (replace(dataset[0], annotations=(Annotation(1, 1, (0, 0, 1, v)),)) for v in (1e307, 1.1e307))
    assert labels_digest(far) != labels_digest(farther)


def test_a_cut_polygon_covers_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        part = random.uniform(-60, 90, 2 * random.integers(3, 7)).tolist()
        whole = filled(part)
        monkeypatch.setattr("tracesight.data.clip._FAR", 1.2)  # 60 pixels
        assert (filled(part) != whole).mean() < 0.02
        cut = within_reach(part, H, W)
        assert not cut or (min(cut) >= -60 and max(cut) <= 60)
        monkeypatch.setattr("tracesight.data.clip._FAR", 16.0)
    assert within_reach([1, 2, 3], H, W) == [1.0, 2.0, 3.0]
