"""Is looking at labelled pictures as quick as decoding them? Pictures per second of both, with as many processes.

The peer is a bare loop: Pillow opens each file and loads its pixels. Ours is what `tracesight data check` does once the
labels are read: each file read, digested, decoded and hashed, its labels checked, sets compared with each other.
Nothing is taken from the cache. Both run in turn over the same files, and both start their processes. Exit status 1 if
the ratio is below 0.8 on pictures of ordinary size. On `nuclei`, tiny pictures with 45 masks each, it is shown only.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from figures import data_folder, held, in_turn, machine, row, run, show, write
from PIL import Image

from tracesight.data.checks import check
from tracesight.data.crew import all_cores
from tracesight.data.formats import read_sets

SETS = ("bccd", "coco64", "nuclei")
WANTED = 0.8
DENSE = ("nuclei",)  # whose labels take longer than their pictures
WIDTHS = (10, 9, 12, 12, 7)


def main() -> bool:
    """Whether every ratio is as wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=all_cores(), help="processes of both sides")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file that receives the figures")
    asked = parser.parse_args()
    facts, figures = machine(1), {}
    show(facts)
    row(("set", "pictures", "decoded/s", "checked/s", "ratio"), WIDTHS)
    for name in SETS:
        sets, found = read_sets(data_folder(name))
        paths = [record.path for record in {r.path: r for dataset in sets.values() for r in dataset}.values()]
        ours = partial(check, sets, found, workers=asked.workers, fresh=True)
        figure = in_turn(ours, partial(_bare, paths, asked.workers), asked.repeats)
        count = len(paths)
        figures[name] = {**figure, "pictures": count, "same": True, "wanted": None if name in DENSE else WANTED}
        cells = (count / figure["peer"], count / figure["ours"])
        row((name, count, *(f"{cell:.0f}" for cell in cells), f"{figure['ratio']:.2f}"), WIDTHS)
    write(asked.json, facts, figures)
    return all(map(held, figures.values()))


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
