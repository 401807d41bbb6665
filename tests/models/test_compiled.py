"""One graph: Mask R-CNN with keypoints exports with dynamic shapes and compiles whole, and equals eager mode."""

from __future__ import annotations

import io

import pytest
import torch
from small_detector import SMALL, batch_of
from torch import nn
from torch._inductor import cpp_builder
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tracesight.data.batch import Batch, Targets
from tracesight.models.build import build

FEW = {**SMALL, "rpn": {**SMALL["rpn"], "pre_nms_test": 40, "post_nms_test": 30}}


def detector():
    torch.manual_seed(0)
    return build("mask_rcnn_resnet18_fpn", 4, mask_channels=16, num_keypoints=4, keypoint_channels=16, **FEW)


def pictures(count, height, width):
    torch.manual_seed(count * height + width)
    images = torch.rand(count, 3, height, width).contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.tensor([[height - 5, width - 7]]).expand(count, 2), torch.zeros(count, 2).long())


class OnTensors(nn.Module):
    """The detector with tensors in and out, so that a saved program names no class of ours."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, sizes):
        return tuple(v for v in self.model(Batch(images, sizes, torch.zeros_like(sizes))) if v is not None)


def assert_equal(found, expected):
    for name, left, right in zip(expected._fields, found, expected, strict=True):
        assert left.shape == right.shape and left.dtype == right.dtype, name
        assert torch.allclose(left.double(), right.double(), atol=1e-5), name


@pytest.fixture(scope="module")
def exported():
    """The program, after a round trip through a file, and the model that it came from."""
    model = detector().eval()
    batch = torch.export.Dim("batch", max=64)
    # A side of under 96 would give P6 one cell, which export takes for a constant.
    height, width = (32 * torch.export.Dim(name, min=3, max=64) for name in ("rows", "columns"))
    shapes = {"images": {0: batch, 2: height, 3: width}, "sizes": {0: batch}}
    program = torch.export.export(OnTensors(model), pictures(2, 128, 192)[:2], dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module(), model


@pytest.mark.parametrize("shape", [(2, 128, 192), (1, 96, 96), (3, 160, 96), (1, 352, 480)])
def test_exported_equals_eager_at_any_shape(exported, shape):
    program, model = exported
    batch = pictures(*shape)
    with torch.inference_mode():
        expected = model(batch)
        assert_equal(program(*batch[:2]), expected)
    assert expected.valid.any()


def test_exported_equals_eager_where_nothing_is_found(exported):
    program, model = exported
    # Every logit of an object is far below the threshold of 0.
    batch = pictures(2, 96, 128)
    batch = batch._replace(sizes=torch.zeros_like(batch.sizes))
    with torch.inference_mode():
        expected = model(batch)
        assert_equal(program(*batch[:2]), expected)
    assert not expected.valid.any()


def learned(model, call, batch, targets):
    """Losses that `call`, the model or what was made of it, gives in training, and the gradients of the parameters."""
    model.train().zero_grad()
    losses = call(batch, targets)
    torch.stack(list(losses.values())).sum().backward()
    return losses, {name: value.grad for name, value in model.named_parameters()}


def assert_near(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-5), name


@pytest.mark.parametrize("objects", [0, 3, 32])
def test_padded_equals_trimmed(monkeypatch, objects):
    model = detector()
    batch, targets = batch_of(objects)
    losses, gradients = learned(model, model, batch, targets)
    with torch.inference_mode():
        detections = model.eval()(batch)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    padded_losses, padded_gradients = learned(model, model, batch, targets)
    assert_near(padded_losses, losses)
    assert_near(padded_gradients, gradients)
    with torch.inference_mode():
        assert_equal(model.eval()(batch), detections)


def assert_compiles_and_equals(backend):
    model = detector()
    batch, targets = batch_of(3)
    expected_losses, expected_gradients = learned(model, model, batch, targets)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    losses, gradients = learned(model, compiled, batch, targets)
    assert_near(losses, expected_losses)
    assert_near(gradients, expected_gradients)
    model.eval()
    with torch.no_grad():
        assert_equal(compiled(batch), model(batch))


def test_training_and_prediction_are_one_graph():
    assert_compiles_and_equals("eager")


@pytest.mark.long
def test_training_and_prediction_compile():
    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"torch.compile needs a C++ compiler on the CPU: {error}")
    assert_compiles_and_equals("inductor")


def test_no_pictures():
    model = detector().eval()
    with torch.inference_mode():
        found = model(pictures(0, 96, 128))
    assert found.boxes.shape == (0, 7, 4) and found.masks.shape[:2] == (0, 7)


def test_nothing_is_read_from_a_device():
    """On tensors that only pretend to lie on a GPU, reading a value or a count is an error."""
    model = detector()
    batch, targets = batch_of(3)
    with FakeTensorMode(allow_non_fake_inputs=True) as pretend, torch.no_grad():

        def moved(value):
            return pretend.from_tensor(value.detach()).to("cuda")

        state = {name: moved(value) for name, value in (*model.named_parameters(), *model.named_buffers())}
        batch, targets = Batch(*map(moved, batch[:3])), Targets(*map(moved, targets))
        losses = torch.func.functional_call(model, state, (batch, targets))
        found = torch.func.functional_call(model, state, (batch,))
        assert {value.device.type for value in (*losses.values(), *found)} == {"cuda"}
        assert found.masks.shape == (2, 7, 28, 28)
        with pytest.raises(DataDependentOutputException):
            losses["loss_mask"].item()
