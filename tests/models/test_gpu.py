"""What the CPU computes, a GPU computes: same weights, same pictures, same samples."""

from __future__ import annotations

import pytest
import torch
from small_detector import SMALL, batch_of

from tracesight.models.build import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def moved(values, device):
    return type(values)(*(value.to(device) for value in values))


def test_losses_equal_the_cpus():
    torch.manual_seed(0)
    model = build("mask_rcnn_resnet18_fpn", 4, mask_channels=16, **SMALL).double()
    batch, targets = batch_of(3)
    expected = model(batch, targets)
    found = model.cuda()(moved(batch, "cuda"), moved(targets, "cuda"))
    for name, loss in expected.items():
        assert torch.allclose(found[name].cpu(), loss, atol=1e-5), name


def test_detections_equal_the_cpus():
    torch.manual_seed(0)
    model = build("mask_rcnn_resnet18_fpn", 4, mask_channels=16, **SMALL).double().eval()
    batch, _ = batch_of(1)
    with torch.inference_mode():
        expected = model(batch)
        found = model.cuda()(moved(batch, "cuda"))
    assert torch.equal(found.valid.cpu(), expected.valid)
    assert torch.allclose(found.boxes.cpu()[expected.valid], expected.boxes[expected.valid], atol=1e-4)
    assert torch.allclose(found.scores.cpu(), expected.scores, atol=1e-5)
