from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import picture
from torchvision.transforms import v2

import tracesight as ts
from tracesight.data.dataset import Dataset
from tracesight.data.image_labels import ImageLabels
from tracesight.data.record import Record
from tracesight.errors import UserError
from tracesight.predict import Failure, dataset_scores, write
from tracesight.predict.classes import picture_scores

NAMES = {2: "ant", 5: "bee", 9: "N/A", 11: "cat"}


def bundle(**more) -> ts.Bundle:
    torch.manual_seed(0)
    model = ts.build("cifar_resnet20", num_classes=4)
    with torch.no_grad():
        model.fc.weight.mul_(4)
    return ts.Bundle.of(model.eval(), NAMES, image_size=32, **{"resize": 36, **more})


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    sizes = [(48, 64), (40, 40), (90, 33)]
    return [picture(tmp_path / "in" / f"{n}.png", size, n) for n, size in enumerate(sizes)]


def theirs(model: torch.nn.Module, path: Path) -> torch.Tensor:
    steps = [v2.Resize(36), v2.CenterCrop(32), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    normal = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        return model(normal(v2.Compose(steps)(Image.open(path).convert("RGB")))[None])[0]


def test_scores_are_those_of_torchvisions_preprocessing(pictures):
    made = bundle()
    for path, item in zip(pictures, picture_scores(made, pictures), strict=True):
        expected = theirs(made.model, path).numpy()
        assert np.abs(item.scores - expected).max() < 0.03 * np.ptp(expected)
        assert (item.height, item.width) == Image.open(path).size[::-1]


def test_a_scene_holds_the_surest_categories(pictures):
    made = bundle(thresholds={"temperature": 2.0})
    scenes = list(made.predict(pictures))
    for path, scene in zip(pictures, scenes, strict=True):
        chances = torch.softmax(theirs(made.model, path) / 2, 0)
        order = [i for i in chances.argsort(descending=True).tolist() if i != 2]
        assert [item.category_id for item in scene.categories] == [sorted(NAMES)[i] for i in order]
        assert [item.category for item in scene.categories] == [NAMES[sorted(NAMES)[i]] for i in order]
        assert [item.score for item in scene.categories] == pytest.approx(chances[order].tolist(), abs=0.01)
        assert (scene.objects, scene.bundle, scene.threshold) == ((), made.digest, 0.0)
    assert len(made.predict(pictures[0], max_objects=2).categories) == 2
    some = made.predict(pictures[0], threshold=scenes[0].categories[1].score - 1e-3).categories
    assert [item.category for item in some] == [item.category for item in scenes[0].categories[:2]]


def test_several_labels_are_those_from_the_threshold_up(pictures):
    made = bundle(multi_label=True, thresholds={"operating": 0.45})
    for path, scene in zip(pictures, made.predict(pictures), strict=True):
        chances = torch.sigmoid(theirs(made.model, path))
        expected = {NAMES[n]: float(c) for n, c in zip(sorted(NAMES), chances) if c >= 0.45 and n != 9}
        assert {item.category: item.score for item in scene.categories} == pytest.approx(expected, abs=0.01)


def test_neighbours_and_batches_have_no_say(pictures):
    made = bundle()
    whole = [item.scores for item in picture_scores(made, pictures)]
    for size in (1, 2):
        parts = [item.scores for item in picture_scores(made, pictures, batch_size=size)]
        assert np.allclose(whole, parts, atol=1e-5)


@pytest.mark.parametrize("views", ["ten-crop", "multi-scale"])
def test_scores_of_views_are_averaged(pictures, views):
    made = bundle()
    (one,) = picture_scores(made, pictures[:1], views=views)
    centre = next(picture_scores(made, pictures[:1])).scores
    assert not np.allclose(one.scores, centre - np.log(np.exp(centre).sum()), atol=1e-3)
    assert np.exp(one.scores).sum() == pytest.approx(1, abs=1e-6)
    # A mirror image is among the views, so that mirroring the picture changes nothing but rounding.
    mirrored = pictures[0].with_name("mirrored.png")
    Image.open(pictures[0]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    (other,) = picture_scores(made, [mirrored], views=views)
    assert np.abs(one.scores - other.scores).max() < 0.05


def test_what_predict_writes(pictures, tmp_path):
    bad = tmp_path / "in" / "bad.png"
    bad.write_text("no picture")
    named = [(path, path.stem) for path in [*pictures, bad]]
    done = write(bundle(), named, tmp_path / "out", max_objects=2)
    assert (done.pictures, done.objects, len(done.failures)) == (4, 6, 1)
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {"scenes", "overlays", "categories.csv"}
    with (tmp_path / "out" / "categories.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    assert ts.Scene.load(tmp_path / "out" / "scenes" / "0.json").categories[0].category == rows[0]["category"]
    assert Image.open(tmp_path / "out" / "overlays" / "0.png").height > 48


def test_scores_of_a_dataset_stand_in_the_bundles_columns(pictures):
    made = bundle()
    records = [Record(n, path, 8, 8, labels=(n + 1,)) for n, path in enumerate(pictures)]
    data = Dataset.of(records, {1: "cat", 2: "ant", 3: "bee"})
    scores, truth = dataset_scores(made, data, ImageLabels(objects=False, several=False))
    assert truth.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert np.allclose(scores, [item.scores for item in picture_scores(made, pictures)], atol=1e-5)
    with pytest.raises(UserError, match=r"0\.png: shows dog, which is not a category of the bundle \(ant, bee"):
        dataset_scores(made, data.with_categories({1: "dog", 2: "ant", 3: "bee"}), ImageLabels(False, False))


def test_what_cannot_be_asked_is_said(pictures):
    with pytest.raises(UserError, match="views 'five-crop': use center, ten-crop, multi-scale"):
        picture_scores(bundle(), pictures, views="five-crop")
    with pytest.raises(UserError, match=r"threshold 2\.0"):
        bundle().predict(pictures[0], threshold=2)
    (failed,) = picture_scores(bundle(), [pictures[0].with_name("gone.png")])
    assert isinstance(failed, Failure) and "no such picture" in failed.reason
