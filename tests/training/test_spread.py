"""Two processes compute what one does: DDP and FSDP2, over gloo on the CPU."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracesight.data.trays import make_trays

WORKER = Path(__file__).with_name("spread_worker.py")


@pytest.fixture(scope="module")
def trays(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spread")
    make_trays(folder, pictures=8, seed=1, side=96)
    return folder


def losses(data: Path, ranks: int, **options) -> list[dict[str, float]]:
    """What the first rank printed: a row for each step, and the sum of the averaged weights."""
    return _losses(data, ranks, json.dumps(options))


@functools.cache
def _losses(data: Path, ranks: int, options: str) -> list[dict[str, float]]:
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*start, str(WORKER), str(data), options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("ROWS "))
    return json.loads(line.removeprefix("ROWS "))


@pytest.fixture(scope="module")
def one(trays):
    return losses(trays, 1)


@pytest.mark.parametrize(
    "how",
    [pytest.param("ddp", marks=pytest.mark.long), "fsdp"],  # models/test_ranks.py has DDP, and so has what moves
)
def test_two_processes_equal_one_in_double_precision(trays, one, how):
    two = losses(trays, 2, how=how)
    assert len(one) == len(two) == 21
    for alone, together in zip(one, two):
        assert together == pytest.approx(alone, rel=1e-6, abs=1e-9)


@pytest.mark.long  # models/test_ranks.py and models/test_sync_norm.py have it too
def test_batch_norm_takes_its_statistics_over_both(trays):
    alone, together = (losses(trays, ranks, norm="batch", until=5)[:-1] for ranks in (1, 2))
    for a, b in zip(alone, together):
        assert b == pytest.approx(a, rel=1e-6, abs=1e-9)


@pytest.mark.long  # in double precision every step is compared
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_the_first_step_in_single_precision(trays, how):
    alone, together = (
        losses(trays, 1, dtype="float32", until=1)[0],
        losses(trays, 2, dtype="float32", how=how, until=1)[0],
    )
    assert together == pytest.approx(alone, rel=1e-5)


def test_a_checkpoint_moves_from_shards_to_one_process_to_copies(trays, one, tmp_path):
    folder = str(tmp_path)
    rows = losses(trays, 2, how="fsdp", folder=folder, until=4)[:-1]
    rows += losses(trays, 1, folder=folder, until=8)[:-1]
    rows += losses(trays, 2, how="ddp", folder=folder, until=12)[:-1]
    assert len(rows) == 12
    for moved, stayed in zip(rows, one):
        assert moved == pytest.approx(stayed, rel=1e-6, abs=1e-9)


def test_a_batch_in_parts_counts_as_the_whole_batch_does(trays, one):
    """Objectness and regions are sampled by a fixed number a picture, so their means over parts are the mean of all."""
    whole, cut = one[0], losses(trays, 1, parts=2, until=1)[0]
    for name in ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"):
        assert cut[name] == pytest.approx(whole[name], rel=1e-6)
    # Masks are learned on positive regions, whose number differs from part to part.
    assert cut["loss_mask"] == pytest.approx(whole["loss_mask"], rel=0.05)
