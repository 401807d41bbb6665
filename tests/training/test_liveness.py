from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launched import ended, together

from tracesight.training import liveness
from tracesight.training.liveness import blame, mark, patient

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

# A run of all_reduces: rank 1 says what it does at step 3, the others go on until somebody ends them.
RUN = """
import ctypes, os, signal, sys, time
import torch, torch.distributed as dist
from tracesight.training import liveness
from tracesight.training.ranks import joined

signal.signal(signal.SIGTERM, lambda *_: None)  # a run only notes it, and stops at the end of its step

def hold_the_interpreter(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))

{settings}
try:
    with joined("cpu") as (ranks, _):
        for step in range({steps}):
            liveness.mark(step)
            if step == 3 and ranks.rank == {rank}:
                print("pid", os.getpid(), flush=True)
                {action}
            dist.all_reduce(torch.ones(4))
            time.sleep(0.05)
        {finish}
except liveness.ElsewhereError as error:
    print("elsewhere:", error, flush=True)
    sys.exit(1)
print("well")
"""

# Short times; "from afar" means that no process sees whether another one is there.
QUICK = """
import functools, tracesight.training.ranks as ranks_module
ranks_module.watching = functools.partial(liveness.watching, interval=0.25, quiet={quiet}, grace=2.0)
"""
FROM_AFAR = "liveness._place = lambda: ''\n"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def script_of(action: str, *, settings: str = "", rank: int = 1, steps: int = 10**9, finish: str = "pass") -> str:
    return RUN.format(action=action, settings=settings, rank=rank, steps=steps, finish=finish)


def gone(pid: int) -> bool:
    """Whether the process ends soon."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def under_torchrun(script: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def pids(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout is not None
    found: list[int] = []
    while len(found) < count:
        line = process.stdout.readline()
        assert line, process.communicate()
        found += [int(line.split()[1])] if line.startswith("pid") else []
    return found


def test_killed_rank_is_named_under_torchrun(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(script_of(KILL).replace("for step", "print('pid', os.getpid(), flush=True)\n        for step"))
    process = under_torchrun(script)
    workers = pids(process, 2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.fullmatch(
        rf"error: rank 1 \(host {re.escape(socket.gethostname())}, process ({workers[0]}|{workers[1]})\) has gone "
        r"at step [0-3]; this is rank 0, stopping: the last checkpoint is what --resume goes on from",
        lines[0],
    )
    assert all(gone(worker) for worker in workers)


def test_the_loss_of_torchrun_itself_ends_its_processes(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        script_of("pass", settings=QUICK.format(quiet=20)).replace(
            "for step", "print('pid', os.getpid(), flush=True)\n        for step"
        )
    )
    process = under_torchrun(script)
    workers = pids(process, 2)
    process.kill()
    try:
        _, errors = process.communicate(timeout=60)
        assert errors.count("error: torchrun, which holds the store at ") == 2
        assert all(gone(worker) for worker in workers)
    finally:
        for worker in workers:
            if not gone(worker):
                os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize(
    ("settings", "said"),
    [(QUICK.format(quiet=20), ""), (QUICK.format(quiet=8) + FROM_AFAR, r" \(nothing heard of it for \d+ s\)")],
    ids=["same host", "from afar"],
)
def test_all_others_name_the_one_that_was_killed(settings, said):
    found = ended(together(script_of(KILL, settings=settings), 3))
    assert found[1][0] == -signal.SIGKILL
    for rank in (0, 2):
        status, output, errors = found[rank]
        cause = rf"rank 1 \(host .+, process \d+\) has gone at step [0-3]{said}"
        assert status == 1 and re.search(rf"^error: {cause}; this is rank {rank}, stopping: ", errors, re.M), errors
        assert re.fullmatch(rf"elsewhere: {cause}\n", output), output  # the collective failed, and this is why


def test_rank_whose_collective_never_returns_is_ended():
    """A rank that stands still keeps its connections open; seen from afar it is dead all the same."""
    settings = QUICK.format(quiet=2) + FROM_AFAR
    processes = together(script_of("os.kill(os.getpid(), signal.SIGSTOP)", settings=settings), 2)
    try:
        output, errors = processes[0].communicate(timeout=60)
        assert processes[0].returncode == 1 and output == ""  # it did not get out of the collective
        assert re.search(r"^error: rank 1 .* has gone at step [0-3] \(nothing heard", errors, re.M)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_the_loss_of_the_rank_that_holds_the_store_is_named():
    first, second = ended(together(script_of(KILL, rank=0, settings=QUICK.format(quiet=8) + FROM_AFAR), 2))
    assert first[0] == -signal.SIGKILL and second[0] == 1
    assert re.search(r"^error: rank 0 \(host .+\) has gone at step [0-3] \(the store that it held", second[2], re.M)


def test_last_words_say_why_a_rank_has_stopped():
    first, second = ended(together(script_of("raise ValueError('bad\\nluck')", settings=QUICK.format(quiet=20)), 2))
    assert second[0] == 1 and "Traceback" in second[2] and "error: " not in second[2].lower().split("valueerror")[0]
    assert first[0] == 1 and "Traceback" not in first[2]
    assert re.search(r"^error: rank 1 .+ has stopped at step 3: ValueError: bad luck; this is rank 0", first[2], re.M)


@pytest.mark.parametrize("late", [0, 1])
def test_rank_that_ends_well_is_not_missed(late):
    finish = f"time.sleep(3 if ranks.rank == {late} else 0)"
    for status, output, errors in ended(
        together(script_of("pass", settings=QUICK.format(quiet=8), steps=5, finish=finish), 2)
    ):
        assert (status, errors) == (0, "") and output.endswith("well\n")


@pytest.mark.parametrize(
    ("settings", "action", "missed"),
    [
        ("", "hold_the_interpreter(6)", False),  # its process is there
        (FROM_AFAR, "hold_the_interpreter(6)", True),
        (FROM_AFAR, "\n                with liveness.patient(): hold_the_interpreter(6)", False),
    ],
    ids=["same host", "from afar", "announced"],
)
def test_rank_that_cannot_beat_while_it_is_busy(settings, action, missed):
    settings = QUICK.format(quiet=2) + settings
    found = ended(together(script_of(action, settings=settings, steps=8), 2))
    assert ("rank 1" in found[0][2]) == missed
    assert (found[0][0] == 0) == (not missed)


def test_without_others_nothing_is_watched():
    mark(7)
    assert blame(timeout=0) is None
    with patient():
        pass
    mark(None)


def test_only_failures_of_connections_are_blamed_on_others():
    assert liveness._is_of_connection(RuntimeError("[/third_party/gloo/transport/tcp/pair.cc:5] Connection closed"))
    assert liveness._is_of_connection(torch.distributed.DistNetworkError("no route"))
    assert not liveness._is_of_connection(RuntimeError("shape mismatch"))
    assert not liveness._is_of_connection(ValueError("gloo"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_process_that_is_dead_and_not_buried_is_not_there():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert liveness._birth(process.pid) is not None and liveness._place()
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert liveness._birth(process.pid) is None
    process.communicate()
    assert liveness._birth(process.pid) is None
