"""The main job from start to finish on pictures made on the spot: make, train, evaluate, predict, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracesight.bundle import load
from tracesight.data.formats import read_dataset
from tracesight.data.trays import make_trays
from tracesight.errors import UserError
from tracesight.predict import EVALUATION_THRESHOLD, find_pictures, write
from tracesight.recipes.detect import Config, train
from tracesight.report.html import duration
from tracesight.training.config import resolve
from tracesight.training.progress import Display, Job, Say

TRAIN, VAL = 240, 48  # pictures
SEEDS = {"train": 1, "val": 2}


def run_demo(
    out: str | Path = "tracesight-demo", progress: Say | None = None, *, overrides: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run the demo into the folder `out` and return the metrics on its held-out pictures.

    Args:
        out: new or empty.
        progress: receives each line; None writes to standard error.
        overrides: `key=value` on top of the preset "demo".

    Raises:
        UserError: `out` is not empty.
    """
    out, display, began = Path(out), Display(progress), time.monotonic()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: choose another folder with --out")
    config = resolve(Config, "demo", overrides=overrides)
    display.say(f"1/4 making {TRAIN} pictures to learn from and {VAL} to be tested on: trays of bolts, nuts, washers")
    _make(out / "data", display)
    display.say(f"2/4 training {config.model} on them")
    metrics = train(config, out / "data", out, beside=("data",), progress=progress)
    display.say("3/4 finding the objects in the pictures that it has not learnt from")
    _predict(out, display)
    display.say(f"4/4 done in {duration(time.monotonic() - began)}")
    for line in closing(out, metrics):
        display.say(line)
    return metrics


def closing(out: Path, metrics: dict[str, Any]) -> list[str]:
    """What was reached, where it is, and what to type next."""
    return [
        f"mask AP50 {metrics['segm']['AP50']:.3f}, box AP50 {metrics['bbox']['AP50']:.3f} on {VAL} held-out pictures",
        f"report:   {out / 'report.html'}",
        f"overlays: {out / 'overlays'}    scenes: {out / 'scenes'}    pictures: {out / 'data'}",
        "next, with your own pictures:",
        f"  tracesight predict {out / 'last'} PICTURES --out predictions",
        "  tracesight train --task segment DATA --preset cpu --out RUN    (DATA: train and val folders, COCO labels)",
    ]


def _make(folder: Path, display: Display) -> None:
    for split, count in (("train", TRAIN), ("val", VAL)):
        with display.job(f"make {split}", count) as job:
            make_trays(folder / split, pictures=count, seed=SEEDS[split], progress=_counter(job))


def _counter(job: Job) -> Callable[[int, int], None]:
    return lambda done, total: job.advance()


def _predict(out: Path, display: Display) -> None:
    """Scenes and overlays from `last/`, whose figures metrics.json has; scores from where evaluation begins."""
    val = read_dataset(out / "data" / "val")
    pictures = find_pictures(val.paths())
    numbers = {record.path.stem: record.id for record in val}
    with display.job("predict", len(val)) as job:
        write(
            load(out / "last"),
            pictures,
            out,
            threshold=EVALUATION_THRESHOLD,
            image_ids=numbers,
            progress=lambda _: job.advance(),
        )
