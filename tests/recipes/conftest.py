"""Pictures few and small enough to be learnt by heart in a minute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import run, small, two_kinds, without_report

from tracesight.data.trays import make_trays
from tracesight.models import resnet
from tracesight.recipes.detect import Config
from tracesight.scene import Mask


@pytest.fixture(scope="session")
def trays(tmp_path_factory) -> Path:
    """Eight pictures to learn from, three to test on."""
    folder = tmp_path_factory.mktemp("trays")
    make_trays(folder / "train", pictures=8, seed=1, side=96)
    make_trays(folder / "val", pictures=3, seed=2, side=96)
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """Eight pictures of 96 pixels with two or three discs and squares each, on noise."""
    folder = tmp_path_factory.mktemp("shapes")
    rng, images, annotations = np.random.default_rng(0), [], []
    ys, xs = np.mgrid[:96, :96]
    for number in range(1, 9):
        picture = rng.integers(60, 110, (96, 96, 3))
        for place in rng.permutation(4)[: rng.integers(2, 4)]:
            category, radius = int(rng.integers(1, 3)), int(rng.integers(12, 20))
            dy, dx = ys - (24 + 48 * (place // 2)), xs - (24 + 48 * (place % 2))
            inside = dy**2 + dx**2 <= radius**2 if category == 1 else np.maximum(abs(dy), abs(dx)) <= radius
            picture[inside] = rng.integers(150, 256, 3)
            mask = Mask.from_array(inside)
            x0, y0, x1, y1 = mask.box
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category, "area": mask.area, "iscrowd": 0,
                 "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": mask.to_coco()}
            )  # fmt: skip
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 96})
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "square"}]
    (folder / "labels.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return folder


@pytest.fixture(scope="session")
def tiny() -> Config:
    """A small Mask R-CNN, six steps of two pictures, everything that a resume must restore switched on."""
    return Config(
        model="mask_rcnn_resnet18_fpn",
        model_args={
            "fpn_channels": 32,
            "mask_channels": 32,
            "box_channels": 128,
            "anchor_sizes": [[8], [16], [32], [64], [96]],
        },
        max_objects=30,
        max_steps=6,
        batch_size=2,
        optimiser="adamw",
        lr=1e-3,
        warmup_steps=2,
        clip_norm=5.0,
        ema=0.9,
        image_size=96,
        colour=0.2,
        transpose=True,
        validate_every=3,
        val_loss_pictures=2,
        checkpoint_every=2,
        samples=1,
        workers=0,
        threads=1,
        device="cpu",
    )


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """A network half as deep, and no report."""
    with without_report() as patch:
        patch.setitem(resnet.DEPTHS, 18, (1, 1, 1, 1))
        yield


@pytest.fixture(scope="module")
def unreported() -> Iterator[None]:
    """No report."""
    with without_report():
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Ten pictures of two kinds, dark and light."""
    return two_kinds(tmp_path_factory.mktemp("kinds"), 5)


@pytest.fixture(scope="module")
def undisturbed(quick, trays, tmp_path_factory) -> Path:
    """The small run that nothing has disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(small(), trays, out)
    return out
