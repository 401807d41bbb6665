"""Pictures of other than three channels on their way into a batch, and how their values are spread."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from made_sets import make_set

from tracesight.data.batch import collate, predict_batch
from tracesight.data.colour import jitter
from tracesight.data.formats import read_dataset
from tracesight.data.loader import training_batches
from tracesight.data.random import generator
from tracesight.data.sample import load_sample
from tracesight.data.statistics import channel_spread
from tracesight.data.transforms import eval_transform, large_scale_jitter, resize, train_transform
from tracesight.errors import UserError

SIZES = [(40, 52), (61, 33), (48, 48)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[Path, Path]:
    """The same pictures twice: in RGB, and with red, green, blue, red, green as five channels."""
    rgb, five = tmp_path_factory.mktemp("rgb"), tmp_path_factory.mktemp("five")
    for record in make_set(rgb, SIZES):
        pixels = np.asarray(load_sample(record, {1: 1}).image)
        (five / "images").mkdir(exist_ok=True)
        stored = np.concatenate([pixels, pixels[..., :2]], axis=2)
        tifffile.imwrite(five / "images" / f"{record.path.stem}.tif", stored, photometric="minisblack",
                         planarconfig="contig")  # fmt: skip
    text = (rgb / "instances.json").read_text().replace(".png", ".tif")
    (five / "instances.json").write_text(text)
    return rgb, five


@pytest.mark.parametrize("transform", ["train", "large", "eval"])
def test_every_channel_goes_the_same_way(sets: tuple[Path, Path], transform: str) -> None:
    """What becomes of five channels is what becomes of the three that they repeat."""
    colour, many = (read_dataset(folder) for folder in sets)
    for number in range(len(colour)):
        samples = []
        for dataset, channels in ((colour, 3), (many, 5)):
            rng = generator(0, number, "augment")
            sample = load_sample(dataset[number], dataset.labels, channels=channels)
            if transform == "train":
                sample = train_transform(sample, rng, image_size=64, scales=(0.5, 2), crop_size=48, vertical_flip=True,
                                         transpose=True)  # fmt: skip
            elif transform == "large":
                sample = large_scale_jitter(sample, rng, image_size=64)
            else:
                sample = eval_transform(sample, image_size=64)
            samples.append(sample)
        three, five = samples
        np.testing.assert_array_equal(five.image, np.concatenate([three.image, three.image[..., :2]], axis=2))
        np.testing.assert_array_equal(five.boxes, three.boxes)
    batch, _ = collate([five, replace(five, image=five.image[:20])], [(0, 0), (0, 1)], with_masks=False)
    assert batch.images.shape[1] == 5
    assert (batch.images[1, :, 20:] == 0).all()


def test_floats_and_bytes_make_the_same_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 2), dtype=np.uint8)
    one, other = (predict_batch([image], 64).images for image in (pixels, pixels / np.float32(255)))
    assert one.shape == (1, 2, 64, 96)
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(resize(pixels, (30, 41)), pixels / 255, atol=1e-6)


def test_the_loader_asks_for_the_channels(sets: tuple[Path, Path]) -> None:
    dataset = read_dataset(sets[1])
    options = {"batch_size": 2, "seed": 0, "steps": 2, "transform": eval64, "with_masks": False}
    plain = list(training_batches(dataset, channels=5, workers=0, **options))
    assert [loaded.batch.images.shape[1] for loaded in plain] == [5, 5]
    for one, other in zip(plain, training_batches(dataset, channels=5, workers=1, **options)):
        assert (one.batch.images == other.batch.images).all()
    with pytest.raises(UserError, match=r"\.tif: 5 channels where 3 are wanted"):
        list(training_batches(dataset, workers=0, **options))


def eval64(sample, rng):
    return eval_transform(sample, rng, image_size=64)


def test_brightness_and_contrast_of_other_channels() -> None:
    """By hand: contrast 1.5 about the mean of each channel, brightness 0.5, the same for all of them."""
    image = np.random.default_rng(0).uniform(0.2, 0.8, (8, 9, 4)).astype(np.float32)
    changed = jitter(image, [0.0, 1.0, 0.3, 0.7], 0.5)
    assert changed.dtype == np.float32
    dimmed = image * 0.5
    expected = np.clip(1.5 * dimmed - 0.5 * dimmed.mean(axis=(0, 1)), 0, 1)
    np.testing.assert_allclose(changed, expected, atol=1e-6)


def test_how_values_are_spread(sets: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = read_dataset(sets[1])
    spread = channel_spread(dataset, 5, seed=0)
    pixels = np.concatenate([load_sample(r, dataset.labels, channels=5).image.reshape(-1, 5) for r in dataset]) / 255
    np.testing.assert_allclose(spread["mean"], pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(spread["std"], pixels.std(0), rtol=1e-5)
    assert spread["mean"][0] == spread["mean"][3]
    assert channel_spread(dataset, 5, seed=7) == spread, "all are looked at, whatever the seed"
    # What a dark camera of 12 bits gives keeps its own scale; a channel that never changes is not blown up.
    dark = np.random.default_rng(0).normal(600, 60, (50, 50, 2)).astype(np.uint16)
    dark[..., 1] = 700
    tifffile.imwrite(tmp_path / "a.tif", dark, photometric="minisblack", planarconfig="contig")
    image = {"id": 1, "file_name": "a.tif", "height": 50, "width": 50}
    (tmp_path / "a.json").write_text(
        json.dumps({"images": [image], "annotations": [], "categories": [{"id": 1, "name": "a"}]})
    )
    spread = channel_spread(read_dataset(tmp_path), 2, seed=0)
    np.testing.assert_allclose(spread["std"], [dark[..., 0].std() / 65535, 1.0], rtol=1e-4)
