from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from launched import ended, together

from tracesight.errors import PartialFailure, UserError
from tracesight.training import ranks as module
from tracesight.training.ranks import ALONE, Ranks, gathered, greatest, joined, of_first, ranks_here, share

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

SHARING = """
import json
import sys
import torch.distributed as dist
from tracesight.training.ranks import gathered, greatest, joined, of_first, share
with joined("cpu") as (ranks, device):
    calls = []
    done = of_first(ranks, lambda: calls.append("work") or {"made": 3})
    found = [list(ranks), ranks.first, str(device), share(ranks, f"of {ranks.rank}"), gathered(ranks, ranks.rank * 10),
             greatest(ranks, [ranks.rank, -ranks.rank, 5]), done, calls]
sys.stdout.write(json.dumps(found) + "\\n")  # one write: print makes two, and processes share the pipe
assert not dist.is_initialized()
"""

FAILING = """
import sys
from tracesight.errors import Interrupted, UserError
from tracesight.training.liveness import ElsewhereError
from tracesight.training.ranks import joined, of_first
def fail():
    raise {error}
try:
    with joined("cpu") as (ranks, device):
        of_first(ranks, {work})
except ElsewhereError as error:
    print("elsewhere:", error)
    sys.exit(1)
except BaseException as error:
    print("here:", type(error).__name__, error)
    sys.exit(2)
"""


@pytest.fixture
def without_torchrun(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_one_process_needs_no_group(without_torchrun):
    with joined("cpu") as (ranks, device):
        assert ranks == ALONE == Ranks(0, 1, 0) and ranks.first and device == torch.device("cpu")
        assert not dist.is_initialized()
        marker = object()
        assert share(ranks, marker) is marker and gathered(ranks, marker) == [marker]
        assert greatest(ranks, (3, -1)) == [3, -1] and of_first(ranks, lambda: marker) is marker
        with pytest.raises(UserError, match="itself"):
            of_first(ranks, lambda: (_ for _ in ()).throw(UserError("itself")))


def test_one_process_under_torchrun_is_alone(without_torchrun, monkeypatch):
    for name, value in zip(VARIABLES, ("0", "0", "1", "1", "127.0.0.1", "1")):
        monkeypatch.setenv(name, value)
    with joined("cpu") as (ranks, _):
        assert ranks == ALONE and not dist.is_initialized()
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setenv("RANK", "5")
    assert ranks_here() == Ranks(5, 6, 0) and not ranks_here().first


def test_three_processes_share():
    found = []
    for rank, (status, output, errors) in enumerate(ended(together(SHARING, 3))):
        assert (status, errors) == (0, ""), errors
        found.append(json.loads(output))
        assert found[-1] == [
            [rank, 3, rank], rank == 0, "cpu", "of 0", [0, 10, 20] if rank == 0 else None, [2, 0, 5], {"made": 3},
            ["work"] if rank == 0 else [],
        ]  # fmt: skip


def test_torchrun_starts_it(tmp_path: Path):
    script = tmp_path / "sharing.py"
    script.write_text(SHARING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert run.returncode == 0, run.stderr
    assert sorted(json.loads(line)[0] for line in run.stdout.splitlines()) == [[0, 2, 0], [1, 2, 1]]
    assert "error" not in run.stderr


@pytest.mark.parametrize(
    ("error", "work", "here", "elsewhere"),
    [
        ("UserError('no such\\nfolder')", "fail", "UserError no such\nfolder", "no such folder"),
        ("Interrupted(15)", "fail", "Interrupted interrupted", "Interrupted: interrupted"),
        ("0", "lambda: lambda: 0", "", "pickle"),  # what is returned cannot travel
    ],
)
def test_a_failure_of_the_first_ends_all_and_is_told_once(error, work, here, elsewhere):
    first, *others = ended(together(FAILING.format(error=error, work=work), 2))
    assert first[0] == 2 and first[1].startswith(f"here: {here}"), first
    for status, output, errors in others:
        assert status == 1 and output.startswith("elsewhere: rank 0 has stopped: ") and elsewhere in output
        assert errors == ""


def test_more_ranks_than_gpus_are_refused_before_anything_is_joined(without_torchrun, monkeypatch):
    for name, value in zip(VARIABLES, ("1", "1", "2", "2", "127.0.0.1", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("auto", "cuda"):
        with pytest.raises(UserError, match=r"2 processes on this host and 1 GPU: .*--nproc-per-node 1"), joined(name):
            pass
    with pytest.raises(UserError, match="device=cuda:0 is one GPU"), joined("cuda:0"):
        pass
    assert not dist.is_initialized()


def test_a_store_that_nobody_holds_is_named(without_torchrun, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = str(nobody.getsockname()[1])
        for name, value in zip(VARIABLES, ("1", "1", "2", "2", "127.0.0.1", port)):
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(module, "_TO_FIND_EACH_OTHER", timedelta(seconds=1))
        with pytest.raises(PartialFailure, match=f"rank 1 cannot reach the others at 127.0.0.1:{port}"), joined("cpu"):
            pass
    assert not dist.is_initialized()
