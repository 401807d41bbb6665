"""The demo's pictures: exact masks, hard enough, the same every time."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage
from skimage.filters import threshold_otsu

from tracesight.data.tray_parts import Light, draw_part
from tracesight.data.trays import TOOL, make_trays

PICTURES, SIDE = 40, 144


class Trays:
    """A folder of trays as arrays: pictures (N, H, W, 3), per picture its masks (n, H, W) and category ids."""

    def __init__(self, folder: Path) -> None:
        self.coco: dict[str, Any] = json.loads((folder / "instances.json").read_text())
        files = [folder / "images" / image["file_name"] for image in self.coco["images"]]
        self.pictures = np.stack([np.asarray(Image.open(file)) for file in files])
        grouped = defaultdict(list)
        for annotation in self.coco["annotations"]:
            grouped[annotation["image_id"]].append(annotation)
        self.annotations = [grouped[image["id"]] for image in self.coco["images"]]
        self.masks = [np.stack([rle.decode(a["segmentation"]) for a in group]) for group in self.annotations]


@pytest.fixture(scope="module")
def trays(tmp_path_factory: pytest.TempPathFactory) -> Trays:
    folder = tmp_path_factory.mktemp("trays")
    make_trays(folder, pictures=PICTURES, seed=3, side=SIDE)
    return Trays(folder)


def test_coco_is_complete(trays: Trays) -> None:
    coco = trays.coco
    assert trays.pictures.shape == (PICTURES, SIDE, SIDE, 3)
    assert {c["id"]: c["name"] for c in coco["categories"]} == {1: "bolt", 2: "nut", 3: "washer"}
    assert coco["licenses"][0]["name"] == "CC0-1.0"
    assert {image["license"] for image in coco["images"]} == {coco["licenses"][0]["id"]}
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    assert {a["tool"] for a in coco["annotations"]} == {TOOL}
    shares = np.bincount([a["category_id"] for a in coco["annotations"]])[1:] / len(coco["annotations"])
    assert shares.min() > 0.2
    counts = [len(group) for group in trays.annotations]
    assert min(counts) >= 4
    assert max(counts) <= 14
    assert 8 <= np.mean(counts) <= 12


def test_masks_boxes_and_areas_agree(trays: Trays) -> None:
    for masks, group in zip(trays.masks, trays.annotations):
        assert masks.sum(0).max() == 1, "a pixel belongs to one part only"
        for mask, annotation in zip(masks, group):
            assert annotation["area"] == mask.sum() >= 40
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            assert annotation["bbox"] == box
            assert annotation["iscrowd"] == 0


def test_a_third_of_the_parts_touch_or_overlap(trays: Trays) -> None:
    touching = total = 0
    for masks in trays.masks:
        grown = np.stack([ndimage.binary_dilation(mask, np.ones((3, 3))) for mask in masks]).astype(int)
        touching += int(((grown * (grown.sum(0) > 1)).any((1, 2))).sum())
        total += len(masks)
    assert touching / total >= 1 / 3
    assert touching / total <= 0.75, "some parts lie alone"


def test_neither_brighter_nor_darker_than_the_tray(trays: Trays) -> None:
    brighter = []
    for picture, masks in zip(trays.pictures, trays.masks):
        grey, empty = picture.mean(-1), masks.sum(0) == 0
        for mask in masks:
            around = ndimage.binary_dilation(mask, iterations=8) & empty
            brighter.append(grey[mask > 0].mean() > grey[around].mean())
    assert 0.3 < np.mean(brighter) < 0.7


def test_otsu_does_not_solve_them(trays: Trays) -> None:
    """Even where the truth chooses the polarity of each picture, and specks are thrown away."""
    bright, dark, better = [], [], []
    for picture, masks in zip(trays.pictures, trays.masks):
        grey = np.asarray(Image.fromarray(picture).convert("L"))
        above = grey > threshold_otsu(grey)
        both = [_components(above), _components(~above)]
        matches = [sum(max((_iou(c, mask) for c in found), default=0) > 0.5 for mask in masks) for found in both]
        bright.append(both[0])
        dark.append(both[1])
        better.append(both[int(np.argmax(matches))])
    for found in (bright, dark, better):
        assert _ap50(trays, found) < 0.5
    assert _ap50(trays, [list(masks) for masks in trays.masks]) == pytest.approx(1.0)


def _components(foreground: np.ndarray) -> list[np.ndarray]:
    labels, count = ndimage.label(foreground)
    found = [labels == k for k in range(1, count + 1)]
    return [component for component in found if component.sum() >= 40]


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & (b > 0)).sum() / (a | (b > 0)).sum()


def _ap50(trays: Trays, found: list[list[np.ndarray]]) -> float:
    """Mask AP50 with the categories merged; larger components score higher; no limit on their number."""
    truth, results = COCO(), COCO()
    truth.dataset = {**trays.coco, "categories": [{"id": 1, "name": "part"}]}
    truth.dataset["annotations"] = [{**a, "category_id": 1} for a in trays.coco["annotations"]]
    results.dataset = {**truth.dataset, "annotations": []}
    for image, components in zip(trays.coco["images"], found):
        for component in components:
            results.dataset["annotations"].append(
                {
                    "id": len(results.dataset["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": int(component.sum()),
                    "score": float(component.sum()),
                    "segmentation": rle.encode(np.asfortranarray(component.astype(np.uint8))),
                }
            )
    truth.createIndex()
    results.createIndex()
    evaluation = COCOeval(truth, results, "segm")
    evaluation.params.maxDets = [1, 10, 10_000]
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.evaluate()
    evaluation.accumulate()
    return float(evaluation.eval["precision"][0, :, 0, 0, -1].mean())


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    make_trays(tmp_path / "a", pictures=3, seed=5, progress=lambda done, total: calls.append((done, total)))
    make_trays(tmp_path / "b", pictures=3, seed=5)
    make_trays(tmp_path / "longer", pictures=4, seed=5)
    make_trays(tmp_path / "other", pictures=3, seed=6)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert [str(name) for name in names] == ["images/0000.png", "images/0001.png", "images/0002.png", "instances.json"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()
    for name in names[:-1]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "longer" / name).read_bytes()


def test_other_sides_hold_the_same_parts_in_more_pixels(tmp_path: Path) -> None:
    areas = {}
    for side in (96, 192):
        make_trays(tmp_path / str(side), pictures=8, seed=1, side=side)
        trays = Trays(tmp_path / str(side))
        assert trays.pictures.shape[1:] == (side, side, 3)
        areas[side] = np.median([a["area"] for a in trays.coco["annotations"]])
    assert areas[192] / areas[96] == pytest.approx(4, rel=0.35)


@pytest.mark.parametrize("category_id", [1, 2, 3])
def test_shapes_of_the_parts(category_id: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    for _ in range(20):
        patch = draw_part(rng, category_id, Light(0.5, 0.2, 0.84), 1.0)
        assert patch.colour.shape == (*patch.alpha.shape, 3)
        assert patch.colour.dtype == patch.alpha.dtype == np.float32
        assert 0 <= patch.alpha.min() <= patch.alpha.max() <= 1
        mask = patch.alpha > 0.5
        assert not mask[[0, -1]].any(), "the patch holds the whole part"
        assert not mask[:, [0, -1]].any()
        hole = (ndimage.binary_fill_holes(mask) & ~mask).sum() / ndimage.binary_fill_holes(mask).sum()
        if category_id == 1:
            spread = np.linalg.eigvalsh(np.cov(np.argwhere(mask).T))
            assert spread[1] > 5 * spread[0]
            assert hole == 0
        else:
            low, high = {2: (0.08, 0.21), 3: (0.22, 0.42)}[category_id]
            assert low < hole < high


@pytest.mark.parametrize("wrong", [{"pictures": 0}, {"side": 64}])
def test_impossible_requests(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        make_trays(tmp_path / "out", **{"pictures": 1, "seed": 0, **wrong})
    assert not (tmp_path / "out").exists()
