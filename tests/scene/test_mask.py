from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tracesight.scene import Mask

few = settings(max_examples=60, deadline=None)
pictures = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))


def circle(side: int = 30) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return y**2 + x**2 < (side / 2) ** 2


@few
@given(pictures)
def test_round_trips_are_exact(array):
    mask = Mask.from_array(array)
    assert mask.size == array.shape
    assert mask.to_array().dtype == np.bool_
    np.testing.assert_array_equal(mask.to_array(), array)
    assert Mask.from_coco(mask.to_coco()) == mask
    assert Mask.from_coco({"size": list(array.shape), "counts": mask.to_runs()}) == mask
    crop, origin = mask.to_crop()
    assert Mask.from_crop(crop, origin, array.shape) == mask


@few
@given(pictures)
def test_codec_is_the_one_of_pycocotools(array):
    oracle = pytest.importorskip("pycocotools.mask")
    mask = Mask.from_array(array)
    encoded = oracle.encode(np.asfortranarray(array.astype(np.uint8)))
    assert mask.counts == encoded["counts"]
    assert mask.area == oracle.area(encoded)
    x, y, w, h = oracle.toBbox(encoded)
    assert mask.box == (x, y, x + w, y + h)
    np.testing.assert_array_equal(oracle.decode({"size": list(mask.size), "counts": mask.counts}), array)


@few
@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=40))
def test_numbers_of_any_length_survive(runs):
    oracle = pytest.importorskip("pycocotools.mask")
    runs = [runs[0], *(run + 1 for run in runs[1:])]
    size = [sum(runs), 1]
    mask = Mask.from_coco({"size": size, "counts": runs})
    assert mask.to_runs() == runs
    assert mask.counts == oracle.frPyObjects({"size": size, "counts": runs}, *size)["counts"]


@few
@given(pictures, st.tuples(st.integers(-6, 12), st.integers(-6, 12)), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_crop_is_pasted_and_cut_at_the_edge(crop, origin, size):
    canvas = np.zeros((60, 60), np.bool_)
    top, left = origin[0] + 20, origin[1] + 20
    canvas[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    expected = canvas[20 : 20 + size[0], 20 : 20 + size[1]]
    np.testing.assert_array_equal(Mask.from_crop(crop, origin, size).to_array(), expected)


@few
@given(arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)), st.sampled_from([1, 8, 1 << 15]))
def test_edges_of_many_masks_are_those_of_each(stack, at_a_time):
    oracle = pytest.importorskip("pycocotools.mask")
    edges = [np.flatnonzero(np.diff(array.T.reshape(-1).astype(np.int8), prepend=0, append=0)) for array in stack]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracesight.scene.mask._EDGES_AT_A_TIME", at_a_time)
        masks = Mask.from_edges(np.concatenate(edges), [len(one) for one in edges], stack.shape[1:])
    assert masks == [Mask.from_array(array) for array in stack]
    encoded = oracle.encode(np.asfortranarray(stack.transpose(1, 2, 0).astype(np.uint8)))
    assert [mask.counts for mask in masks] == [one["counts"] for one in encoded]


def test_edges_by_hand():
    masks = Mask.from_edges([0, 1, 4, 6, 0, 6], [4, 0, 2], (2, 3))
    assert [mask.to_runs() for mask in masks] == [[0, 1, 3, 2], [6], [0, 6]]
    assert Mask.from_edges([], [], (2, 3)) == []
    assert [mask.to_runs() for mask in Mask.from_edges([], [0, 0], (0, 3))] == [[0], [0]]
    # More than a byte's worth of groups, for a position and for a difference below zero.
    (large,) = Mask.from_edges([2_000_000_000, 2_000_000_001, 2_000_000_002, 2_000_000_003], [4], (50_000, 50_000))
    assert Mask(large.size, large.counts).to_runs() == [2_000_000_000, 1, 1, 1, 499_999_997]


@pytest.mark.parametrize(
    ("edges", "counts", "message"),
    [
        ([1, 2], [4], "2 edges, but .* add up to 4"),
        ([1, 2, 3, 4], [1, 3], "as many starts as ends"),
        ([1, 2], [4, -2], "as many starts as ends"),
        ([1, 7], [2], "between 0 and 6"),
        ([-1, 2], [2], "between 0 and 6"),
        ([3, 2], [2], "must rise"),
        ([1, 2, 2, 3], [4], "must rise"),
        ([1, 2, 3, 3], [2, 2], "must rise"),
    ],
)
def test_edges_are_checked(edges, counts, message):
    with pytest.raises(ValueError, match=message):
        Mask.from_edges(edges, counts, (2, 3))


@few
@given(pictures, st.randoms(use_true_random=False))
def test_iou_is_that_of_the_pixels(array, random):
    other = np.array([[random.random() < 0.5 for _ in row] for row in array])
    union = (array | other).sum()
    iou = Mask.from_array(array).iou(Mask.from_array(other))
    assert iou == pytest.approx((array & other).sum() / union if union else 0.0, abs=1e-12)


def test_crop_is_the_tightest_one():
    crop, origin = Mask.from_crop(np.pad(circle(), 7), (100, 2000), (3000, 4000)).to_crop()
    assert origin == (107, 2007)
    np.testing.assert_array_equal(crop, circle())


def test_empty_and_full_masks():
    empty = Mask.from_array(np.zeros((3, 4)))
    assert (empty.area, empty.box, empty.to_runs()) == (0, (0.0, 0.0, 0.0, 0.0), [12])
    assert empty.to_crop()[0].shape == (0, 0)
    assert empty.iou(empty) == 0.0
    full = Mask.from_array(np.ones((3, 4)))
    assert (full.area, full.box, full.to_runs()) == (12, (0.0, 0.0, 4.0, 3.0), [0, 12])
    assert Mask.from_array(np.zeros((0, 5))).area == 0


def test_masks_are_equal_when_their_pixels_are():
    canonical = Mask.from_coco({"size": [2, 3], "counts": [1, 2, 3]})
    padded = Mask.from_coco({"size": [2, 3], "counts": [1, 1, 0, 1, 3, 0]})
    assert padded == canonical and hash(padded) == hash(canonical)
    oracle = pytest.importorskip("pycocotools.mask")
    noncanonical = oracle.frPyObjects({"size": [2, 3], "counts": [1, 1, 0, 1, 3]}, 2, 3)
    assert noncanonical["counts"] != canonical.counts
    assert Mask(size=(2, 3), counts=noncanonical["counts"]) == canonical


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": [2, 3], "counts": [1, 2]}, r"cover 3 pixels, but the picture has 2 × 3 = 6"),
        ({"size": [2, 3], "counts": [1, 7, -2]}, "negative run length"),
        ({"size": [2, 3], "counts": []}, "empty"),
        ({"size": [2, 3], "counts": ""}, "empty"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "list of whole numbers"),
        ({"size": [2, 3], "counts": None}, "list of whole numbers"),
        ({"size": [2, 3], "counts": [10**30]}, "list of whole numbers"),
        ({"size": [2, 3], "counts": "1~"}, "character"),
        ({"size": [2, 3], "counts": "1é"}, "character"),
        ({"size": [2, 3], "counts": "6P"}, "break off"),
        ({"size": [2, 3], "counts": "o" * 40 + "0"}, "too large"),
        ({"size": [2, 3], "counts": "ooooooooooo?" * 9}, "cover|negative"),
        ({"size": [2], "counts": "6"}, "two whole numbers"),
        ({"size": [2.0, 3.0], "counts": "6"}, "two whole numbers"),
        ({"size": [-2, -3], "counts": "6"}, "two whole numbers"),
        ({"counts": "6"}, '"size" and "counts"'),
        ([1, 2], '"size" and "counts"'),
    ],
)
def test_what_is_wrong_is_said(value, message):
    with pytest.raises(ValueError, match=message):
        Mask.from_coco(value)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="must be bytes"):
        Mask((1, 1), "1")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"shape \(2, 2, 1\)"):
        Mask.from_array(np.ones((2, 2, 1)))
    with pytest.raises(ValueError, match="different sizes"):
        Mask.from_array(np.ones((2, 2))).iou(Mask.from_array(np.ones((2, 3))))


def test_crop_of_a_large_picture_is_encoded_without_a_canvas():
    crop = circle()
    mask = Mask.from_crop(crop, (1000, 2000), (3000, 4000))
    assert mask.area == crop.sum()

    tracemalloc.start()
    Mask.from_crop(crop, (1000, 2000), (3000, 4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000, "a canvas would take 12 MB"
