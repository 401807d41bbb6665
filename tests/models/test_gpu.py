"""What the CPU computes, a GPU computes: same weights, same pictures, same samples."""

from __future__ import annotations

import pytest
import torch
from small_detector import SMALL, batch_of

from tracesight.data.batch import moved
from tracesight.models.build import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


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


@pytest.fixture
def sync_mode():
    """Sets how CUDA answers a wait for the GPU, and puts the default back whatever happens."""
    yield torch.cuda.set_sync_debug_mode
    torch.cuda.set_sync_debug_mode("default")


def test_a_step_and_a_prediction_never_wait_for_the_gpu(sync_mode):
    torch.manual_seed(0)
    model = build("mask_rcnn_resnet18_fpn", 4, mask_channels=16, **SMALL)
    batch, targets = batch_of(3)
    model, batch, targets = model.cuda(), moved(batch, "cuda"), moved(targets, "cuda")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def step():
        torch.stack(list(model(batch, targets).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            return model(batch)

    step()  # Compiling kernels and choosing algorithms may wait; what follows may not.
    sync_mode("error")
    found = step()
    assert found.valid.shape == (2, 7)
    with pytest.raises(RuntimeError):
        found.valid.sum().item()
