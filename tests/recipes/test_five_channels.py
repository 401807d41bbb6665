"""Five channels of 16 bits all the way: train, resume, report, evaluate, predict; and beginning from RGB."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from small_runs import SMALL, assert_same, killed, run, small

import tracesight as ts
from tracesight.cli import main
from tracesight.errors import UserError
from tracesight.recipes.detect import Config
from tracesight.training.config import validated


@pytest.fixture(scope="module")
def bands(tmp_path_factory) -> Path:
    """Pictures of a dark camera of 12 bits with discs that the last two of five bands show: of two kinds by which."""
    folder, rng = tmp_path_factory.mktemp("bands"), np.random.default_rng(0)
    ys, xs = np.mgrid[:64, :64]
    for split, count in (("train", 4), ("val", 2)):
        images, annotations = [], []
        (folder / split).mkdir()
        for number in range(1, count + 1):
            pixels = rng.normal(600, 60, (64, 64, 5)).clip(0, 4095)
            for category, (y, x) in enumerate(rng.permutation([(16, 16), (16, 48), (48, 16), (48, 48)])[:2], start=1):
                pixels[(ys - y) ** 2 + (xs - x) ** 2 <= 144, 2 + category] += 1500
                row = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
                annotations.append({**row, "bbox": [int(x) - 12, int(y) - 12, 25, 25], "area": 450})
            name = f"{number}.tif"
            tifffile.imwrite(folder / split / name, pixels.astype(np.uint16), photometric="minisblack",
                             planarconfig="contig", compression="zlib")  # fmt: skip
            images.append({"id": number, "file_name": name, "height": 64, "width": 64})
        categories = [{"id": 1, "name": "wet"}, {"id": 2, "name": "dry"}]
        labels = {"images": images, "annotations": annotations, "categories": categories}
        (folder / split / "labels.json").write_text(json.dumps(labels))
    return folder


@pytest.fixture(scope="module")
def five(quick, bands, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("five") / "run"
    run(small(in_channels=5, image_size=64, colour=0.2), bands, out)
    return out


def test_the_bundle_knows_its_channels(five: Path, bands: Path) -> None:
    bundle = ts.load(five / "last")
    assert bundle.in_channels == 5
    assert bundle.model.backbone.body.conv1.weight.shape[1] == 5
    pixels = np.stack([tifffile.imread(path) for path in sorted((bands / "train").glob("*.tif"))]) / 65535
    np.testing.assert_allclose(bundle.preprocessing["mean"], pixels.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(bundle.preprocessing["std"], pixels.std((0, 1, 2)), rtol=1e-5)


def test_stopped_and_resumed_it_is_the_same(five: Path, bands: Path, tmp_path: Path) -> None:
    out = killed(five, tmp_path / "again", 2)
    _, said = run(small(in_channels=5, image_size=64, colour=0.2), bands, out, resume=True)
    assert "resuming at step 2 of 6" in said
    assert_same(five, out)


def test_evaluated_and_shown(five: Path, bands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("evaluate", five / "last", bands, "--json") == 0
    assert "AP" in json.loads(capsys.readouterr().out)["bbox"]
    assert status("predict", five / "last", bands / "val", "--out", tmp_path, "--threshold", 0) == 0
    scene = ts.Scene.load(tmp_path / "scenes" / "1.json")
    assert (scene.picture.width, scene.picture.height) == (64, 64)
    with Image.open(tmp_path / "overlays" / "1.png") as overlay:
        seen = np.asarray(overlay.convert("RGB"))
    assert seen.std() > 40, "stretched: as it is stored it would be nearly black"


def test_other_pictures_are_refused_by_name(five: Path, bands: Path, trays: Path, tmp_path: Path, capsys) -> None:
    picture = trays / "val" / "images" / "0000.png"
    assert status("predict", five / "last", picture, "--out", tmp_path / "a") == 2
    assert "0000.png: 3 channels where 5 are wanted" in capsys.readouterr().err
    assert status("predict", five / "last", picture, bands / "val" / "1.tif", "--out", tmp_path / "b") == 1
    assert status("evaluate", five / "last", trays) == 2
    with pytest.raises(
        UserError, match=r"1\.tif: 5 channels where 3 are wanted; .* train with in_channels=5 \(and 5 more"
    ):
        run(small(), bands, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(UserError, match="the channels of a picture are set by in_channels"):
        validated(Config, {**SMALL, "model_args": {"in_channels": 5}})


def test_beginning_from_rgb(quick, undisturbed: Path, five: Path, bands: Path, tmp_path: Path) -> None:
    """Grey light through the widened convolution gives what it gave before: three channels of it, or five."""
    config = small(in_channels=5, image_size=64, max_steps=1, validate_every=0, lr=1e-12)
    metrics, said = run(config, bands, tmp_path / "wide", init=undisturbed / "last")
    assert any("each of its 5 channels begins as the mean of the three, times 3/5" in line for line in said)
    assert any("mean of the three" in line for line in metrics["notes"])
    before, after = (
        ts.load(path).model.backbone.body.conv1 for path in (undisturbed / "last", tmp_path / "wide" / "last")
    )
    light = torch.rand(1, 1, 40, 40)
    seen = before(light.expand(-1, 3, -1, -1)), after(light.expand(-1, 5, -1, -1))
    torch.testing.assert_close(*seen, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="--init: the bundle takes 5 channels; train with in_channels=5"):
        run(small(max_steps=1), bands, tmp_path / "narrow", init=five / "last")
    on = small(in_channels=5, image_size=64, max_steps=1, validate_every=0)
    run(on, bands, tmp_path / "on", init=five / "last")
    old, new = (ts.load(path).preprocessing for path in (five / "last", tmp_path / "on" / "last"))
    assert old == new, "mean and deviation go with the weights"


def status(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)
