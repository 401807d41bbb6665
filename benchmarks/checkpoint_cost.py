"""What share of a training's time do checkpoints take? The preset `cpu` on nuclei, one every 50 steps, EMA on.

Steps and saves are timed one by one in one training, in turn: so many steps, then a save, and again. A save is all that
a training does for one: gathering the state, writing it, syncing it to the disk, hashing it, deleting the oldest. The
preset has no averaged weights; they are switched on here, since they make a checkpoint a third larger. Exit status 1 if
the share is not below 3 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from figures import data_folder, machine, row, run, show, write

from tracesight.data.batch import Loaded
from tracesight.data.formats import read_dataset
from tracesight.recipes import detect
from tracesight.recipes.detect import for_task
from tracesight.training.config import resolve
from tracesight.training.precision import autocast, autocast_dtype, repeatable
from tracesight.training.prepare import Splits
from tracesight.training.progress import Display
from tracesight.training.ranks import ALONE
from tracesight.training.signals import Stop
from tracesight.training.steps import steps, update
from tracesight.training.watch import LossWatch

EVERY, LIMIT = 50, 0.03


def main() -> bool:
    """Whether checkpoints take less than the limit."""
    arguments = _arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    facts = machine(torch.get_num_threads())
    show(facts)
    with tempfile.TemporaryDirectory(dir=arguments.disk) as folder:
        seconds, saves, size = measure(Path(folder), arguments.steps, arguments.saves)
    step, save = statistics.median(seconds), statistics.median(saves)
    share = save / (EVERY * step + save)
    widths = (34, 10, 18)
    row(("seconds", "median", "least–most"), widths)
    row(("a step", f"{step:.3f}", f"{min(seconds):.3f}–{max(seconds):.3f}"), widths)
    row((f"a checkpoint of {size / 1e6:.0f} MB", f"{save:.3f}", f"{min(saves):.3f}–{max(saves):.3f}"), widths)
    held = share < LIMIT
    said = "held" if held else "NOT HELD"
    print(f"share of a training with one every {EVERY} steps: {share:.2%}, limit {LIMIT:.0%}: {said}")
    write(arguments.json, facts, {"step": seconds, "save": saves, "bytes": size, "share": share, "limit": LIMIT})
    return held


def measure(folder: Path, count: int, saves: int) -> tuple[list[float], list[float], int]:
    """Seconds of each step and of each save, and the size of a checkpoint in bytes."""
    dataset = read_dataset(data_folder("nuclei") / "train")
    overrides = ["ema=0.999", f"max_steps={count * saves}", "device=cpu"]
    config = for_task(resolve(detect.Config, "cpu", overrides=overrides), "segment")
    splits, device = Splits(dataset, None, ()), torch.device("cpu")
    began = detect.start(config, splits, None, device, ALONE, Stop(at_once=False))
    dtype = autocast_dtype(config.precision, device)

    def losses_of(network: torch.nn.Module, loaded: Loaded) -> dict[str, torch.Tensor]:
        with autocast(device, dtype):
            return network(loaded.batch, loaded.targets)

    watch = LossWatch(began, dataset, folder, losses_of, lambda step, row: None)
    batches = partial(detect.batches_of, config, splits, None, ALONE, 0, print)
    seconds, taken, marked = [], [], time.perf_counter()
    with repeatable(device):
        for _, part in steps(began, batches, partial(detect.rate_of, config, began.total), Display(lambda line: None)):
            losses = losses_of(began.network, part)
            update(began, losses, watch, clip_norm=config.clip_norm, ema_decay=config.ema)
            seconds.append(time.perf_counter() - marked)
            if began.step % count == 0:
                marked = time.perf_counter()
                began.save(folder / "checkpoints", config.keep_checkpoints)
                taken.append(time.perf_counter() - marked)
            marked = time.perf_counter()
    size = max(path.stat().st_size for path in (folder / "checkpoints").iterdir())
    return seconds[1:], taken, size  # the first step starts workers and fills caches


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="between two saves")
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--disk", type=Path, help="folder on the disk that checkpoints go to")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
