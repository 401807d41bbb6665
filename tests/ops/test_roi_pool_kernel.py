"""RoIPool's Triton kernels: interpreted against torchvision, compiled for GPUs that need not be there, and run on one.

Triton decides when a kernel is defined whether to interpret it. Those tests therefore run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torchvision.ops import roi_pool
from triton_interpreter import interpreter_works

from tracesight.ops import roi_pool as module
from tracesight.ops.pyramid import feature_table, region_levels
from tracesight.ops.roi_pool import multilevel_roi_pool

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in a process that interprets kernels")
no_gpu = pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a GPU")
STRIDES = (4, 8)
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def example(dtype, count=14, channels=3, size=48):
    """Two levels of two pictures, with equal values, NaN and infinity among them, and boxes of all kinds."""
    torch.manual_seed(0)
    features = [torch.randn(2, channels, size // s, size // s).round(decimals=1).to(dtype) for s in STRIDES]
    features[0][0, 0], features[0][1, 1, 3], features[1][0, 1, ::2] = torch.nan, -torch.inf, torch.nan
    features = [feature.to(memory_format=torch.channels_last).requires_grad_() for feature in features]
    centre, side = torch.rand(count, 2) * size, 2 ** (torch.rand(count, 2) * 7.5)
    boxes = torch.cat((centre - side / 2, centre + side / 2), 1)
    boxes[count // 2 :] = (boxes[count // 2 :] / 2).round() * 2
    boxes[0, 2:], boxes[1], boxes[2, 0], boxes[3] = boxes[0, :2], boxes[1] + 1000, torch.nan, boxes[3, [2, 3, 0, 1]]
    boxes[4] = torch.tensor([0.0, 0.0, 400.0, 400.0])
    return features, boxes, torch.randint(0, 2, (count,))


def theirs(features, boxes, picture, size):
    """torchvision's operator on each level in at least float32; zeros for boxes that are not finite."""
    dtype = torch.float64 if features[0].dtype == torch.float64 else torch.float32
    finite = boxes.isfinite().all(1)
    boxes = boxes.masked_fill(~finite[:, None], 0).to(dtype)
    rois, level = torch.cat((picture[:, None].to(dtype), boxes), 1), region_levels(boxes, STRIDES)[0]
    pooled = [
        roi_pool(f.to(dtype), rois, size, 1 / s) * (level == i)[:, None, None, None]
        for i, (f, s) in enumerate(zip(features, STRIDES))
    ]
    return (sum(pooled) * finite[:, None, None, None]).to(features[0].dtype)


@pytest.fixture
def kernel(monkeypatch):
    """Makes the function take its kernel on the CPU too."""
    monkeypatch.setattr(module, "may_read", lambda tensor: False)
    monkeypatch.setattr(module, "_has_kernel", lambda device: True)


@pytest.mark.long  # what the kernel computes on a GPU is compared there; this changes only with the kernel
@pytest.mark.skipif(INTERPRETED, reason="starts that process")
def test_interpreted_kernels():
    if not interpreter_works():
        pytest.skip("Triton's interpreter does not run here: numpy is too new for it")
    command = [sys.executable, "-m", "pytest", "-k", "interpreted_as", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout, done.stdout


@interpreted
@pytest.mark.parametrize("dtype", DTYPES)
def test_interpreted_as_torchvision(kernel, dtype):
    features, boxes, picture = example(dtype)
    ours = multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=3)
    expected = theirs(features, boxes, picture, 3)
    assert torch.equal(ours, expected)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    cotangent = torch.randn_like(expected)
    our_grads = torch.autograd.grad(ours, features, cotangent)
    for our, their in zip(our_grads, torch.autograd.grad(expected, features, cotangent)):
        assert torch.equal(our, their)
    with torch.no_grad():
        assert torch.equal(
            multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=3), expected
        )


@interpreted
def test_interpreted_as_eager_when_compiled(kernel):
    features, boxes, picture = example(torch.float32)

    def pool(features, boxes, picture):
        return multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=2)

    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    ours, expected = compiled(features, boxes, picture), theirs(features, boxes, picture, 2)
    assert torch.equal(ours, expected)
    our_grads = torch.autograd.grad(ours.sum(), features)
    for our, their in zip(our_grads, torch.autograd.grad(expected.sum(), features)):
        assert torch.equal(our, their)


@interpreted
def test_interpreted_as_repeatable_sums(kernel):
    features, boxes, picture = example(torch.float32)
    pooled = multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=2)
    expected = torch.autograd.grad(pooled.sum(), features, retain_graph=True)
    torch.use_deterministic_algorithms(True)
    try:
        ours = torch.autograd.grad(pooled.sum(), features)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(our, their) for our, their in zip(ours, expected))


@interpreted
def test_interpreted_as_nothing_for_nothing(kernel):
    features, boxes, picture = example(torch.float32)
    none = multilevel_roi_pool(feature_table(features), boxes[:0], picture[:0], STRIDES, output_size=3)
    assert none.shape == (0, 3, 3, 3)
    assert all(grad.eq(0).all() for grad in torch.autograd.grad(none.sum(), features))
    operator = torch.ops.tracesight.roi_pool
    places = (torch.tensor([20, 10]), torch.tensor([20, 10]), torch.tensor([0, 800]))
    rows = torch.randn(1000, 5, requires_grad=True)
    inputs = (rows, boxes[5:8] / 4, picture[5:8], picture[:3] * 0, *places, 2, True)
    torch.library.opcheck(operator, inputs)


@pytest.mark.skipif(INTERPRETED, reason="interpreted kernels cannot be compiled")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("value", "number"), [("fp32", "fp32"), ("fp64", "fp64"), ("bf16", "fp32")])
def test_kernels_compile_for_gpus(capability, value, number, tmp_path, monkeypatch):
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tracesight.ops.kernels import roi_pool as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    places = dict.fromkeys(("picture", "level", "height", "width", "base"), "*i64")
    greatest = {"rows": f"*{value}", "corners": f"*{number}", **places, "values": f"*{value}", "chosen": "*i32"}
    spread = {"grad": f"*{value}", "chosen": "*i32", "gradient": f"*{number}"}
    target = GPUTarget("cuda", capability, 32)
    for kernel, pointers, settings in (
        (kernels._greatest, greatest, {"P": 7, "CHOOSE": True}),
        (kernels._greatest, greatest, {"P": 7, "CHOOSE": False}),
        (kernels._spread, spread, {}),
    ):
        # Sizes of 1 become constants.
        for sizes in ({"count": "i32", "channels": "i32"}, {"count": 1, "channels": 1}):
            fixed = {**settings, "BLOCK": 256, **{name: 1 for name in sizes if sizes[name] == 1}}
            names = {**pointers, **sizes, **dict.fromkeys(fixed, "constexpr")}
            source = ASTSource(fn=kernel, signature={n: names[n] for n in kernel.arg_names}, constexprs=fixed)
            assert build(source, target=target, options={"enable_fp_fusion": False}).asm["cubin"]


def moved(features, *others):
    there = [feature.detach().cuda().requires_grad_() for feature in features]
    return there, *(other.cuda() for other in others)


@pytest.mark.gpu
@no_gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gpu_equals_torchvision(dtype, compiled):
    features, boxes, picture = example(dtype, count=500, channels=300, size=320)
    there = moved(features, boxes, picture)

    def pool(features, boxes, picture):
        return multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=7)

    ours = (torch.compile(pool, fullgraph=True) if compiled else pool)(*there)
    expected = theirs(features, boxes, picture, 7)
    assert torch.equal(ours.cpu(), expected)
    assert torch.equal(ours.cpu(), theirs(*there, 7).cpu())
    cotangent = torch.randn_like(expected)
    our_grads = torch.autograd.grad(ours, there[0], cotangent.cuda())
    limit = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.05}[dtype]
    for our, their in zip(our_grads, torch.autograd.grad(expected, features, cotangent)):
        # Added up in any order.
        assert torch.allclose(our.cpu(), their, atol=limit, rtol=limit)


@pytest.mark.gpu
@no_gpu
def test_gpu_is_told_nothing_by_the_host_and_repeats_itself_if_asked():
    features, boxes, picture = example(torch.float32, count=500, channels=64, size=320)
    there = moved(features, boxes, picture)
    multilevel_roi_pool(feature_table(there[0]), *there[1:], STRIDES, output_size=7).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pooled = multilevel_roi_pool(feature_table(there[0]), *there[1:], STRIDES, output_size=7)
        torch.autograd.grad(pooled.sum(), there[0], retain_graph=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    cotangent = torch.randn_like(pooled)
    torch.use_deterministic_algorithms(True)
    try:
        once, again = (torch.autograd.grad(pooled, there[0], cotangent, retain_graph=True) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(once, again))


@pytest.mark.gpu
@no_gpu
def test_gpu_counts_in_64_bits():
    # 2^31 values and a few more; the last rows can only be reached by an offset of more than 32 bits.
    channels, side = 4096, 725
    feature = torch.zeros(1, channels, side, side, dtype=torch.bfloat16, device="cuda")
    feature = feature.contiguous(memory_format=torch.channels_last)
    feature[:, :, -1, -1] = 3.0
    boxes = torch.tensor([[float(side - 2)] * 2 + [float(side)] * 2], device="cuda")
    picture = torch.zeros(1, dtype=torch.int64, device="cuda")
    assert multilevel_roi_pool(feature_table([feature]), boxes, picture, (1,), output_size=1).eq(3).all()
