"""Is looking at labelled pictures as quick as decoding them? Pictures per second of both, with as many processes.

The peer is a bare loop: Pillow opens each file and loads its pixels. Ours is what `tracesight data check` does once the
labels are read: each file read, digested, decoded and hashed, its labels checked, sets compared with each other.
Nothing is taken from the cache. Both run in turn over the same files, and both start their processes. Beside the ratio
of seconds stands that of what all processes computed, for machines that are busy. Exit status 1 if a ratio of seconds
is below 0.8, also on `nuclei`, tiny pictures with 45 masks each.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from figures import data_folder, held, in_turn, machine, row, run, show, write
from PIL import Image

from tracesight.data.checks.everything import check
from tracesight.data.crew import all_cores
from tracesight.data.formats import read_sets

SETS = ("bccd", "coco64", "nuclei")
WANTED = 0.8
WIDTHS = (10, 9, 12, 12, 7, 7)


def main() -> bool:
    """Whether every ratio is as wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=all_cores(), help="processes of both sides")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file that receives the figures")
    asked = parser.parse_args()
    facts, figures = machine(1), {}
    show(facts)
    row(("set", "pictures", "decoded/s", "checked/s", "ratio", "CPU"), WIDTHS)
    for name in SETS:
        sets, found = read_sets(data_folder(name))
        paths = list(dict.fromkeys(path for dataset in sets.values() for path in dataset.paths()))
        ours = Computed(partial(check, sets, found, workers=asked.workers, fresh=True))
        bare = Computed(partial(_bare, paths, asked.workers))
        figure = in_turn(ours, bare, asked.repeats)
        computed = statistics.median(bare.seconds) / statistics.median(ours.seconds)
        count = len(paths)
        figures[name] = {**figure, "computed": computed, "pictures": count, "same": True, "wanted": WANTED}
        cells = (count / figure["peer"], count / figure["ours"])
        row((name, count, *(f"{cell:.0f}" for cell in cells), f"{figure['ratio']:.2f}", f"{computed:.2f}"), WIDTHS)
    write(asked.json, facts, figures)
    return all(map(held, figures.values()))


@dataclass
class Computed:
    """Work whose seconds of computing, in this process and those that it started, are kept."""

    work: Callable[[], object]
    seconds: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        began = sum(os.times()[:4])
        self.work()
        self.seconds.append(sum(os.times()[:4]) - began)


def _bare(paths: list[Path], workers: int) -> None:
    """Decode every file in `workers` processes."""
    if workers < 2:
        for path in paths:
            _decode(path)
        return
    with ProcessPoolExecutor(workers) as pool:
        for _ in pool.map(_decode, paths, chunksize=8):
            pass


def _decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


if __name__ == "__main__":
    run(main)
