"""Does a training that is killed lose anything? `kill -9` again and again, resumed each time, weights compared.

A small Mask R-CNN learns trays, with gradient accumulation and averaged weights, once undisturbed and once killed at
random instants after its first checkpoint: every other time anywhere, every other time while a checkpoint is being
written. In the end the bundles `last/` and `best/` and everything that the last checkpoint holds must be bit for bit
the same, and each resumed process must have begun above step 0 and within one checkpoint interval of where the one
before was killed. Exit status 1 if not.

    python benchmarks/kills.py                       20 kills, with 0 and with 2 workers
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

EVERY = 5  # steps between checkpoints
KEYS = {
    "model": "mask_rcnn_resnet18_fpn",
    "model_args": {
        "fpn_channels": 32, "box_channels": 64, "mask_channels": 32,
        "anchor_sizes": [[12], [24], [48], [96], [144]],
        "rpn": {"pre_nms_train": 100, "post_nms_train": 50, "pre_nms_test": 100, "post_nms_test": 50},
        "roi": {"batch": 32},
    },
    "max_objects": 20, "batch_size": 4, "accumulate": 2, "ema": 0.9, "optimiser": "adamw", "lr": 1e-3,
    "warmup_steps": 5, "clip_norm": 5.0, "image_size": 96, "colour": 0.2, "vertical_flip": True, "val_loss_pictures": 2,
    "checkpoint_every": EVERY, "keep_checkpoints": 2, "samples": 0, "precision": "fp32", "patience": 1000,
}  # fmt: skip


@dataclass
class Trial:
    """What came of one training that was killed again and again."""

    workers: int
    kills: int = 0
    while_writing: int = 0
    starts: list[tuple[int, int]] = field(default_factory=list)  # (step it was killed at, step it went on from)
    different: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Nothing differs, and every life began close to the end of the one before."""
        near = all(start > 0 and start <= killed + 1 <= start + EVERY + 1 for killed, start in self.starts)
        return near and not self.different


def trial(folder: Path, *, workers: int, kills: int, steps: int, seed: int = 0) -> Trial:
    """Kill and resume a training of `steps` steps `kills` times in `folder` and compare it with one left in peace."""
    from tracesight.data.trays import make_trays

    data, killed, peace = folder / "data", folder / f"killed-{workers}", folder / "peace"
    if not data.exists():
        make_trays(data / "train", pictures=16, seed=1, side=96)
        make_trays(data / "val", pictures=3, seed=2, side=96)
    keys = folder / "keys.yaml"
    keys.write_text(json.dumps({**KEYS, "max_steps": steps, "validate_every": max(1, steps // 2)}))
    command = [sys.executable, "-m", "tracesight", "train", "--task", "segment", str(data), "--config", str(keys)]
    if not (peace / "metrics.json").exists():
        subprocess.run([*command, "--out", str(peace), "workers=0"], check=True, capture_output=True)
    out, random = Trial(workers), np.random.default_rng(seed)
    command += ["--out", str(killed), "--resume", f"workers={workers}"]
    while out.kills < kills:
        log, reached = _life(command, killed, random, writing=out.kills % 2 == 1)
        _note_start(out, log)
        if reached is None:
            break
        out.kills += 1
        out.while_writing += any((killed / "checkpoints").glob("*.tmp"))
        out.starts.append((reached, -1))
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    _note_start(out, ended.stderr)
    out.different = differences(peace, killed)
    return out


def _life(command: list[str], out: Path, random: np.random.Generator, *, writing: bool) -> tuple[str, int | None]:
    """Start the training and kill it: its log and the steps it had made, None if it came to its end."""
    log = out.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        before, more = _rows(out), int(random.integers(1, 2 * EVERY))
        while process.poll() is None and (_rows(out) < before + more or not _checkpoints(out)):
            time.sleep(0.005)
        if writing:  # wait for the next checkpoint to be begun
            while process.poll() is None and not any((out / "checkpoints").glob("*.tmp")):
                time.sleep(0.0005)
        else:
            time.sleep(float(random.uniform(0, 0.3)))
        process.kill()
        ended = process.wait() == 0
    return log.read_text(), None if ended else _rows(out)


def _rows(out: Path) -> int:
    """The step of the last whole line of the history."""
    try:
        lines = (out / "history.csv").read_text().split("\n")[1:-1]
    except FileNotFoundError:
        return 0
    return int(lines[-1].split(",")[0]) if lines else 0


def _checkpoints(out: Path) -> list[Path]:
    return list((out / "checkpoints").glob("*.pt"))


def _note_start(out: Trial, log: str) -> None:
    if out.starts and out.starts[-1][1] == -1:
        found = re.search(r"resuming at step (\d+)", log)
        out.starts[-1] = (out.starts[-1][0], int(found[1]) if found else 0)


def differences(one: Path, other: Path) -> list[str]:
    """Names of what differs between two finished runs: bundles' tensors and the state in the newest checkpoint."""
    from safetensors.torch import load_file

    from tracesight.training.checkpoint import load_newest

    found = []
    for bundle in ("last", "best"):
        old, new = (load_file(out / bundle / "model.safetensors") for out in (one, other))
        found += [f"{bundle}/{name}" for name in _unequal(old, new)]
    old, new = (load_newest(out / "checkpoints").state for out in (one, other))
    # How long it took and with how many workers is another matter.
    for state in (old, new):
        assert state is not None
        state.pop("seconds")
        state["identity"]["config"].pop("workers")
    return found + [f"checkpoint/{name}" for name in _unequal(old, new)]


def _unequal(old: Any, new: Any) -> list[str]:
    """Dotted names of the leaves that are not the same."""
    import torch

    if isinstance(old, list | tuple) and isinstance(new, list | tuple):  # what is read back has lists for tuples
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        names = old.keys() | new.keys()
        parts = {name: _unequal(old[name], new[name]) if name in old and name in new else [""] for name in names}
        return [f"{name}.{rest}" if rest else str(name) for name, found in parts.items() for rest in found]
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        return [] if old.dtype == new.dtype and torch.equal(old, new) else [""]
    return [] if old == new else [""]


def main() -> bool:
    """Whether every trial held."""
    from figures import machine, row, show, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    import torch

    facts = machine(torch.get_num_threads())
    show(facts)
    rows: dict[str, Any] = {}
    widths = (9, 7, 22, 30, 22)
    row(("workers", "kills", "of them while writing", "steps lost, least–most (mean)", "what differs"), widths)
    held = True
    with tempfile.TemporaryDirectory() as folder:
        for workers in arguments.workers:
            out = trial(
                Path(folder), workers=workers, kills=arguments.kills, steps=arguments.steps, seed=arguments.seed
            )
            lost = [killed - start for killed, start in out.starts]
            said = f"{min(lost)}–{max(lost)} ({sum(lost) / len(lost):.1f})"
            row((workers, out.kills, out.while_writing, said, ", ".join(out.different[:3]) or "nothing"), widths)
            print("          killed at → resumed at: " + ", ".join(f"{a}→{b}" for a, b in out.starts), flush=True)
            rows[str(workers)] = {"kills": out.kills, "starts": out.starts, "different": out.different}
            held = held and out.held and out.kills == arguments.kills
    print("every run ended with the weights of the one left in peace" if held else "NOT HELD")
    write(arguments.json, facts, rows)
    return held


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
