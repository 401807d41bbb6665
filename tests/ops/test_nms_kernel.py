"""The GPU's kernels for NMS: interpreted on the CPU, compiled without a GPU, and run where there is one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from test_nms import LIMITS, awkward, chain, crowded
from triton_interpreter import interpreter_works

import tracesight.ops.nms as module
from tracesight.ops.kernels.available import triton_works
from tracesight.ops.kernels.nms_cpu import keep_sets
from tracesight.ops.nms import nms

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
gpus = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

# Triton decides when a kernel is defined whether it will be interpreted: in a process of its own.
INTERPRETED = """
import sys
import torch
from tracesight.ops.kernels.nms import keep_boxes

cases = torch.load(sys.argv[1])
torch.save([keep_boxes(*inputs) for inputs in cases], sys.argv[2])
"""


def sorted_rows(boxes, scores, group, valid):
    """What the kernels take: rows by falling score, what is not valid or not finite last and not live."""
    live = valid & boxes.isfinite().all(-1) & scores.isfinite()
    order = scores.masked_fill(~live, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    return boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4)), group.gather(1, order), live.gather(1, order)


def cases():
    """Boxes by falling score, their groups, which are live, and a limit."""
    found = []
    for seed, iou in enumerate(LIMITS):
        for inputs in (awkward(seed, 4, 40), crowded(seed, 1, 64 + seed, 1)):
            boxes, group, live = sorted_rows(*inputs)
            found.append((boxes, group, live, module._exact(iou, torch.float32)))
            found.append((boxes.double() / 3, group, live, iou))
    for inputs in (chain(1), chain(63), chain(200), crowded(7, 2, 150), crowded(8, 1, 600)):
        found.append((*sorted_rows(*inputs), 0.5))
    for shape in ((0, 5), (3, 0)):
        found.append((*sorted_rows(*crowded(0, *shape)), 0.5))
    return found


@needs_triton
def test_interpreted_kernels_keep_what_the_cpu_keeps(tmp_path):
    if not interpreter_works():
        pytest.skip("Triton's interpreter does not run here: numpy is too new for it")
    some = cases()
    torch.save(some, tmp_path / "cases")
    where = os.pathsep.join([str(Path(module.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED, tmp_path / "cases", tmp_path / "found"],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": where},
        check=True,
    )
    for inputs, found in zip(some, torch.load(tmp_path / "found"), strict=True):
        assert torch.equal(found, keep_sets(*inputs))


@needs_triton
@pytest.mark.parametrize("capability", (80, 90))
@pytest.mark.parametrize("dtype", ("fp32", "fp64"))
def test_kernels_compile_and_round_as_torchvision_does(monkeypatch, tmp_path, capability, dtype):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tracesight.ops.kernels import nms as kernels

    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("kernels are interpreted")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    overlaps = {"boxes": f"*{dtype}", "group": "*i64", "live": "*i1", "limit": f"*{dtype}", "words": "*i64"}
    walk = {"live": "*i1", "words": "*i64", "kept": "*i64", "keep": "*i1"}
    for kernel, signature in ((kernels._overlaps, overlaps), (kernels._walk, walk)):
        sizes = {name: getattr(kernels, name) for name in ("TILE", "TOGETHER") if name in kernel.arg_names}
        signature = {**signature, "count": "i32", **dict.fromkeys(sizes, "constexpr")}
        assert list(signature) == kernel.arg_names
        code = triton.compile(
            ASTSource(kernel, signature, sizes),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False},
        ).asm["ptx"]
        assert "fma" not in code
        assert "div.full" not in code
        # The cache for what is only read would not see what the kernel itself wrote.
        assert "ld.global.nc" not in code
        if kernel is kernels._overlaps:
            assert f"div.rn.f{dtype[2:]}" in code


def test_without_triton_the_fixpoint_takes_over(monkeypatch):
    triton_works.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not triton_works(torch.device("cuda:0"), module._try_kernel)
    triton_works.cache_clear()


@needs_triton
def test_triton_that_cannot_build_is_reported(monkeypatch):
    from tracesight.ops.kernels import nms as kernels

    def broken(*inputs):
        raise RuntimeError("no C compiler")

    triton_works.cache_clear()
    monkeypatch.setattr(kernels, "keep_boxes", broken)
    with pytest.warns(UserWarning, match="no C compiler"):
        assert not triton_works(torch.device("cpu"), module._try_kernel)
    triton_works.cache_clear()


def on_gpu(inputs):
    return tuple(value.cuda() for value in inputs)


class TestOnGpu:
    pytestmark = gpus

    @pytest.mark.parametrize("iou", LIMITS)
    def test_equals_the_cpu(self, iou):
        some = [awkward(0), awkward(1), crowded(0), crowded(1, 10, 2000), crowded(2, 1, 12_000, 1)]
        some += [chain(1000), crowded(0, 0, 5), crowded(0, 3, 0)]
        for boxes, scores, group, valid in some:
            for dtype in (torch.float32, torch.float64):
                inputs = boxes.to(dtype) / 3, scores, group, valid
                for found, wanted in zip(nms(*on_gpu(inputs), iou, 1000), nms(*inputs, iou, 1000)):
                    assert torch.equal(found.cpu(), wanted)

    def test_the_fixpoint_equals_the_kernels(self):
        for inputs in (awkward(0), crowded(1, 4, 1000), chain(300)):
            rows = on_gpu(sorted_rows(*inputs))
            assert torch.equal(module._fixpoint(*rows, 0.5, module._loop), module._keep(*rows, 0.5))

    def test_the_host_waits_for_nothing(self):
        inputs = on_gpu(crowded(0, 4, 2000))
        nms(*inputs, 0.5, 1000)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")  # a wait raises
        try:
            _, kept = nms(*inputs, 0.5, 1000)
            with pytest.raises(RuntimeError):
                kept.sum().item()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_a_cuda_graph_holds_it(self):
        inputs, others = on_gpu(crowded(0, 4, 2000)), on_gpu(crowded(1, 4, 2000))
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            nms(*inputs, 0.5, 1000)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = nms(*inputs, 0.5, 1000)
        for old, new in zip(inputs, others):
            old.copy_(new)
        graph.replay()
        for value, wanted in zip(found, nms(*others, 0.5, 1000)):
            assert torch.equal(value, wanted)

    @pytest.mark.parametrize("mode", (None, "reduce-overhead"))
    def test_compiled_equals_eager(self, mode):
        torch.compiler.reset()
        compiled = torch.compile(nms, fullgraph=True, mode=mode)
        for inputs in (crowded(0), crowded(0), crowded(1, 3, 700)):
            for found, wanted in zip(compiled(*on_gpu(inputs), 0.5, 50), nms(*inputs, 0.5, 50)):
                assert torch.equal(found.cpu(), wanted)
