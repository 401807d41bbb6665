"""Trainings as small as they can be, and whether two of them came to the same: for tests of what a run survives."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kills import differences
from PIL import Image

from tracesight.recipes import around, detect
from tracesight.recipes.detect import Config
from tracesight.training.history import read_history

# Six steps of two pictures on one thread of the CPU; validation after 3 and 6, checkpoints of 2, 4 and 6 are kept.
SMALL: dict[str, Any] = {
    "model": "faster_rcnn_resnet18_fpn",
    "model_args": {
        "fpn_channels": 16, "box_channels": 32, "anchor_sizes": [[8], [16], [32], [64], [96]],
        "rpn": {"pre_nms_train": 50, "post_nms_train": 30, "pre_nms_test": 50, "post_nms_test": 20},
        "roi": {"batch": 16},
    },
    "max_objects": 10, "max_steps": 6, "batch_size": 2, "lr": 0.01, "warmup_steps": 2, "image_size": 96,
    "validate_every": 3, "val_loss_pictures": 1, "checkpoint_every": 2, "keep_checkpoints": 3, "samples": 0,
    "precision": "fp32", "device": "cpu", "workers": 0, "threads": 1,
}  # fmt: skip


def small(**changed: Any) -> Config:
    """The keys above, some of them changed."""
    return Config(**{**SMALL, **changed})


def run(config: Config, data: Path, out: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """Train; the metrics and what was said."""
    said: list[str] = []
    metrics = detect.train(config, data, out, progress=said.append, **options)
    return metrics, said


def two_kinds(folder: Path, each: int, size: tuple[int, int] = (24, 20)) -> Path:
    """`each` pictures (width, height) of noise in the folder `dark`, and as many in `light`."""
    rng = np.random.default_rng(0)
    for kind, low in (("dark", 0), ("light", 128)):
        (folder / kind).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(low, low + 128, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size).save(folder / kind / f"{number}.png")
    return folder


@contextmanager
def without_report() -> Iterator[pytest.MonkeyPatch]:
    """Trainings in this process write no report: drawing it takes longer than they do, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(around, "write_run", lambda *args, **facts: None)
        yield patch


def command(config: Config, data: Path, out: Path, keys: Path) -> list[str]:
    """The same as a command line, without the interpreter; `keys` is where its configuration is written."""
    keys.write_text(json.dumps(config.model_dump(mode="json")))
    return ["train", "--task", "detect", str(data), "--config", str(keys), "--out", str(out)]


def python(*module: str) -> list[str]:
    """A command line that runs a module."""
    return [sys.executable, "-m", *module]


def killed(whole: Path, out: Path, step: int) -> Path:
    """`out` as a run that was killed after its checkpoint of `step` leaves it; `whole` is the same run, finished."""
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("metrics.json", "last"))
    for path in checkpoints(out):
        if step_of(path) > step:
            path.unlink()
    return out


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    return sorted((out / "checkpoints").glob("*.pt"))


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def reached(out: Path) -> int:
    """The step of the last row of a run's history; 0 before there is one. The run may be under way."""
    path = out / "history.csv"
    rows = read_history(path) if path.exists() else []
    return int(rows[-1]["step"]) if rows else 0


def course(out: Path) -> list[dict[str, float]]:
    """The rows of a run's history without the time they took."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_history(out / "history.csv")]


def assert_same(one: Path, other: Path, but: tuple[str, ...] = ()) -> None:
    """Two finished runs have the same bundles, last checkpoints and histories, but for these keys of the config."""
    free = tuple(f"checkpoint/identity.config.{key}" for key in but)
    assert [name for name in differences(one, other) if name not in free] == []
    assert course(one) == course(other)


def before_update(monkeypatch: Any, step: int, act: Callable[[Any], None]) -> None:
    """`act(run)` once, when the losses of step `step` have been computed and the weights are not yet touched."""
    real, done = detect.update, []

    def update(run: Any, *args: Any, **options: Any) -> bool:
        if run.step == step and not done:
            done.append(step)
            act(run)
        return real(run, *args, **options)

    monkeypatch.setattr(detect, "update", update)
