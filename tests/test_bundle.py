from __future__ import annotations

import json
import pickle
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import CATEGORIES, picture, small_bundle, small_model

import tracesight as ts
from tracesight.errors import UserError


def test_version_is_that_of_the_project() -> None:
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == ts.__version__


def test_saved_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    facts = {"thresholds": {"operating": 0.3, "f1": 0.5}, "metrics": {"bbox": {"AP": None}}, "lineage": {"seed": 3}}
    bundle = small_bundle(max_size=100, max_objects=9, **facts)
    bundle.save(tmp_path / "b")
    read = ts.load(tmp_path / "b")
    assert read.categories == {3: "bolt", 7: "nut"}
    assert list(read.categories) == [3, 7]
    assert (read.threshold, read.max_objects, read.task) == (0.3, 9, "segment")
    assert (read.metrics, read.lineage) == (facts["metrics"], facts["lineage"])
    assert read.preprocessing == bundle.preprocessing
    assert read.preprocessing["mean"] == [0.485, 0.456, 0.406]
    state = bundle.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in read.model.state_dict().items())
    assert not read.model.training
    assert read.digest == bundle.digest == json.loads((tmp_path / "b" / "bundle.json").read_text())["digest"]
    read._cache.clear()
    assert read.digest == bundle.digest, "computed again from what was read"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "bundle.json", "config.yaml", "model.safetensors"]
    scene = bundle.predict(picture(tmp_path / "a.png"), threshold=0)
    again = read.predict(tmp_path / "a.png", threshold=0)
    assert scene.objects
    assert scene.digest() == again.digest()


def test_batch_norm_and_group_norm_come_back(tmp_path: Path) -> None:
    for norm in ("batch", "group"):
        model = small_model(norm=norm)
        ts.Bundle.of(model, CATEGORIES).save(tmp_path / norm)
        state = ts.load(tmp_path / norm).model.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_digest_changes_with_weights_and_facts() -> None:
    bundle = small_bundle()
    before = bundle.digest
    assert bundle.digest == before
    with torch.no_grad():
        next(bundle.model.parameters()).mul_(2)
    assert bundle.digest != before
    assert small_bundle(thresholds={"operating": 0.4}).digest != before
    assert small_bundle().digest == before


def test_saving_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    small_bundle().save(tmp_path / "b")
    small_bundle(thresholds={"operating": 0.9}).save(tmp_path / "b")
    assert ts.load(tmp_path / "b").threshold == 0.9
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is no bundle"):
        small_bundle().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_killed_between_the_two_renames_the_old_bundle_is_found(tmp_path: Path) -> None:
    digest = ts.load(small_bundle().save(tmp_path / "b")).digest
    (tmp_path / "b").rename(tmp_path / ".b.replaced")
    assert ts.load(tmp_path / "b").digest == digest


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "bundle.json"])
def test_tampering_with_any_file_is_found(tmp_path: Path, name: str) -> None:
    path = small_bundle().save(tmp_path / "b") / name
    content = path.read_bytes()
    changes = {"bundle.json": (b'"nut"', b'"bun"'), "config.yaml": (b"image_size: 64", b"image_size: 65")}
    old, new = changes.get(name, (content[-4:], bytes(255 - byte for byte in content[-4:])))
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match="changed since the bundle was saved") as caught:
        ts.load(tmp_path / "b")
    assert name in str(caught.value)


class _Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("the pickle was opened",))


def test_pickles_are_refused(tmp_path: Path) -> None:
    bundle = small_bundle()
    file = tmp_path / "model.pth"
    torch.save({"model": _Bomb()}, file)
    with pytest.raises(UserError, match=r"refused.*weights import"):
        ts.load(file)
    folder = bundle.save(tmp_path / "a")
    (folder / "model.pt").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"model\.pt: a pickle"):
        ts.load(folder)
    folder = bundle.save(tmp_path / "zipped")
    (folder / "model.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"model\.safetensors: a pickle"):
        ts.load(folder)
    folder = bundle.save(tmp_path / "bare")
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(UserError, match=r"model\.safetensors: a pickle"):
        ts.load(folder)


def test_what_is_no_bundle_is_refused_in_one_line(tmp_path: Path) -> None:
    small_bundle().save(tmp_path / "run" / "best")
    (tmp_path / "empty").mkdir()
    card = small_bundle().save(tmp_path / "card") / "bundle.json"
    card.write_text("{")
    newer = small_bundle().save(tmp_path / "newer") / "bundle.json"
    newer.write_text(newer.read_text().replace('"version": 1', '"version": 2'))
    for name, message in {
        "nowhere": "no such folder",
        "empty": "bundle.json is missing",
        "run": "did you mean .*best",
        "card": "cannot be read",
        "newer": "version 2",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            ts.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_bundle_needs_sound_parts() -> None:
    model = small_model()
    for categories, more, message in [
        ({1: "a"}, {}, "1 categories for a network that has 2"),
        ({1: "a", "2": "b"}, {}, "category '2'"),
        (CATEGORIES, {"thresholds": {"operating": 50}}, "threshold 50"),
        (CATEGORIES, {"image_size": 64, "max_size": 32}, "max_size=32"),
        (CATEGORIES, {"max_objects": 0}, "max_objects=0"),
    ]:
        with pytest.raises(UserError, match=message):
            ts.Bundle.of(model, categories, **more)
    with pytest.raises(UserError, match=r"tracesight\.build"):
        ts.Bundle.of(torch.nn.Linear(1, 1), {1: "a"})


@pytest.mark.parametrize(("name", "size", "resize"), [("resnet18", 224, 256), ("cifar_resnet20", 32, 32)])
def test_a_classifier_is_kept_with_what_it_sees(tmp_path: Path, name: str, size: int, resize: int) -> None:
    model = ts.build(name, num_classes=4)
    facts = {"thresholds": {"operating": 0.4, "temperature": 1.5}, "multi_label": True}
    ts.Bundle.of(model, dict(enumerate("abcd")), image_size=size, **facts).save(tmp_path / "b")
    bundle = ts.load(tmp_path / "b")
    assert (bundle.task, bundle.multi_label, bundle.threshold, bundle.max_objects) == ("classify", True, 0.4, 5)
    assert bundle.thresholds["temperature"] == 1.5
    assert (bundle.preprocessing["image_size"], bundle.preprocessing["resize"]) == (size, resize)
    plain = ts.Bundle.of(model, dict(enumerate("abcd")), image_size=size, resize=size + 8)
    assert (plain.thresholds, plain.preprocessing["resize"]) == ({"operating": 0.0, "temperature": 1.0}, size + 8)
    with pytest.raises(UserError, match="smaller than image_size"):
        ts.Bundle.of(model, dict(enumerate("abcd")), image_size=size, resize=size - 1)


def test_predict_takes_one_picture_or_many(tmp_path: Path) -> None:
    bundle = small_bundle()
    paths = [picture(tmp_path / "in" / f"{name}.png", seed=seed) for seed, name in enumerate("ab")]
    one = bundle.predict(str(paths[0]), threshold=0, max_objects=3)
    assert isinstance(one, ts.Scene)
    assert len(one.objects) == 3
    for many in (tmp_path / "in", str(tmp_path / "in" / "*.png"), paths, (path for path in paths)):
        scenes = list(bundle.predict(many, threshold=0, max_objects=3))
        assert [Path(scene.picture.path or "").name for scene in scenes] == ["a.png", "b.png"]
        assert scenes[0].digest() == one.digest()
    assert one.objects[0].mask is not None
    assert one.objects[0].mask.to_array().shape == (48, 64)
    assert one.objects[0].mask.to_array().dtype == np.bool_


def test_as_many_means_and_deviations_as_channels(tmp_path: Path) -> None:
    pixels = {"mean": [0.1, 0.2, 0.3, 0.4, 0.5], "std": [0.05, 0.06, 0.07, 0.08, 0.09]}
    bundle = ts.Bundle.of(small_model(in_channels=5, pixels=pixels), CATEGORIES, image_size=64)
    assert {key: bundle.preprocessing[key] for key in ("mean", "std")} == pixels
    bundle.save(tmp_path / "b")
    read = ts.load(tmp_path / "b")
    assert (read.in_channels, read.preprocessing) == (5, bundle.preprocessing)
    assert read.model.pixel_mean.shape == (1, 5, 1, 1)
    assert torch.equal(read.model.pixel_mean, bundle.model.pixel_mean)
    unsaid = ts.Bundle.of(ts.build("resnet18", 2, in_channels=2), CATEGORIES)
    assert (unsaid.preprocessing["mean"], unsaid.preprocessing["std"]) == ([0.5, 0.5], [0.25, 0.25])
    bundle.preprocessing["mean"] = [0.1, 0.2]
    bundle.save(tmp_path / "short")
    with pytest.raises(UserError, match="mean of 2 channels for a network that takes 5"):
        ts.load(tmp_path / "short")
    for wrong in ({"mean": [0.5], "std": [0.2] * 5}, {"mean": [0.5] * 5}, {"mean": [0.5] * 5, "std": [0.0] * 5}):
        with pytest.raises(UserError, match="pixels: give mean, and std above 0, of each of the 5 channels"):
            small_model(in_channels=5, pixels=wrong)
