"""Test-time augmentation: views that show the same find the same, and what each of them is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import picture, small_bundle, small_model

import tracesight as ts
from tracesight import predict
from tracesight.data.batch import predict_batch
from tracesight.data.pictures import open_picture
from tracesight.data.points import Keypoints
from tracesight.errors import UserError
from tracesight.models.augmented import View, detect_in_views, moved
from tracesight.predict.augment import mirrored_points, views_of


def batch_of(path: Path, size: int, mirrored: bool = False):
    pixels = open_picture(path)
    return predict_batch([np.flip(pixels, 1) if mirrored else pixels], size)


def test_boxes_move_to_another_view_and_back(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", (48, 64))
    first, small, mirror = (View(batch_of(path, s, m), m) for s, m in ((96, False), (48, False), (48, True)))
    box = torch.tensor([[[10.0, 20, 30, 60]]])
    assert moved(box, first, small).tolist() == [[[5, 10, 15, 30]]]
    assert moved(box, first, mirror).tolist() == [[[64 - 15, 10, 64 - 5, 30]]]
    for view in (small, mirror):
        assert torch.equal(moved(moved(box, first, view), view, first), box)


def test_the_same_view_twice_finds_what_one_does(tmp_path: Path) -> None:
    bundle, path = small_bundle(), picture(tmp_path / "a.png")
    view = View(batch_of(path, 64), False)
    with torch.inference_mode():
        once = bundle.model.eval()(view.batch, score_threshold=0.0)
        twice = detect_in_views(bundle.model, [view, view], score_threshold=0.0)  # type: ignore[arg-type]
    assert once.valid.sum() > 3
    for name, one, other in zip(once._fields, once, twice):
        assert one is other is None or torch.allclose(one.double(), other.double(), atol=1e-5), name


def test_a_mirrored_picture_gives_the_mirrored_masks_of_its_views(tmp_path: Path) -> None:
    """Views of a picture and of its mirror are the same two: so what is found must be each other's mirror."""
    bundle, path = small_bundle(), picture(tmp_path / "a.png", (64, 64))
    plain, mirror = View(batch_of(path, 64), False), View(batch_of(path, 64, True), True)
    with torch.inference_mode():
        one = detect_in_views(bundle.model.eval(), [plain, mirror], score_threshold=0.0)  # type: ignore[arg-type]
        other = detect_in_views(
            bundle.model, [mirror._replace(mirrored=False), plain._replace(mirrored=True)], score_threshold=0.0
        )  # type: ignore[arg-type]
    assert torch.equal(one.valid, other.valid) and one.valid.sum() > 3
    assert torch.allclose(one.scores, other.scores, atol=1e-6)
    back = moved(other.boxes, plain, mirror).masked_fill(~other.valid.unsqueeze(-1), 0)
    assert torch.allclose(one.boxes, back, atol=1e-3)
    assert torch.allclose(one.masks, other.masks.flip(-1), atol=1e-4)


def finder() -> ts.Bundle:
    """Finds keypoints: three of nuts, of which a mirror swaps two, and one of bolts."""
    model = small_model("keypoint_rcnn_resnet18_fpn", num_keypoints=3, keypoint_channels=16, mask_channels=256)
    points = {7: Keypoints(("top", "left_end", "right_end")), 3: Keypoints(("head",))}
    return ts.Bundle.of(model.eval(), {7: "nut", 3: "bolt"}, image_size=64, keypoints=points)


def test_a_mirrored_picture_gives_the_mirrored_keypoints_of_its_views(tmp_path: Path) -> None:
    bundle, path = finder(), picture(tmp_path / "a.png", (64, 64))
    places = mirrored_points(bundle, torch.device("cpu"))
    assert places.tolist() == [[0, 1, 2], [0, 1, 2], [0, 2, 1]]  # background, bolt, nut: by ascending id
    plain, mirror = View(batch_of(path, 64), False), View(batch_of(path, 64, True), True)
    turned = [mirror._replace(mirrored=False), plain._replace(mirrored=True)]
    with torch.inference_mode():
        one, other = (
            detect_in_views(bundle.model, views, places, score_threshold=0.0)  # type: ignore[arg-type]
            for views in ([plain, mirror], turned)
        )
        alone = bundle.model(plain.batch, score_threshold=0.0)
    assert torch.equal(one.valid, other.valid) and one.valid.sum() > 3
    assert one.keypoints is not None and other.keypoints is not None
    assert 2 in one.labels[one.valid]
    for label, points, back in zip(one.labels[one.valid], one.keypoints[one.valid], other.keypoints[other.valid]):
        back = back[places[label]]
        assert torch.allclose(points[:, 0], 64 - back[:, 0], atol=0.01)
        assert torch.allclose(points[:, 1:], back[:, 1:], atol=0.01)
    assert not torch.allclose(one.keypoints, alone.keypoints, atol=0.5)  # not those of the first view alone


def test_a_scene_of_several_views_and_its_neighbours(tmp_path: Path) -> None:
    bundle = small_bundle()
    paths = [picture(tmp_path / f"{i}.png", shape, seed=i) for i, shape in enumerate([(48, 64), (50, 64), (64, 48)])]
    alone = list(predict.scenes(bundle, paths, 0, tta="flip,1.5", batch_size=1))
    together = list(predict.scenes(bundle, paths, 0, tta="flip,1.5", batch_size=3))
    assert [scene.digest() for scene in alone] == [scene.digest() for scene in together]
    plain = list(predict.scenes(bundle, paths, 0))
    assert [scene.digest() for scene in plain] != [scene.digest() for scene in alone]
    for scene, path in zip(alone, paths):
        assert scene.objects and scene.picture.path == str(path)
        for item in scene.objects:
            assert 0 <= item.box[0] <= item.box[2] <= scene.picture.width and item.mask is not None


def test_views_are_named() -> None:
    assert views_of("flip") == ((1.0, True),)
    assert views_of(" 0.5 ,2") == ((0.5, False), (2.0, False))
    assert views_of("flip,0.5") == ((1.0, True), (0.5, False), (0.5, True))
    for text in ("", "flop", "flip,0", "nan", "flip,1e9"):
        with pytest.raises(UserError, match=f"tta '{text}': name flip"):
            views_of(text)


def test_soft_suppression_is_the_models_or_asked_for(tmp_path: Path) -> None:
    bundle, path = small_bundle(), picture(tmp_path / "a.png")
    asked = [next(iter(predict.scenes(bundle, [path], 0.05, tta=tta, nms="gaussian"))) for tta in (None, "flip")]
    hard = next(iter(predict.scenes(bundle, [path], 0.05)))
    assert hard.objects != asked[0].objects
    heads = bundle.model.roi_heads
    heads.settings = replace(heads.settings, nms="gaussian")
    for scene, tta in zip(asked, (None, "flip")):
        scores = [item.score for item in scene.objects]
        assert scores == sorted(scores, reverse=True) and min(scores) >= 0.05
        (own,) = predict.scenes(bundle, [path], 0.05, tta=tta)
        assert own.objects == scene.objects
    assert next(iter(predict.scenes(bundle, [path], 0.05, nms="hard"))).objects == hard.objects
    with pytest.raises(UserError, match="nms 'soft': use hard, linear or gaussian"):
        predict.scenes(bundle, [path], nms="soft")
