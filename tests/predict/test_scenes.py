from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import picture, small_bundle, small_model

import tracesight as ts
from tracesight import predict
from tracesight.data.dataset import Dataset
from tracesight.data.points import Keypoints
from tracesight.data.record import Record
from tracesight.errors import PartialFailure, UserError
from tracesight.scene import Scene


def test_boxes_and_masks_are_scaled_back_and_objects_filtered() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 40], [0, 0, 100, 50], [1, 1, 5, 5], [2, 2, 4, 4], [0, 0, 1, 1]])
    masks = torch.zeros(5, 28, 28)
    masks[0, :, :14] = 1
    objects = predict.detections_to_objects(
        boxes,
        torch.tensor([0.9, 0.8, 0.7, 0.5, 0.99]),
        torch.tensor([1, 2, 3, 1, 1]),
        torch.tensor([True, True, True, True, False]),
        masks,
        categories={40: "c", 10: "a", 20: "N/A"},
        network_size=(50, 100),
        picture_size=(100, 300),
        threshold=0.7,
    )
    assert [(item.category, item.category_id) for item in objects] == [("a", 10)], "0.7 of float32 lies below 0.7"
    (item,) = objects
    assert item.box == (30, 20, 90, 80)
    assert item.mask is not None
    assert item.mask.size == (100, 300)
    left, top, right, bottom = item.mask.box
    assert (abs(left - 30) <= 2, abs(top - 20) <= 2, abs(right - 60) <= 2, abs(bottom - 80) <= 2) == (True,) * 4


def test_keypoints_are_scaled_back_and_named_where_their_category_has_points() -> None:
    found = torch.tensor([[[10.0, 20, 0.9], [12, 49.5, 0.5], [0, 0, 0.1]], [[50, 20, 1], [1, 1, 1], [2, 2, 1]]])
    objects = predict.detections_to_objects(
        torch.tensor([[10.0, 10, 30, 50], [0, 0, 90, 50]]),
        torch.tensor([0.9, 0.8]),
        torch.tensor([1, 2]),
        torch.tensor([True, True]),
        None,
        found,
        categories={4: "dog", 9: "box"},
        points={4: Keypoints(("nose", "tail"), ((0, 1),))},
        network_size=(50, 100),
        picture_size=(100, 300),
        threshold=0.5,
    )
    dog, box = objects
    assert [(p.name, p.x, p.y) for p in dog.keypoints] == [("nose", 30, 40), ("tail", 36, 99)]
    assert dog.keypoints[0].score == pytest.approx(0.9)
    assert (dog.skeleton, box.keypoints, box.skeleton) == ((("nose", "tail"),), (), ())


def test_a_threshold_keeps_scores_equal_to_it(tmp_path: Path) -> None:
    bundle, path = small_bundle(), picture(tmp_path / "a.png")
    scores = [item.score for item in bundle.predict(path, threshold=0).objects]
    assert len(scores) > 3
    kept = [item.score for item in bundle.predict(path, threshold=scores[2]).objects]
    assert kept == [score for score in scores if score >= scores[2]]


def test_neighbours_and_batch_size_have_no_say(tmp_path: Path) -> None:
    bundle = small_bundle()
    shapes = [(48, 64), (64, 48), (60, 64), (48, 64), (120, 90), (50, 200)]
    paths = [picture(tmp_path / f"{i}.png", shape, seed=i) for i, shape in enumerate(shapes)]
    alone = list(predict.scenes(bundle, paths, threshold=0, batch_size=1))
    together = list(predict.scenes(bundle, paths, threshold=0, batch_size=4))
    for one, other, path, shape in zip(alone, together, paths, shapes, strict=True):
        assert isinstance(one, Scene)
        assert isinstance(other, Scene)
        assert one.picture.path == other.picture.path == str(path)
        assert one.picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (one.picture.height, one.picture.width) == shape
        assert one.bundle == bundle.digest
        assert len(one.objects) == len(other.objects) > 0
        for a, b in zip(one.objects, other.objects):
            np.testing.assert_allclose(a.box, b.box, atol=1e-2)
            assert a.score == pytest.approx(b.score, abs=1e-4)


def test_orientation_is_applied(tmp_path: Path) -> None:
    upright = Image.open(picture(tmp_path / "a.png", (48, 64)))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    one, other = small_bundle().predict([tmp_path / "a.png", tmp_path / "turned.png"], threshold=0)
    assert (other.picture.height, other.picture.width) == (48, 64)
    assert one.objects == other.objects


def test_modes_of_modules_are_left_as_they_were(tmp_path: Path) -> None:
    model = small_model(norm="batch").train()
    model.backbone.eval()  # type: ignore[union-attr, operator]
    before = [module.training for module in model.modules()]
    statistics = model.state_dict()["backbone.body.bn1.running_mean"].clone()
    ts.Bundle.of(model, {1: "a", 2: "b"}, image_size=64).predict(picture(tmp_path / "a.png"), threshold=0)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(statistics, model.state_dict()["backbone.body.bn1.running_mean"])


def test_the_rest_goes_on_and_then_it_is_said(tmp_path: Path) -> None:
    bundle = small_bundle()
    good, bad = picture(tmp_path / "a.png"), tmp_path / "b.png"
    bad.write_bytes(good.read_bytes()[:200])
    items = list(predict.scenes(bundle, [bad, good, tmp_path / "gone.png"], threshold=0, batch_size=2))
    assert [type(item).__name__ for item in items] == ["Failure", "Scene", "Failure"]
    assert "b.png" in items[0].reason  # type: ignore[union-attr]
    stream = bundle.predict([bad, good], threshold=0)
    assert isinstance(next(stream), Scene)
    with pytest.raises(PartialFailure, match=r"1 of 2 .*b\.png"):
        next(stream)
    with pytest.raises(UserError, match=r"b\.png"):
        bundle.predict(bad)


def test_arguments_out_of_range_are_refused_at_once(tmp_path: Path) -> None:
    bundle = small_bundle()
    for more in ({"threshold": 1.5}, {"max_objects": 0}, {"precision": "fp8"}, {"batch_size": 0}, {"device": "tpu9"}):
        with pytest.raises(UserError, match=next(iter(more))):
            predict.scenes(bundle, [tmp_path], **more)  # type: ignore[arg-type]


def test_write_writes_what_it_says(tmp_path: Path) -> None:
    bundle = small_bundle()
    for i, name in enumerate(["x.png", "x.jpg", "sub/y.png"]):
        picture(tmp_path / "in" / name, seed=i)
    (tmp_path / "in" / "sub" / "a.png").write_bytes(b"no picture")
    pictures = predict.find_pictures([tmp_path / "in"])
    seen = []
    done = predict.write(bundle, pictures, tmp_path / "out", threshold=0, max_objects=4, progress=seen.append)
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files == [
        "objects.csv",
        "overlays/sub/y.png",
        "overlays/x.jpg.png",
        "overlays/x.png.png",
        "pictures.coco.json",
        "results.coco.json",
        "scenes/sub/y.json",
        "scenes/x.jpg.json",
        "scenes/x.png.json",
    ]
    assert (done.pictures, done.objects, len(seen)) == (4, 12, 4)
    assert [failure.path.name for failure in done.failures] == ["a.png"]
    results = json.loads((tmp_path / "out" / "results.coco.json").read_text())
    listing = json.loads((tmp_path / "out" / "pictures.coco.json").read_text())
    assert {image["id"]: image["name"] for image in listing["images"]} == {2: "sub/y", 3: "x.jpg", 4: "x.png"}
    scene = Scene.load(tmp_path / "out" / "scenes" / "x.jpg.json")
    assert [row for row in results if row["image_id"] == 3] == scene.to_coco(3)
    assert len((tmp_path / "out" / "objects.csv").read_text().splitlines()) == 13
    with Image.open(tmp_path / "out" / "overlays" / "x.jpg.png") as overlay:
        overlay.verify()


def test_results_speak_of_the_datasets_pictures_and_categories(tmp_path: Path) -> None:
    bundle = small_bundle()  # 3 bolt, 7 nut
    records = [Record(number, picture(tmp_path / f"{number}.png", seed=number), 64, 48) for number in (50, 0)]
    same = Dataset.of(records, {3: "bolt", 7: "nut"})
    results = predict.dataset_results(bundle, same, threshold=0)
    assert [row["image_id"] for row in results] == [50] * 12 + [0] * 12
    renamed = predict.dataset_results(bundle, Dataset.of(records, {1: "nut", 2: "bolt"}), threshold=0)
    assert [row["category_id"] for row in renamed] == [{3: 2, 7: 1}[row["category_id"]] for row in results]
    fewer = predict.dataset_results(bundle, Dataset.of(records, {9: "nut"}), threshold=0)
    assert len(fewer) == sum(row["category_id"] == 7 for row in results)
    with pytest.raises(UserError, match="no category"):
        predict.dataset_results(bundle, Dataset.of(records, {9: "cat"}), threshold=0)


_MEMORY = r"""
import re, sys, torch, tracesight as ts
torch.manual_seed(0)
bundle = ts.Bundle.of(ts.build("mask_rcnn_resnet50_fpn", num_classes=3), {1: "a", 2: "b"}, image_size=800)
scene = bundle.predict(sys.argv[1], threshold=0)
# Not getrusage, whose peak takes in the process that started this one.
peak = int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
print(len(scene.objects), peak / 1e6)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads its peak memory from /proc")
def test_a_hundred_masks_on_a_large_picture_stay_under_the_limit(tmp_path: Path) -> None:
    path = picture(tmp_path / "large.jpg", (3000, 4000))
    done = subprocess.run([sys.executable, "-c", _MEMORY, path], capture_output=True, text=True, check=True)
    objects, gigabytes = done.stdout.split()
    assert int(objects) == 100
    assert float(gigabytes) < 2.5
