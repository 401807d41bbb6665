"""A training over several processes: the same as in one, and gone at once when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gloo_ranks import on_ranks
from small_runs import checkpoints, command, course, python, reached, run, small, step_of, without_report

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_splits
from tracesight.training import validate
from tracesight.training.progress import Display
from tracesight.training.ranks import Ranks
from tracesight.training.run import Run

TORCHRUN = python("torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def one(trays, tmp_path_factory) -> Path:
    """Four steps in one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    with without_report():
        run(small(max_steps=4, validate_every=0), trays, out)
    return out


@pytest.mark.skipif(os.name == "nt", reason="torchrun there needs a torch with libuv")
def test_two_processes_train_as_one_does(one, trays, tmp_path):
    """Sharded; whole copies are those of the test in which one is killed."""
    config, out, logs = small(max_steps=4, validate_every=0, distributed="fsdp"), tmp_path / "run", tmp_path / "logs"
    split = [*TORCHRUN, "--redirects", "3", "--log-dir", str(logs), "-m", "tracesight"]
    arguments = command(config, trays, out, tmp_path / "keys.yaml")
    ended = subprocess.run([*split, *arguments, "--json"], capture_output=True, text=True, timeout=120)
    said = {path.relative_to(path.parents[1]).as_posix(): path.read_text() for path in logs.rglob("std*.log")}
    assert ended.returncode == 0, said
    metrics = json.loads((out / "metrics.json").read_text())
    assert json.loads(said["0/stdout.log"]) == metrics and "finished after 4 steps" in said["0/stderr.log"]
    assert said["1/stdout.log"] == "" and "step" not in said["1/stderr.log"], said
    alone, together = course(one), course(out)
    assert [row.keys() for row in alone] == [row.keys() for row in together]
    # The file has six digits, and what was rounded another way grows from step to step.
    for row, same, error in zip(alone, together, (2e-5, 1e-3, 5e-3, 5e-3, 5e-3)):
        assert row == pytest.approx(same, rel=error)


def test_each_picture_is_validated_once(trays):
    """Three pictures over two ranks, and one picture."""
    results = validated(0, 1, str(trays))
    assert results is not None
    assert [[image for image, _ in part] for part in results] == [[1, 1, 2, 2, 3, 3], [1, 1]]
    assert on_ranks(validated, 2, str(trays)) == [results, None]


def validated(rank: int, count: int, trays: str) -> list[list[tuple[int, float]]] | None:
    """Picture and score of each result of which the figures on all of val, and on its first picture, were made.

    None on all ranks but the first.
    """
    val, made = read_splits(Path(trays), 0)[1], []
    assert val is not None and len(val) == 3

    def found(bundle: Any, dataset: Dataset, *, progress: Any, **options: Any) -> list[dict[str, Any]]:
        # Two results a picture, with the same scores on all: then the order decides.
        return [{"image_id": record.id, "score": score} for record in dataset for score in (0.5, 0.4)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "dataset_results", found)
        figures = {"bbox": dict.fromkeys(validate.FIGURES, 0.0)}
        patch.setattr(validate, "evaluate", lambda results, *args, **options: made.append(results) or figures)
        patch.setattr(validate, "operating_threshold", lambda *args, **options: {"threshold": 0.5})
        patch.setattr(validate, "kinds_of", lambda model: ("bbox",))
        bundle: Any = SimpleNamespace(model=None, max_objects=10)
        keys, splits = SimpleNamespace(val_loss_pictures=0), SimpleNamespace(train_pictures={}, proposals=None)
        asked: Any = SimpleNamespace(ranks=Ranks(rank, count), device=None)
        for dataset in (val, val.subset(range(1))):
            validate.validate(bundle, keys, splits, dataset, lambda loaded: {}, asked, Display(quiet=True))
    return [[(row["image_id"], row["score"]) for row in results] for results in made] if made else None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_when_a_process_is_killed_all_end_and_one_alone_goes_on(one, trays, tmp_path, monkeypatch):
    config, out = small(max_steps=30, validate_every=0, checkpoint_every=3), tmp_path / "run"
    arguments = [*TORCHRUN, "-m", "tracesight", *command(config, trays, out, tmp_path / "keys.yaml")]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and reached(out) < 4:
            time.sleep(0.01)
        [killed] = [pid for pid, rank in processes(out).items() if rank == "1"]
        os.kill(killed, signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "rank 1 (host" in said and f"process {killed}) has gone at step" in said, said
    assert processes(out) == {}
    last = step_of(checkpoints(out)[-1])
    assert last == 3 or f"the state of step {last} is saved: go on with --resume" in said
    assert course(out)[0] == pytest.approx(course(one)[0], rel=2e-5)
    monkeypatch.setattr(Run, "over", property(lambda run: run.step > last))  # one step more is enough
    with without_report():
        metrics, resumed = run(config, trays, out, resume=True)
    assert f"resuming at step {last} of 30" in resumed and metrics["steps"] == last + 1


def processes(out: Path) -> dict[int, str]:
    """Process id → rank of those that run with this folder on their command line; torchrun itself has none."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(out).encode() in line.split(b"\0"):
            ranks = [text[5:].decode() for text in variables.split(b"\0") if text.startswith(b"RANK=")]
            found[int(folder.name)] = ranks[0] if ranks else ""
    return found
