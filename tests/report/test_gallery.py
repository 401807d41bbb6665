from __future__ import annotations

from pathlib import Path

import numpy as np
from made_pictures import SIDE, made

from tracesight.data.pictures import open_picture
from tracesight.report.gallery import beside, close_looks, result_objects, samples, truth_objects
from tracesight.report.mistakes import worst


def test_samples_prefer_pictures_with_objects(tmp_path: Path) -> None:
    dataset, results = made(tmp_path)
    shots = samples(dataset, results, 0.5, 5)
    assert [shot.caption for shot in shots] == ["a <1>.png: 5 objects labelled, 6 predicted"]
    assert shots[0].image.width >= 2 * 600
    assert len(samples(dataset.subset([1]), results, 0.5, 5)) == 1


def test_close_looks_are_framed_and_titled(tmp_path: Path) -> None:
    dataset, results = made(tmp_path)
    mistakes = worst(results, dataset, 0.5, 20)
    shots = close_looks(mistakes, dataset, results, 0.5)
    assert [shot.title for shot in shots] == [mistake.kind for mistake in mistakes]
    assert all(max(shot.image.size) <= 1000 for shot in shots)


def test_objects_are_moved_with_the_window(tmp_path: Path) -> None:
    from tracesight.report.gallery import _moved

    dataset, results = made(tmp_path)
    right = truth_objects(dataset[0], dataset)[0]
    moved = _moved(right, (5, 0, 45, 40), (120, 120))
    assert moved is not None and moved.mask is not None
    assert moved.box == (0, 15, 60, 75)
    assert moved.mask.box == (0, 15, 60, 75)
    assert _moved(right, (60, 60, 100, 100), (120, 120)) is None
    shown = result_objects(results[4], dataset, 0.98)
    picture = open_picture(dataset[0].path)
    drawn = np.asarray(beside(picture, [], shown, (0, 0, SIDE, SIDE), 240))
    left, right_half = drawn[:, :240], drawn[:, -240:]
    assert (left != right_half).mean() > 0.02


def test_windows_stay_in_the_picture_even_where_it_is_narrow() -> None:
    picture = np.zeros((20, 400, 3), np.uint8)
    from tracesight.report.gallery import _around

    window = _around((390, 5, 400, 15), 400, 20)
    assert window == (352, 0, 400, 20)
    assert beside(picture, [], [], window, 96, frame=(390, 5, 400, 15)).width >= 192
