"""Whole pictures on their way into a classifier, beside torchvision's transforms."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from tracesight.data.rand_augment import OPERATIONS, rand_augment
from tracesight.data.random import generator
from tracesight.data.whole import (
    TrainView,
    centre_view,
    resample,
    resized_window,
    short_side_size,
    views_of,
)


def picture(height: int = 60, width: int = 90, channels: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, channels), dtype=np.uint8)
    planes = [
        Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def rng(draw: int = 0) -> np.random.Generator:
    return generator(1, draw, "augment")


def by_torchvision(image: np.ndarray, *steps) -> np.ndarray:
    out = Image.fromarray(image)
    for step in steps:
        out = step(out)
    return np.asarray(out)


def test_the_view_for_testing_is_torchvisions():
    for height, width in ((60, 90), (97, 41), (64, 64)):
        image = picture(height, width)
        theirs = by_torchvision(image, v2.Resize(48), v2.CenterCrop(32)).astype(int)
        # What is left out is not computed here, so that the filter's sums round otherwise now and then.
        assert np.abs(centre_view(image, 32, 48).astype(int) - theirs).max() <= 2
        assert short_side_size(height, width, 48) == F.resize(torch.zeros(3, height, width), [48]).shape[1:]


def test_ten_views_are_torchvisions():
    image = picture()
    ours = views_of(image, "ten-crop", 32, 40)
    theirs = [np.asarray(view).astype(int) for view in F.ten_crop(F.resize(Image.fromarray(image), [40]), [32, 32])]
    assert len(ours) == 10
    nearest = [np.argmin([np.abs(view - other).max() for other in theirs]) for view in ours]
    assert sorted(nearest) == list(range(10)), "in another order: torchvision mirrors the picture and cuts it again"
    assert all(np.abs(view - theirs[place]).max() <= 2 for view, place in zip(ours, nearest))


def test_views_at_many_scales_are_whole_pictures():
    views = views_of(picture(), "multi-scale", 112, 128)
    assert [view.shape[0] for view in views[::2]] == [112, 128, 192, 240, 320]
    assert all(view.shape[1] == view.shape[0] * 3 // 2 for view in views)
    assert np.array_equal(views[1], views[0][:, ::-1])


def test_a_random_cut_has_torchvisions_distribution():
    draws = [resized_window(300, 500, (0.08, 1.0), (3 / 4, 4 / 3), rng(d).random(48)) for d in range(2000)]
    torch.manual_seed(0)
    image = torch.zeros(3, 300, 500)
    theirs = [v2.RandomResizedCrop(8).make_params([image]) for _ in range(2000)]
    ours = np.array([[h * w / 150_000, w / h, top, left] for top, left, h, w in draws])
    others = np.array(
        [[p["height"] * p["width"] / 150_000, p["width"] / p["height"], p["top"], p["left"]] for p in theirs]
    )
    for column in range(4):
        for quantile in (0.1, 0.5, 0.9):
            scale = ours[:, column].std()
            assert abs(np.quantile(ours[:, column], quantile) - np.quantile(others[:, column], quantile)) < 0.15 * scale
    assert all(top + h <= 300 and left + w <= 500 for top, left, h, w in draws)


def test_where_no_cut_fits_the_largest_in_the_middle_is_taken():
    tall = resized_window(400, 10, (0.9, 1.0), (3 / 4, 4 / 3), rng().random(48))
    assert tall == (193, 0, 13, 10)
    wide = resized_window(10, 400, (0.9, 1.0), (3 / 4, 4 / 3), rng().random(48))
    assert wide == (0, 193, 10, 13)


@pytest.mark.parametrize("crop", ["resized", "short_side", "padded"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_training_views_have_the_size_and_repeat(crop, channels):
    view = TrainView(32, crop, short_sides=(36, 44), colour=0.4 * (channels == 3))
    image = picture(channels=channels)
    one, same, other = view(image, rng()), view(image, rng()), view(image, rng(1))
    assert one.shape == (32, 32, channels)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_padded_cuts_lie_anywhere_around_the_picture():
    image = np.full((32, 32, 3), 200, np.uint8)
    seen = {
        tuple(np.argwhere(TrainView(32, "padded", flip=False)(image, rng(d))[..., 0] > 0).min(0)) for d in range(400)
    }
    assert {(0, 0), (4, 4), (0, 4), (4, 0)} <= seen
    assert all(y <= 4 and x <= 4 for y, x in seen)
    flat = TrainView(32, "padded", padding=0, flip=False)(picture(32, 32), rng())
    assert np.array_equal(flat, picture(32, 32))


def test_short_side_cuts_have_sides_of_the_given_range():
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, 50:] = 255
    # One step from black to white: its width says how much the picture was enlarged.
    seen = {TrainView(32, "short_side", short_sides=(64, 128), flip=False)(image, rng(d)).shape for d in range(5)}
    assert seen == {(32, 32, 3)}


def test_choices_do_not_disturb_each_other():
    image = picture()
    plain, flipped = TrainView(32, flip=False), TrainView(32, flip=True)
    for draw in range(8):
        one, other = plain(image, rng(draw)), flipped(image, rng(draw))
        assert np.array_equal(one, other) or np.array_equal(one, other[:, ::-1])
        upside = TrainView(32, flip=False, vertical_flip=True)(image, rng(draw))
        assert np.array_equal(one, upside) or np.array_equal(one, upside[::-1])
    lit = [TrainView(32, flip=False, lighting=0.1)(image, rng(d)) for d in range(40)]
    shifts = np.array([(a - plain(image, rng(d)) / 255).mean((0, 1)) for d, a in enumerate(lit)])
    assert abs(shifts.mean()) < 0.01 and 0.005 < shifts.std() < 0.03


def test_resampling_of_other_kinds_is_that_of_bytes():
    image = picture(channels=4)
    whole = resample(image, (20, 30))
    assert np.array_equal(whole[..., :3], resample(np.ascontiguousarray(image[..., :3]), (20, 30)))
    unit = resample((image / 255).astype(np.float32), (20, 30))
    assert np.abs(unit * 255 - whole).max() < 1.01


def test_rand_augment_repeats_and_changes():
    image = picture() // 2 + 40
    draws = np.array([[0.5, 0.2], [0.9, 0.7]])
    assert np.array_equal(rand_augment(image, draws, 9), rand_augment(image, draws, 9))
    changed = [not np.array_equal(rand_augment(image, np.array([[(k + 0.5) / 14, 0.9]]), 15), image) for k in range(14)]
    assert changed == [False] + [True] * 13
    for k in range(12):  # all but autocontrast and equalize, which have no strength
        assert np.array_equal(rand_augment(image, np.array([[(k + 0.5) / 14, 0.9]]), 0), image), k


def test_rand_augments_colours_and_moves_are_torchvisions():
    image = Image.fromarray(picture())
    strength = 15 / 30
    theirs = [
        None,
        partial(F.affine, angle=0, translate=[0, 0], scale=1, shear=[np.degrees(np.arctan(0.15)), 0], center=[0, 0]),
        None,
        partial(F.affine, angle=0, translate=[-int(150 / 331 * 90 * 0.5), 0], scale=1, shear=[0, 0]),
        partial(F.affine, angle=0, translate=[0, -int(150 / 331 * 60 * 0.5)], scale=1, shear=[0, 0]),
        partial(F.rotate, angle=15),
        partial(F.adjust_brightness, brightness_factor=1.45),
        partial(F.adjust_saturation, saturation_factor=1.45),
        partial(F.adjust_contrast, contrast_factor=1.45),
        partial(F.adjust_sharpness, sharpness_factor=1.45),
        partial(F.posterize, bits=6),
        partial(F.solarize, threshold=128),
        F.autocontrast,
        F.equalize,
    ]
    for operation, other in zip(OPERATIONS, theirs, strict=True):
        if other is not None:
            ours, peer = (np.asarray(made).astype(int) for made in (operation(image, strength, 1), other(image)))
            inside = (peer != 0).all(2) & (ours != 128).all(2)  # what is filled in is black there and grey here
            assert np.abs(ours - peer)[inside].mean() < 6, operation
