"""Batch norm over two ranks equals torch's over all of their cells, and is torch's layer where there is one rank."""

from __future__ import annotations

import pytest
import torch
from gloo_ranks import on_ranks
from torch import nn

from tracesight.models.norms import BatchNorm2d, norm_layer
from tracesight.ops.collectives import alone

CHANNELS = 5
# (N, H, W) on both ranks, type, about how many deviations the mean is from 0, momentum.
CASES = {
    "uneven": ([(3, 5, 7), (1, 2, 3)], torch.float64, 0.5, 0.1),
    "average": ([(3, 5, 7), (1, 2, 3)], torch.float64, 0.5, None),
    "one cell each": ([(1, 1, 1), (1, 1, 1)], torch.float64, 0.5, 0.1),
    "one rank without pictures": ([(0, 4, 4), (2, 4, 4)], torch.float64, 0.5, 0.1),
    "single precision": ([(2, 9, 9), (2, 5, 9)], torch.float32, 0.5, 0.1),
    "far from zero": ([(2, 40, 40), (2, 30, 50)], torch.float32, 100.0, 0.1),
    "bfloat16": ([(2, 9, 9), (2, 5, 9)], torch.bfloat16, 0.5, 0.1),
    "float16": ([(2, 9, 9), (2, 5, 9)], torch.float16, 0.5, 0.1),
}
# Of results against torch's in double precision, relative to the largest number.
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}
STEPS = 3


def inputs(name, step):
    """Each rank's input and the gradient of its output."""
    shapes, dtype, offset, _ = CASES[name]
    generator = torch.Generator().manual_seed(step)
    pairs = []
    for number, (count, height, width) in enumerate(shapes):
        x = torch.randn(count, CHANNELS, height, width, generator=generator, dtype=torch.float64)
        x = (x * (1 + number) + offset + number).to(dtype).contiguous(memory_format=torch.channels_last)
        pairs.append((x, torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype)))
    return pairs


def filled(layer, dtype, momentum):
    layer.momentum = momentum
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, CHANNELS))
        layer.bias.copy_(torch.linspace(-1, 1, CHANNELS))
    # Under mixed precision the layer's own numbers stay in single precision.
    return layer.to(torch.float64 if dtype == torch.float64 else torch.float32).train()


def learned(layer, x, grad):
    """Output, gradient of the input, and the layer's state and gradients after a step."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    out = layer(x)
    out.backward(grad)
    assert out.dtype == x.dtype and x.grad is not None
    assert out.is_contiguous(memory_format=torch.channels_last) or out.numel() <= CHANNELS
    return out.detach(), x.grad, {name: value.clone() for name, value in layer.state_dict().items()}, (
        layer.weight.grad.clone(), layer.bias.grad.clone()
    )  # fmt: skip


def all_cases(rank):
    results = {}
    for name, (_, dtype, _, momentum) in CASES.items():
        layer = filled(BatchNorm2d(CHANNELS), dtype, momentum)
        results[name] = [learned(layer, *inputs(name, step)[rank]) for step in range(STEPS)]
    one_cell = BatchNorm2d(CHANNELS)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        one_cell(torch.ones(1 - rank, CHANNELS, 1, 1))
    if rank == 0:  # the other one is in no collective: whatever is not local hangs
        results["alone"] = local_steps(BatchNorm2d(CHANNELS))
    return results


def local_steps(layer):
    """A step of its own, a prediction, and the layer's state."""
    x = inputs("single precision", 0)[0][0]
    with alone():
        own = learned(filled(layer, torch.float32, 0.1), *inputs("single precision", 0)[0])
    return own, layer.eval()(x), layer.state_dict()


@pytest.fixture(scope="module")
def found():
    return on_ranks(all_cases)


def assert_close(left, right, dtype):
    assert left.shape == right.shape
    scale = right.double().abs().max().clamp(min=1e-3) if right.numel() else 1.0
    assert ((left.double() - right.double()).abs() <= CLOSE[dtype] * scale).all()


def as_one(parts):
    """(N, C, H, W) of several sizes as (1, C, cells, 1), which means the same to the layer."""
    return torch.cat([part.double().transpose(0, 1).flatten(1) for part in parts], dim=1)[None, ..., None]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(found, name):
    _, dtype, _, momentum = CASES[name]
    layer = filled(nn.BatchNorm2d(CHANNELS), torch.float64, momentum)
    for step in range(STEPS):
        x, grad = (as_one(parts) for parts in zip(*inputs(name, step)))
        layer.zero_grad()
        x.requires_grad_()
        out = layer(x)
        out.backward(grad)
        outs, of_x, states, of_layer = zip(*(found[rank][name][step] for rank in (0, 1)))
        assert_close(as_one(outs), out, dtype)
        assert_close(as_one(of_x), x.grad, dtype)
        # Each rank has its own pictures' share of these.
        for parts, whole in zip(zip(*of_layer), (layer.weight.grad, layer.bias.grad)):
            assert_close(sum(parts), whole, dtype)
        for key, value in layer.state_dict().items():
            assert torch.equal(states[0][key], states[1][key])
            assert_close(states[0][key], value, dtype)


def test_alone_and_in_prediction_a_rank_waits_for_nobody(found):
    own, predicted, state = found[0]["alone"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks have: sums over more threads are rounded otherwise
    try:
        expected_own, expected, expected_state = local_steps(nn.BatchNorm2d(CHANNELS))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close((own, predicted, state), (expected_own, expected, expected_state), rtol=0, atol=0)


def test_one_process_has_torchs_layer():
    layer = norm_layer("batch", 1e-3)(CHANNELS)
    expected = nn.BatchNorm2d(CHANNELS, 1e-3)
    assert isinstance(layer, BatchNorm2d) and layer.eps == 1e-3
    assert layer.state_dict().keys() == expected.state_dict().keys()
    x, grad = inputs("single precision", 0)[0]
    for found, wanted in zip(learned(layer, x, grad), learned(expected, x, grad)):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.ones(1, CHANNELS, 1, 1))


def test_one_process_compiles_to_one_graph():
    layer = filled(BatchNorm2d(CHANNELS), torch.float32, 0.1)
    x, grad = inputs("single precision", 0)[0]
    expected = learned(filled(BatchNorm2d(CHANNELS), torch.float32, 0.1), x, grad)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x.requires_grad_()
    out = compiled(x)
    out.backward(grad)
    found = out.detach(), x.grad, layer.state_dict(), (layer.weight.grad, layer.bias.grad)
    torch.testing.assert_close(found, expected)
