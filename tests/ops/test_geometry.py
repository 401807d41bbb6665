"""Boxes, deltas, matching, sampling and keyed random numbers: goldens by hand and properties."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou as torchvision_iou

from tracesight.ops.boxes import box_iou, clip_boxes
from tracesight.ops.deltas import decode, encode
from tracesight.ops.matching import IGNORED, NEGATIVE, POSITIVE, ignore_crowds, match, sample
from tracesight.ops.random import keyed_uniform, philox
from tracesight.ops.trim import trim, trim_tail


def random_boxes(*shape):
    corner = torch.rand(*shape, 2) * 100
    return torch.cat((corner, corner + 1 + torch.rand(*shape, 2) * 60), -1)


def test_iou_by_hand_and_against_torchvision():
    left = torch.tensor([[0.0, 0, 2, 2], [0, 0, 0, 0]])
    right = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [0, 0, 0, 0]])
    assert torch.allclose(box_iou(left, right), torch.tensor([[1 / 7, 1, 0], [0, 0, 0]]))
    torch.manual_seed(0)
    a, b = random_boxes(50), random_boxes(70)
    assert torch.allclose(box_iou(a, b), torchvision_iou(a, b))


def test_clip_limits_each_picture_to_its_own_size():
    boxes = torch.tensor([[[-5.0, -5, 50, 50]], [[-5, -5, 50, 50]]])
    clipped = clip_boxes(boxes, torch.tensor([[10, 20], [30, 40]]))
    assert clipped.tolist() == [[[0, 0, 20, 10]], [[0, 0, 40, 30]]]


def test_deltas_by_hand_inverse_and_against_torchvision():
    anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 5, 25, 25]])
    expected = torch.tensor([[10 * 1.0, 10 * 0.25, 5 * torch.log(torch.tensor(2.0)), 0.0]])
    assert torch.allclose(encode(box, anchor, (10.0, 5.0)), expected, atol=1e-6)
    torch.manual_seed(0)
    anchors, boxes = random_boxes(100), random_boxes(100)
    deltas = encode(boxes, anchors, (10.0, 5.0))
    assert torch.allclose(decode(deltas, anchors, (10.0, 5.0)), boxes, atol=1e-3)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    assert torch.allclose(deltas, coder.encode_single(boxes, anchors), atol=1e-5)
    wild = torch.randn(100, 4) * 30
    assert torch.allclose(decode(wild, anchors, (10.0, 5.0)), coder.decode_single(wild, anchors), rtol=1e-4, atol=1e-2)


def test_matching_by_hand():
    objects = torch.tensor([[[0.0, 0, 10, 10], [100, 100, 110, 110], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True, False]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [100, 100, 104, 104], [50, 50, 60, 60]]])
    matched, status = match(objects, valid, boxes, high=0.7, low=0.3, best_of_each=True)
    # Equal; IoU 0.5, between; IoU 0.2; IoU 0.16 but the best the second object has; nothing.
    assert status.tolist() == [[POSITIVE, IGNORED, NEGATIVE, POSITIVE, NEGATIVE]]
    assert matched[0, [0, 3]].tolist() == [0, 1]
    _, strict = match(objects, valid, boxes, high=0.7, low=0.3, best_of_each=False)
    assert strict.tolist() == [[POSITIVE, IGNORED, NEGATIVE, NEGATIVE, NEGATIVE]]


def test_matching_in_chunks_equals_matching_at_once():
    torch.manual_seed(0)
    objects, boxes = random_boxes(1, 300), random_boxes(1, 500)
    matched, status = match(objects, torch.ones(1, 300).bool(), boxes, high=0.5, low=0.5, best_of_each=False)
    iou = box_iou(objects[0], boxes[0])
    assert torch.equal(matched[0], iou.argmax(0))
    assert torch.equal(status[0] == POSITIVE, iou.amax(0) >= 0.5)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_two_thousand_objects_fit():
    torch.manual_seed(0)
    objects, boxes = random_boxes(1, 2048), random_boxes(1, 3000)
    valid, crowd = torch.arange(2048)[None] < 2000, torch.arange(2048)[None] >= 2040
    with Largest() as largest:
        matched, status = match(objects, valid, boxes, high=0.7, low=0.3, best_of_each=True)
        ignored = ignore_crowds(status, boxes, objects, crowd)
    # Never all pairs at once: a picture of 1333 pixels has 268,000 anchors, and each pair takes four bytes and more.
    assert largest.numel <= 64 * 3000
    iou = torchvision_iou(objects[0, :2000], boxes[0])
    assert torch.equal(matched[0], iou.argmax(0))
    favourite = (iou == iou.amax(1, keepdim=True)).any(0)
    assert torch.equal(status[0] == NEGATIVE, (iou.amax(0) < 0.3) & ~favourite)
    assert torch.equal(status[0] == POSITIVE, (iou.amax(0) >= 0.7) | favourite)
    assert (ignored == IGNORED).sum() > (status == IGNORED).sum()


def test_an_object_that_overlaps_nothing_makes_nothing_positive():
    objects, boxes = torch.tensor([[[200.0, 200, 210, 210]]]), torch.tensor([[[0.0, 0, 5, 5], [5, 5, 9, 9]]])
    _, status = match(objects, torch.tensor([[True]]), boxes, high=0.7, low=0.3, best_of_each=True)
    assert (status == NEGATIVE).all()


def test_no_objects_make_every_box_negative():
    _, status = match(
        torch.zeros(1, 32, 4), torch.zeros(1, 32).bool(), random_boxes(1, 9), high=0.7, low=0.3, best_of_each=True
    )
    assert (status == NEGATIVE).all()


def test_negatives_inside_crowds_are_ignored():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [45, 45, 55, 55], [46, 46, 50, 50]]])
    crowd_box = torch.tensor([[[40.0, 40, 50, 100]]])
    status = torch.tensor([[NEGATIVE, NEGATIVE, NEGATIVE]], dtype=torch.int8)
    # The second has half of itself inside, which is not more than half.
    assert ignore_crowds(status, boxes, crowd_box, torch.tensor([[True]])).tolist() == [[NEGATIVE, NEGATIVE, IGNORED]]


@pytest.mark.parametrize(("positives", "negatives"), [(100, 400), (5, 400), (100, 10), (0, 3), (0, 0)])
def test_sampling_fills_its_quota(positives, negatives):
    status = torch.full((2, 600), IGNORED, dtype=torch.int8)
    status[:, :positives], status[:, positives : positives + negatives] = POSITIVE, NEGATIVE
    keys = torch.tensor([[7, 0], [7, 1]])
    index, valid = sample(status, keys, "roi", 64, 0.25)
    assert index.shape == valid.shape == (2, 64)
    chosen = status.gather(1, index)
    taken = min(positives, 16)
    assert ((chosen == POSITIVE) & valid).sum(1).tolist() == [taken] * 2
    assert ((chosen == NEGATIVE) & valid).sum(1).tolist() == [min(negatives, 64 - taken)] * 2
    assert (chosen[valid] != IGNORED).all()
    for row, ok in zip(index, valid):
        assert len(set(row[ok].tolist())) == int(ok.sum())
    if positives == 100 and negatives == 400:
        assert index[0].tolist() != index[1].tolist()
    again, _ = sample(status.flip(0), keys.flip(0), "roi", 64, 0.25)
    assert torch.equal(again.flip(0), index)


def test_philox_gives_the_published_vectors():
    # Random123's known-answer test for philox4x32-10.
    def words(*values):
        return tuple(torch.tensor([v]) for v in values)

    zero = philox(words(0, 0, 0, 0), words(0, 0))
    assert [int(w) for w in zero] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = philox(words(*[0xFFFFFFFF] * 4), words(*[0xFFFFFFFF] * 2))
    assert [int(w) for w in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_keyed_uniform_depends_on_key_and_purpose_only():
    keys = torch.tensor([[3, 10], [3, 11], [4, 10]])
    numbers = keyed_uniform(keys, "roi", 1001)
    assert numbers.shape == (3, 1001)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(float(numbers.mean()) - 0.5) < 0.02
    assert torch.equal(keyed_uniform(keys[1:2], "roi", 1001), numbers[1:2])
    assert not torch.equal(keyed_uniform(keys, "rpn", 1001), numbers)
    assert len({tuple(row.tolist()) for row in numbers}) == 3


def test_trimming_drops_rows_and_tails():
    valid = torch.tensor([[True, False, False], [True, True, False]])
    kept, values = trim_tail(valid, torch.arange(6).view(2, 3))
    assert kept.shape == (2, 2) and values.tolist() == [[0, 1], [3, 4]]
    flat, rows = trim(valid.flatten(), torch.arange(6))
    assert flat.all() and rows.tolist() == [0, 3, 4]
    none, _ = trim_tail(torch.zeros(2, 3).bool(), torch.zeros(2, 3))
    assert none.shape == (2, 1)


NAN, INF = float("nan"), float("inf")
AWKWARD = [[NAN, 0, 9, 9], [0, 0, INF, 9], [-INF, 0, 9, INF], [5, 5, 5, 5], [9, 9, 3, 3], [1e30, 1e30, 2e30, 2e30]]


@pytest.mark.parametrize("padded", [False, True])
def test_boxes_that_are_not_finite_are_ignored_and_match_nothing(monkeypatch, padded):
    if padded:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    boxes = torch.tensor([[*AWKWARD, [0, 0, 9, 9], [50, 50, 59, 59]]])
    objects = torch.tensor([[[0.0, 0, 9, 9], [NAN, 0, 9, 9], [0, 0, INF, INF]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    matched, status = match(objects, valid, boxes, high=0.5, low=0.3, best_of_each=True)
    assert status.tolist() == [[IGNORED] * 3 + [NEGATIVE] * 3 + [POSITIVE, NEGATIVE]]
    assert matched[0, 6] == 0
    crowd = torch.tensor([[False, True, True]])
    assert torch.equal(ignore_crowds(status, boxes, objects, crowd & False), status)
    assert ignore_crowds(status, boxes, objects[:, :1], ~crowd[:, :1])[0, 6:].tolist() == [POSITIVE, NEGATIVE]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("pictures", "count"), [(0, 5), (2, 0), (0, 0)])
def test_no_pictures_and_no_boxes(monkeypatch, padded, pictures, count):
    if padded:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    objects, valid = torch.zeros(pictures, 32, 4), torch.zeros(pictures, 32, dtype=torch.bool)
    boxes = torch.zeros(pictures, count, 4)
    matched, status = match(objects, valid, boxes, high=0.7, low=0.3, best_of_each=True)
    assert matched.shape == status.shape == (pictures, count)
    status = ignore_crowds(status, boxes, objects, valid)
    index, chosen = sample(status, torch.zeros(pictures, 2, dtype=torch.int64), "rpn", 4, 0.5)
    assert index.shape == chosen.shape and index.shape[0] == pictures
    assert decode(encode(boxes, boxes, (1.0, 1.0)), boxes, (1.0, 1.0)).shape == boxes.shape
    assert clip_boxes(boxes, torch.zeros(pictures, 2, dtype=torch.int64)).shape == boxes.shape
    assert all(part.shape[0] == pictures for part in trim_tail(torch.zeros(pictures, 7, dtype=torch.bool)))
