"""Every system of the R-CNN family learns eight pictures by heart, with the proposals that it needs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import run, without_report

import tracesight as ts
from tracesight.data.proposals import Row, write_proposals
from tracesight.errors import UserError
from tracesight.lineage import file_digest
from tracesight.models import resnet
from tracesight.predict import find_pictures
from tracesight.predict.propose import propose
from tracesight.recipes import alternate
from tracesight.recipes.detect import Config
from tracesight.training.initial import build_detector

SIDE = 64
BASE: dict[str, Any] = {
    "max_objects": 10, "max_steps": 30, "batch_size": 4, "optimiser": "adamw", "lr": 3e-3, "weight_decay": 0.0,
    "warmup_steps": 3, "clip_norm": 5.0, "image_size": SIDE, "flip": False, "validate_every": 0, "val_loss_pictures": 0,
    "checkpoint_every": 0, "samples": 0, "precision": "fp32", "device": "cpu", "workers": 0, "threads": 1,
}  # fmt: skip
RPN = {"pre_nms_train": 100, "post_nms_train": 40, "pre_nms_test": 100, "post_nms_test": 40, "batch": 64}
ONE_LEVEL = {"anchor_sizes": [[12, 20, 32]], "anchor_ratios": [1.0], "rpn": RPN, "pool_size": 6, "roi": {"batch": 32}}
DILATED = {key: value for key, value in ONE_LEVEL.items() if key != "pool_size"}
PYRAMID = {
    "fpn_channels": 32, "box_channels": 64, "anchor_sizes": [[12], [20], [32], [64], [128]], "anchor_ratios": [1.0],
    "rpn": RPN, "roi": {"batch": 32},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A network half as deep and a quarter as wide, and no report."""
    with without_report() as patch:
        patch.setitem(resnet.DEPTHS, 18, (1, 1, 1, 1))
        patch.setitem(resnet.ResNet.__init__.__kwdefaults__, "width", 16)
        yield


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    return make_squares(tmp_path_factory.mktemp("squares"))


def make_squares(folder: Path, times: int = 1) -> Path:
    """Eight pictures of 64 pixels (or as many times that), a bright square or a dark disc in each of two corners."""
    rng, annotations, images = np.random.default_rng(0), [], []
    side = SIDE * times
    ys, xs = np.mgrid[:side, :side]
    for number in range(1, 9):
        picture = rng.integers(90, 130, (side, side, 3))
        for place in rng.permutation(4)[:2]:
            category, radius = int(rng.integers(1, 3)), int(rng.integers(8 * times, 13 * times))
            dy, dx = ys - (16 + 32 * (place // 2)) * times, xs - (16 + 32 * (place % 2)) * times
            inside = np.maximum(abs(dy), abs(dx)) <= radius if category == 1 else dy**2 + dx**2 <= radius**2
            picture[inside] = 230 if category == 1 else 20
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            box = [int(columns[0]), int(rows[0]), len(columns), len(rows)]
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category, "area": box[2] * box[3],
                 "iscrowd": 0, "bbox": box}
            )  # fmt: skip
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": side, "width": side})
    categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
    (folder / "labels.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return folder


@pytest.fixture(scope="module")
def given(squares, tmp_path_factory) -> Path:
    return make_given(squares, tmp_path_factory.mktemp("given"))


def make_given(squares: Path, folder: Path, times: int = 1) -> Path:
    """Proposals on a grid, of two sizes."""
    side, step = SIDE * times, 8 * times
    sizes = 2 * step, 3 * step
    corners = np.arange(0, side - 2 * step + 1, step)
    grid = [(x, y, x + s, y + s) for s in sizes for x in corners for y in corners if max(x, y) + s <= side]
    rows = [
        Row(path.name, file_digest(path), (side, side), np.array(grid, np.float32))
        for path in sorted(squares.glob("*.png"))
    ]
    return write_proposals(folder / "p.safetensors", rows, "a grid").path


def data(squares: Path) -> dict[str, Path]:
    return {"train": squares / "labels.json", "val": squares / "labels.json"}


def learnt(squares: Path, out: Path, model: str, args: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return run(Config(**{**BASE, "model": model, "model_args": args, **keys}), data(squares), out)[0]


@pytest.fixture(scope="module")
def fast(squares, given, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("fast") / "run"
    args = {"pool_size": 6, "roi": {"batch": 32}}
    return out, learnt(squares, out, "fast_rcnn_resnet18", args, proposals=str(given), max_steps=4)


def test_c4_learns_by_heart(squares, tmp_path):
    metrics = learnt(squares, tmp_path / "run", "faster_rcnn_resnet18_c4", ONE_LEVEL, max_steps=120)
    assert metrics["bbox"]["AP50@all"] >= 0.9


@pytest.fixture(scope="module")
def rpn(squares, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("rpn") / "run"
    return out, learnt(squares, out, "rpn_resnet18_fpn", PYRAMID, max_steps=40)


def test_an_rpn_alone_finds_all_objects(rpn):
    recall = rpn[1]["proposals"]
    assert recall["recall@1000"] >= 0.9
    assert recall["AR@100"] <= recall["AR@300"] <= recall["AR@1000"]
    bundle = ts.load(rpn[0] / "last")
    assert bundle.categories == {1: "object"}


def test_an_rpn_makes_a_file_of_proposals(rpn, squares, tmp_path):
    made = propose(find_pictures([squares]), tmp_path / "p.safetensors", rpn[0] / "last", most=30)
    assert len(made.pictures) == 8
    assert (np.diff(made.offsets) <= 30).all() and len(made.boxes) > 40
    assert made.method.startswith("RPN of ")


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "args", "keys"),
    [
        ("rcnn_resnet18", {"crop_size": 32, "crop_context": 4, "roi": {"batch": 24}}, {"max_steps": 60}),
        ("faster_rcnn_resnet18_dc5", {**DILATED, "box_channels": 64}, {"max_steps": 120}),
        ("fast_rcnn_resnet18_fpn", PYRAMID, {"max_steps": 60}),
    ],
)
def test_the_others_learn_by_heart(squares, given, tmp_path, model, args, keys):
    wanted = {} if "faster" in model else {"proposals": str(given)}
    metrics = learnt(squares, tmp_path / "run", model, args, **wanted, **keys)
    assert metrics["bbox"]["AP50@all"] >= 0.9


@pytest.mark.long
def test_fast_on_one_map_learns_larger_pictures_by_heart(tmp_path):
    """At 64 pixels half of the proposals of IoU 0.5 lie on the very cells of stride 16 that worse ones lie on."""
    (tmp_path / "squares").mkdir()
    squares = make_squares(tmp_path / "squares", 3)
    proposals = make_given(squares, tmp_path, 3)
    keys = {"image_size": 3 * SIDE, "proposals": str(proposals), "max_steps": 120}
    args = {"pool_size": 6, "roi": {"batch": 32}}
    metrics = learnt(squares, tmp_path / "run", "fast_rcnn_resnet18", args, **keys)
    assert metrics["bbox"]["AP50@all"] >= 0.9


def test_proposals_belong_to_the_run(fast, squares, given, tmp_path):
    bundle = ts.load(fast[0] / "last")
    assert bundle.lineage["proposals"] == file_digest(given)
    assert "proposals" not in bundle.lineage["config"]


def test_prediction_takes_a_file_or_searches(fast, squares, given, tmp_path, monkeypatch):
    from tracesight.data.proposals import read_proposals
    from tracesight.predict import propose as making
    from tracesight.predict import scenes

    bundle, picture = ts.load(fast[0] / "last"), squares / "1.png"
    (scene,) = scenes(bundle, [picture], threshold=0.0, proposals=read_proposals(given))
    assert {item.category for item in scene.objects} <= {"square", "disc"} and scene.objects
    monkeypatch.setattr(making, "available", lambda: False)
    with pytest.raises(UserError, match="needs proposals: give --proposals FILE"):
        scenes(bundle, [picture])
    other = squares.parent / "other.png"
    Image.new("RGB", (70, 70)).save(other)
    (failure,) = scenes(bundle, [other], proposals=read_proposals(given))
    assert "has no proposals for it" in failure.reason


@pytest.mark.parametrize(
    ("model", "keys", "said"),
    [
        ("fast_rcnn_resnet18", {}, "say proposals=FILE"),
        ("faster_rcnn_resnet18_fpn", {"proposals": "p"}, "finds its own"),
        ("fast_rcnn_resnet18", {"proposals": "nowhere"}, "nowhere: no such file"),
        ("faster_rcnn_resnet18_fpn", {"freeze": ("backbones.",)}, "no parameter of faster_rcnn_resnet18_fpn begins so"),
        ("faster_rcnn_resnet18_fpn", {"freeze": ("",)}, "nothing is left to train"),
    ],
)
def test_keys_that_do_not_go_together_are_named(squares, tmp_path, model, keys, said):
    with pytest.raises(UserError, match=said):
        learnt(squares, tmp_path / "run", model, {}, **keys)
    assert not (tmp_path / "run").exists()


def filled(name: str, begun: ts.Bundle) -> dict[str, torch.Tensor]:
    wanted = {"categories": {1: "x"}, "max_objects": 5, "seed": 0}
    return build_detector(name, {"norm": "group"}, begun=begun, **wanted).state_dict()


@pytest.mark.parametrize(
    ("body", "name", "third", "fourth"),
    [
        ("resnet18", "rcnn_resnet18", "roi_heads.box_roi_pool.body", "roi_heads.box_roi_pool.body"),
        ("preact_resnet18", "faster_rcnn_preact_resnet18_c4", "backbone.body", "roi_heads.box_head"),
        ("preact_resnet18", "faster_rcnn_preact_resnet18_dc5", "backbone.body", "backbone.body"),
    ],
)
def test_a_classifier_fills_every_system(body, name, third, fourth):
    torch.manual_seed(1)
    classifier = ts.Bundle.of(ts.build(body, 3, norm="group"), {1: "a", 2: "b", 3: "c"})
    source, state = classifier.model.state_dict(), filled(name, classifier)
    for stage, place in (("conv1", third), ("layer3", third), ("layer4", fourth)):
        names = [key for key in source if key.startswith(stage)]
        assert names and all(state[f"{place}.{key}"].equal(source[key]) for key in names)
    if name.endswith("preact_resnet18_c4"):  # the norm that ends the last stage goes with it
        assert state["roi_heads.box_head.norm.weight"].equal(source["norms.3.weight"])


def test_a_class_agnostic_bundle_has_no_masks_of_each_class():
    args = {"norm": "group", "fpn_channels": 16, "box_channels": 32, "mask_channels": 16}
    one = ts.Bundle.of(ts.build("mask_rcnn_resnet18_fpn", 3, mask_agnostic=True, **args), {1: "a", 2: "b"})
    wanted = {"categories": {1: "a", 2: "b"}, "max_objects": 5, "seed": 0}
    with pytest.raises(UserError, match=r"class-agnostic: .* say model_args\.mask_agnostic=true"):
        build_detector("mask_rcnn_resnet18_fpn", args, begun=one, **wanted)
    other = ts.Bundle.of(ts.build("mask_rcnn_resnet18_fpn", 3, **args), {1: "a", 2: "b"})
    with pytest.raises(UserError, match="has a mask of each class"):
        build_detector("mask_rcnn_resnet18_fpn", {**args, "mask_agnostic": True}, begun=other, **wanted)


def test_tiles_are_learnt_from_and_looked_at(squares, tmp_path):
    """Tiles of half a picture: the bundle remembers them, and finds objects anywhere in the whole."""
    keys = {"tile": 40, "tile_overlap": 0.6, "image_size": 40, "max_steps": 3, "max_objects": 100}
    metrics = learnt(squares, tmp_path / "run", "faster_rcnn_resnet18_fpn", PYRAMID, **keys)
    assert math.isfinite(metrics["bbox"]["AP50@all"])
    bundle = ts.load(tmp_path / "run" / "last")
    assert bundle.preprocessing["tile"] == {"size": 40, "overlap": 0.6}
    scene = bundle.predict(squares / "1.png", threshold=0.0)
    assert (scene.picture.height, scene.picture.width) == (SIDE, SIDE)
    assert max(item.box[2] for item in scene.objects) > 48 and min(item.box[0] for item in scene.objects) < 16


def test_four_steps_give_one_network(squares, tmp_path):
    config = Config(**{**BASE, "model": "faster_rcnn_resnet18_c4", "model_args": ONE_LEVEL, "max_steps": 4,
                       "training": "alternating"})  # fmt: skip
    out, said = tmp_path / "run", []
    metrics = alternate.train(config, data(squares), out, progress=said.append)
    assert "AP50@all" in metrics["bbox"]
    second, third, fourth, whole = (
        ts.load(out / name).model.state_dict() for name in ("step2/last", "step3/last", "step4/last", "last")
    )
    for name, tensor in whole.items():
        if name.startswith("backbone."):
            assert tensor.equal(second[name]) and tensor.equal(third[name]) and tensor.equal(fourth[name])
        else:
            assert tensor.equal((third if name.startswith("rpn.") else fourth)[name])
    assert any(not fourth[name].equal(second[name]) for name in fourth if name.startswith("roi_heads."))
    # Finished: nothing is done again.
    assert alternate.train(config, data(squares), out, resume=True, progress=said.append) == metrics
    with pytest.raises(UserError, match="not made of an RPN and a Fast R-CNN"):
        alternate.halves("mask_rcnn_resnet18_fpn")
