"""Same weights, same pictures: torchvision's detections and losses beside ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur
from torchvision_peer import (
    agreement,
    as_picture,
    as_tensors,
    doubled,
    doubled_batch,
    losses_with_our_choices,
    our_objects,
    ours,
    peer,
    resized_picture,
    their_detections,
)

from tracesight.data.batch import Batch, Targets, predict_batch
from tracesight.data.pictures import open_picture

# Few, or calibrating random weights would take longer than all that is compared.
PROPOSALS = 150


def pictures(count=2, height=192, width=256):
    torch.manual_seed(3)
    noise = torch.rand(count, 3, height, width)
    blurred = sum(gaussian_blur(noise, k, s) for k, s in ((5, 1.0), (17, 4.0), (41, 12.0)))
    low, high = blurred.amin((1, 2, 3), keepdim=True), blurred.amax((1, 2, 3), keepdim=True)
    return list((blurred - low) / (high - low))


@pytest.mark.parametrize(
    ("masks", "v2"),
    [(True, False), (False, False), (False, True), pytest.param(True, True, marks=pytest.mark.long)],
)
def test_detections_equal_torchvisions(masks, v2):
    """v2 in double precision: its deeper heads make more of rounding, and there it decides nothing."""
    images = pictures(1 if v2 else 2)  # double precision is slow
    theirs = peer(images, depth=18, masks=masks, num_classes=5, side=256, proposals=PROPOSALS, v2=v2)
    limits = {"pre_nms_test": PROPOSALS, "post_nms_test": PROPOSALS}
    name = ("mask" if masks else "faster") + "_rcnn_resnet18_fpn" + ("_v2" if v2 else "")
    model = ours(theirs, name, rpn=limits).eval()
    if v2:
        theirs, model = doubled(theirs, model)
    objects = 0
    for image in images:
        raw = (image.permute(1, 2, 0) * 255).to(torch.uint8).numpy()
        their = their_detections(theirs, as_picture(raw), resized_picture(raw, 256))
        same = agreement(as_tensors(our_objects(model, raw, 256)), their)
        objects += same.objects
        assert min(same.found) >= (1.0 if v2 else 0.99), same
        assert same.mask_iou >= 0.99, same
    assert objects >= 50


def test_keypoints_equal_torchvisions():
    images = pictures(1)
    points, numbers = {"keypoints": 5, "keypoint_width": 32}, {"num_classes": 2, "side": 256, "proposals": PROPOSALS}
    theirs = peer(images, depth=18, masks=False, **points, **numbers)
    limits = {"pre_nms_test": PROPOSALS, "post_nms_test": PROPOSALS}
    model = ours(theirs, "keypoint_rcnn_resnet18_fpn", rpn=limits, num_keypoints=5, keypoint_channels=32).eval()
    raw = (images[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()
    batch = predict_batch([raw], 256)
    with torch.inference_mode():
        found, expected = model(batch), theirs([as_picture(raw)])[0]
    back = (torch.tensor(raw.shape[:2]) / batch.sizes[0]).flip(0)
    apart = (found.boxes[0, found.valid[0], None] * back.repeat(2) - expected["boxes"]).abs().amax(-1)
    nearest = apart.argmin(1)
    same = apart.amin(1) <= 0.05
    assert same.float().mean() >= 0.95 and same.sum() >= 20
    ours_, theirs_ = found.keypoints[0, found.valid[0]][same][..., :2] * back, expected["keypoints"][nearest[same]]
    theirs_ = theirs_[..., :2]
    # Rounding may make the pixel beside the best one better.
    assert ((ours_ - theirs_).abs().amax(-1) < 0.05).float().mean() >= 0.99
    assert len(theirs_.flatten(0, 1).unique(dim=0)) > 2 * len(theirs_)


def labelled_batch(height=160, width=256):
    """Two pictures without resizing, five filled ellipses each, cut by the picture's edge now and then."""
    images, count = torch.stack(pictures(2, height, width)), 2
    torch.manual_seed(5)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    boxes, crop_boxes, sizes = torch.zeros(count, 32, 4), torch.zeros(count, 32, 4), torch.zeros(count, 32, 2).long()
    labels, offsets = torch.zeros(count, 32).long(), torch.zeros(count, 32).long()
    whole, points = torch.zeros(count, 32, height, width, dtype=torch.bool), torch.zeros(count, 32, 5, 3)
    pixels, used = [], 0
    for n in range(count):
        for j in range(5):
            centre, radius = torch.rand(2) * torch.tensor([width, height]), torch.rand(2) * 40 + 8
            mask = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 < 1
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
            box = torch.tensor([x0, y0, x1, y1]).float()
            boxes[n, j] = crop_boxes[n, j] = box
            sizes[n, j], labels[n, j], offsets[n, j] = torch.tensor([y1 - y0, x1 - x0]), j % 4 + 1, used
            whole[n, j] = mask
            # Inside, on the edges and outside, a third of them not labelled.
            points[n, j, :, :2] = box[:2] + (torch.randint(-1, 10, (5, 2)) / 8) * (box[2:] - box[:2])
            points[n, j, :, 2] = torch.randint(0, 3, (5,))
            pixels.append(mask[y0:y1, x0:x1].flatten().to(torch.uint8))
            used += len(pixels[-1])
    valid = labels > 0
    keys = torch.tensor([[0, 0], [0, 1]])
    batch = Batch(images, torch.tensor([[height, width]] * count), keys)
    targets = Targets(
        boxes, labels, valid, torch.zeros_like(valid), crop_boxes, sizes, offsets, torch.cat(pixels), points
    )
    return batch, targets, whole


def test_losses_equal_torchvisions_on_the_same_samples():
    """With masks and keypoints, which torchvision's parts can have together though none of its builders does so."""
    batch, targets, whole = labelled_batch(96, 128)
    points, numbers = {"keypoints": 5, "keypoint_width": 32}, {"num_classes": 5, "side": 96, "proposals": PROPOSALS}
    theirs = peer(list(batch.images), depth=18, **points, **numbers)
    model = ours(theirs, "mask_rcnn_resnet18_fpn", roi={"batch": 128}, num_keypoints=5, keypoint_channels=32)
    our_losses, their_losses = losses_with_our_choices(theirs, model, batch, targets, whole)
    assert set(our_losses) == set(their_losses)
    for name, loss in our_losses.items():
        assert torch.isclose(loss, their_losses[name], rtol=1e-5, atol=1e-5), name


def test_gradients_equal_torchvisions_in_double_precision():
    batch, targets, whole = labelled_batch(96, 128)
    theirs = peer(list(batch.images), depth=18, num_classes=5, side=96, proposals=PROPOSALS)
    # A few regions are enough, and double precision is slow.
    model = ours(theirs, "mask_rcnn_resnet18_fpn", roi={"batch": 32})
    theirs, model = doubled(theirs, model)
    batch, targets = doubled_batch(batch, targets)
    our_losses, their_losses = losses_with_our_choices(theirs, model, batch, targets, whole)
    for name, loss in our_losses.items():
        assert torch.isclose(loss, their_losses[name], rtol=1e-6, atol=1e-6), name

    sum(our_losses.values()).backward()
    sum(their_losses.values()).backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    compared = 0
    for name, parameter in model.named_parameters():
        difference = (parameter.grad - their_gradients[name]).norm()
        assert difference <= 1e-6 * their_gradients[name].norm(), name
        compared += 1
    assert compared > 60


@pytest.mark.long
@pytest.mark.realdata
def test_detections_equal_torchvisions_on_photographs():
    root = os.environ.get("TRACESIGHT_DATA")
    if not root:
        pytest.skip("TRACESIGHT_DATA names no folder with the real pictures")
    paths, side = sorted((Path(root) / "coco64" / "images").glob("*.jpg"))[:2], 400
    raw = [open_picture(path) for path in paths]
    theirs = peer([as_picture(picture) for picture in raw], depth=50, side=side)
    model = ours(theirs, "mask_rcnn_resnet50_fpn").eval()
    for picture in raw:
        # What torch's own resizing may differ by, parity.py tells.
        their = their_detections(theirs, as_picture(picture), resized_picture(picture, side))
        same = agreement(as_tensors(our_objects(model, picture, side)), their)
        assert same.objects >= 50
        assert min(same.found) >= 0.99, same
        assert same.mask_iou >= 0.99, same
