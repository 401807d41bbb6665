"""Views: the same whatever the workers, batches and threads; near to torchvision's; what a change does, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as peer

from tracesight.data.colour import LUMA
from tracesight.data.dataset import Dataset
from tracesight.data.loader import shuffled_batches
from tracesight.data.record import Record
from tracesight.data.unlabelled import Unreadable, read_unlabelled
from tracesight.data.view_batch import ViewBatches, finished
from tracesight.data.views import LIFT, MATRIX, NUMBERS, SIGMA, SOLARISED, View, changed, cut
from tracesight.errors import UserError

PLAIN = {"jitter_chance": 0.0, "grey_chance": 0.0, "blur_chance": 0.0, "flip": False}


def smooth(height, width, seed=0):
    """A picture of coarse random colours, enlarged."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def no_change(count=1):
    changes = torch.zeros(count, NUMBERS)
    changes[:, MATRIX] = torch.eye(3).flatten()
    return changes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        Image.fromarray(smooth(40 + number, 60, number)).save(folder / f"{number}.png")
    return folder


def test_a_cut_is_pillows():
    image = smooth(90, 120)
    for window, side in (((10, 20, 60, 70), 32), ((0, 0, 20, 24), 48)):
        top, left, height, width = window
        box = Image.fromarray(image).crop((left, top, left + width, top + height))
        expected = np.asarray(box.resize((side, side), Image.Resampling.BILINEAR)).astype(int)
        found = cut(image, window, (side, side), False)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1
        assert torch.equal(cut(image, window, (side, side), True), found.flip(2))


def test_a_view_without_chances_is_the_cut_alone():
    image = smooth(64, 64)
    view, change = View(16, area=(1.0, 1.0), ratio=(1.0, 1.0), **PLAIN)(image, 0, 3, "first view")
    assert torch.equal(view, cut(image, (0, 0, 64, 64), (16, 16), False))
    torch.testing.assert_close(changed(view[None], torch.from_numpy(change)[None]), view[None] / 255, rtol=0, atol=1e-6)


def test_changes_by_hand():
    pixels = torch.tensor([[0, 64], [128, 255]], dtype=torch.uint8).expand(1, 3, 2, 2)
    grey = pixels / 255
    contrast = no_change()
    contrast[:, MATRIX] *= 0.5
    contrast[:, LIFT] = 0.5
    torch.testing.assert_close(changed(pixels, contrast), grey * 0.5 + 0.5 * grey.mean(), rtol=0, atol=1e-6)
    bright = no_change()
    bright[:, MATRIX] *= 2
    torch.testing.assert_close(changed(pixels, bright), (2 * grey).clamp(max=1), rtol=0, atol=1e-6)
    solarised = no_change()
    solarised[:, SOLARISED] = 1
    torch.testing.assert_close(changed(pixels, solarised), torch.where(grey >= 0.5, 1 - grey, grey), rtol=0, atol=1e-6)
    colours = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    change = torch.from_numpy(View(8, jitter_chance=0.0, grey_chance=1.0, blur_chance=0.0).change(np.full(16, 0.5)))[
        None
    ]
    luma = (colours[0].double() / 255 * torch.tensor(LUMA)[:, None, None]).sum(0)
    torch.testing.assert_close(changed(colours, change)[0].double(), luma.expand(3, 4, 4), rtol=0, atol=1e-5)


def test_blur_is_a_gaussian():
    pixels = torch.from_numpy(smooth(24, 24).copy()).permute(2, 0, 1)[None]
    for sigma in (0.4, 1.0, 2.0):
        change = no_change()
        change[:, SIGMA] = sigma
        side = 2 * math.ceil(3 * sigma) + 1
        expected = peer.gaussian_blur(pixels.float() / 255, [side, side], [sigma, sigma])
        torch.testing.assert_close(changed(pixels, change), expected, rtol=0, atol=1e-5)


def test_jitter_is_near_torchvisions():
    """In torchvision's order brightness, contrast, saturation, hue; what is clipped is left out of the comparison."""
    pixels = torch.from_numpy(smooth(32, 32).copy() // 2 + 60).permute(2, 0, 1)[None]
    draws = np.full(16, 0.99)
    draws[:5] = (0.0, 0.7, 0.3, 0.6, 0.75)
    change = torch.from_numpy(View(32).change(draws))[None]
    image = peer.adjust_brightness(pixels.float() / 255, 0.6 + 0.8 * 0.7)
    image = peer.adjust_contrast(image, 0.6 + 0.8 * 0.3)
    image = peer.adjust_saturation(image, 0.6 + 0.8 * 0.6)
    torch.testing.assert_close(changed(pixels, change_without_hue(draws)), image, rtol=0, atol=1e-4)
    turned = peer.adjust_hue(image, 0.1 * 0.5)
    assert float((changed(pixels, change) - turned).abs().mean()) < 0.05


def change_without_hue(draws):
    return torch.from_numpy(View(32, jitter=(0.4, 0.4, 0.4, 0.0)).change(draws))[None]


def test_views_belong_to_their_draws(pictures):
    dataset, _ = read_unlabelled(pictures, None, Unreadable(0))
    views = (View(16), View(16, solarise_chance=0.5))

    def batches(workers=0, start=0, raw=False, **ranks):
        make = ViewBatches(dataset, views, raw)
        return list(
            shuffled_batches(
                dataset, make, batch_size=4, seed=7, start_step=start, steps=3 - start, workers=workers, **ranks
            )
        )

    whole = batches()
    assert whole[0].batch.images.shape == (4, 3, 16, 16) and whole[0].batch.images.dtype == torch.float32
    assert not torch.equal(whole[0].batch.images, whole[0].targets.second)
    for other in (batches(workers=2), [whole[0], *batches(start=1)]):
        for one, two in zip(whole, other):
            assert torch.equal(one.batch.images, two.batch.images)
            assert torch.equal(one.targets.second, two.targets.second)
    half = batches(rank=1, ranks=2)[2]
    assert torch.equal(half.batch.images, whole[2].batch.images[2:])
    torch.set_num_threads(2)
    try:
        raw = [finished(loaded.batch, loaded.targets) for loaded in batches(raw=True)]
    finally:
        torch.set_num_threads(1)
    for one, (batch, rest) in zip(whole, raw):
        assert torch.equal(one.batch.images, batch.images) and torch.equal(one.targets.second, rest.second)


def test_broken_pictures_are_replaced_and_counted(pictures, tmp_path):
    for path in pictures.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])  # its header can be read
    (tmp_path / "4.png").write_bytes(b"no picture")
    unreadable = Unreadable(1)
    dataset, val = read_unlabelled(tmp_path, None, unreadable)
    assert (len(dataset), val, unreadable.count) == (5, None, 1) and "4.png" in unreadable.notes()[0]
    with pytest.raises(UserError, match=r"4\.png.*broken=0"):
        read_unlabelled(tmp_path, None, Unreadable(0))
    make = ViewBatches(dataset, (View(16), View(16)), raw=False)
    (loaded,) = shuffled_batches(dataset, make, batch_size=5, seed=0, steps=1)
    at = loaded.indices.index([record.name for record in dataset].index("3.png"))
    assert loaded.targets.broken.tolist()[at] >= 1 and loaded.targets.broken.count_nonzero() == 1
    lost = Dataset.of([Record(1, tmp_path / "4.png", 10, 10)], {})
    with pytest.raises(UserError, match="in a row"):
        ViewBatches(lost, (View(16), View(16)), raw=False)(list(lost), np.array([[0, 0]]))


def test_nothing_to_learn_from(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_unlabelled(tmp_path / "nowhere", None, Unreadable(0))
    with pytest.raises(UserError, match="empty"):
        read_unlabelled(tmp_path, None, Unreadable(0))
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(UserError, match="no pictures in it"):
        read_unlabelled(tmp_path, "pictures", Unreadable(5))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of its pictures can be read, the first: .*a\.png"):
        read_unlabelled(tmp_path, None, Unreadable(5))
