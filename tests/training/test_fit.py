from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from tracesight.training import fit
from tracesight.training.fit import available, is_disk_full, is_out_of_memory, memory_used, suggestion

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a memory object"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0."),
    ],
)
def test_memory_that_is_exhausted_is_recognised(error):
    assert is_out_of_memory(error) and not is_disk_full(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_a_full_disk_is_recognised():
    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied")) and not is_disk_full(RuntimeError("full"))


@pytest.mark.skipif(sys.platform != "linux", reason="the system must keep the limit of the address space")
def test_what_torch_really_raises_is_recognised_and_the_limit_is_seen():
    program = """
        import resource, torch
        from tracesight.training import fit
        cpu = torch.device("cpu")
        layer = torch.nn.Conv2d(3, 64, 3)
        layer(torch.ones(1, 3, 8, 8)).sum().backward()
        resource.setrlimit(resource.RLIMIT_AS, (1 << 46, 1 << 46))
        limit = fit.memory_used(cpu) + (256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        assert fit.available(cpu) == limit and 0 < fit.memory_used(cpu) < limit
        def network():
            for side in range(256, 4096, 256):
                layer(torch.ones(1, 3, side, side)).sum().backward()
        for run in (lambda: torch.empty(1 << 40), network, lambda: bytes(1 << 40)):
            try:
                run()
            except BaseException as error:
                assert fit.is_out_of_memory(error), repr(error)
            else:
                raise SystemExit("nothing was raised")
        print("all three")
    """
    command, environment = [sys.executable, "-c", textwrap.dedent(program)], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "all three", done.stderr


def advice(**changed):
    # Four pictures of 100 × 100.
    return suggestion(**{"pictures": 4, "pixels": 40_000, "parts": 1, "image_size": 800, **changed})


def test_without_an_estimate_parts_become_half_as_large():
    assert (
        advice()
        == "--resume accumulate=2 cuts each batch into 2 parts of at most 2 pictures and learns nearly the same"
    )
    assert "accumulate=8 cuts each batch into 8 parts of at most 2 pictures" in advice(parts=4)
    # Five pictures in parts of 2 and 3, and that of 2 did not fit.
    assert "accumulate=5 cuts each batch into 5 parts of one picture" in advice(pictures=2, parts=2, batch=5)


def test_the_estimate_gives_the_fewest_parts_that_fit():
    # 10 000 pixels needed 1 GB of 3.5 GB: 0.9 × 35 000 = 31 500 pixels are 3 pictures; 4 in parts of 3 are 2 parts.
    assert "accumulate=2 " in advice(fitted=(10_000, 1e9), available=3.5e9)
    # 12 pictures in 3 parts of 4; 22 500 pixels are 2 pictures.
    assert "accumulate=6 cuts each batch into 6 parts of at most 2" in advice(
        parts=3, fitted=(10_000, 1e9), available=2.5e9
    )
    # 1.2 × 0.9 × 10 000 pixels are 1 picture.
    assert "accumulate=4 cuts each batch into 4 parts of one picture" in advice(fitted=(10_000, 1e9), available=1.2e9)
    # What did fit fits again, whatever the estimate says.
    assert "accumulate=2 " in advice(fitted=(20_000, 1e9), available=1e9)
    assert "accumulate=2 " in advice(fitted=(20_000, 1e9))
    # By the estimate less than one picture would fit; parts of one are tried before pictures become smaller.
    assert "accumulate=4 " in advice(fitted=(5_000, 1e9), available=1e9)
    # What failed should have fitted: the estimate is no use.
    assert "accumulate=2 " in advice(fitted=(10_000, 1e9), available=1e12)


def test_one_picture_must_become_smaller():
    one = {"pictures": 1, "pixels": 1_000_000, "parts": 4}
    # Half the pixels: 800 × √½ = 565.7, rounded down to a multiple of 32.
    assert advice(**one) == (
        "parts are of one picture already: begin a new run in another --out with image_size=544 (max_size in "
        "proportion), or crop_size=544 to learn from pieces; --init takes over this run's best or last"
    )
    # 500 000 pixels needed 2 GB of 3.2 GB: 720 000 pixels, 800 × √0.72 = 678.8.
    assert "image_size=672 " in advice(**one, fitted=(500_000, 2e9), available=3.2e9)
    assert "with crop_size=352; --init" in advice(**one, crop_size=512)
    # Never the same again, however little is missing.
    assert "image_size=768 " in advice(**one, fitted=(999_999, 2e9), available=2e9)
    assert "image_size=96 " in advice(**one, fitted=(999_999, 2e9), available=2e9, image_size=100)
    assert "choose a smaller model" in advice(**one, image_size=32)


def test_memory_of_this_machine():
    used, most = memory_used(CPU), available(CPU)
    if sys.platform != "win32":
        assert used is not None and most is not None and 10 << 20 < used < most
    assert memory_used(torch.device("meta")) is None and available(torch.device("meta")) is None


def test_limits_of_control_groups(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "self"
    (root / "a" / "b").mkdir(parents=True)
    (root / "memory" / "c").mkdir(parents=True)
    (root / "memory.max").write_text("9000\n")
    (root / "a" / "memory.max").write_text("4000\n")
    (root / "a" / "b" / "memory.max").write_text("max\n")
    (root / "memory" / "c" / "memory.limit_in_bytes").write_text("7000\n")
    membership.write_text("0::/a/b\n")
    assert fit._group_limits(membership, root) == [4000, 9000]
    membership.write_text("3:cpu,memory:/c\n2:devices:/\n")
    assert fit._group_limits(membership, root) == [7000]
    assert fit._group_limits(tmp_path / "none", root) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_of_a_gpu():
    device = torch.device("cuda")
    before = memory_used(device)
    block = torch.empty(64 << 20, dtype=torch.uint8, device=device)
    assert memory_used(device) >= block.nbytes and memory_used(device) >= before
    total = torch.cuda.mem_get_info(device)[1]
    assert block.nbytes < available(device) <= total
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(2 * total, dtype=torch.uint8, device=device)
    assert is_out_of_memory(caught.value)
