from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tracesight.report.curves import _label, curves_png, draw_curves, smooth

HISTORY = [
    *({"step": s, "lr": 0.1, "loss": 4 / s, "loss_mask": 2 / s, "loss_classifier": 2 / s} for s in range(1, 40)),
    {"step": 20, "val_loss": 1.5, "val_segm_AP@all": 0.3},
    {"step": 39, "val_loss": float("nan"), "val_segm_AP@all": 0.4},
]


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_a_panel_for_each_kind_of_value(tmp_path: Path) -> None:
    four = size(curves_png(HISTORY))
    two = size(curves_png([{"step": row["step"], "loss": 1.0, "lr": 0.1} for row in HISTORY]))
    one = size(curves_png([{"step": 1, "loss": 1.0}]))
    assert four[0] == two[0] == 2 * one[0]
    assert four[1] == 2 * two[1] == 2 * one[1]
    draw_curves(HISTORY, tmp_path / "curves.png")
    assert size((tmp_path / "curves.png").read_bytes()) == four


def test_nothing_recorded_and_zeros_draw_without_a_warning(recwarn: object) -> None:
    curves_png([])
    curves_png([{"step": 1, "loss": 0.0, "lr": 0.0, "val_bbox_AP": 0.0}])
    assert not list(recwarn)  # type: ignore[call-overload]


def test_light_and_dark_differ() -> None:
    light, dark = (np.asarray(Image.open(io.BytesIO(curves_png(HISTORY, dark=dark)))) for dark in (False, True))
    assert light[0, 0, :3].min() > 240
    assert dark[0, 0, :3].max() < 60


def test_smoothing_keeps_length_and_constants() -> None:
    assert np.allclose(smooth(np.full(9, 3.0), 5), 3.0)
    assert np.allclose(smooth(np.array([0.0, 3.0, 0.0, 3.0]), 3), [1.5, 1.0, 2.0, 1.5])
    assert smooth(np.array([7.0]), 25).tolist() == [7.0]


def test_labels_are_words() -> None:
    assert _label("val_segm_AP50@all") == "mask AP50@all"
    assert _label("loss_rpn_box_reg") == "rpn box reg"
    assert _label("val_loss") == "validation"
