"""How much memory do the labels of a large set take in each of the loader's workers?

The labels are made: as many pictures and objects as COCO train2017 has, 80 categories, polygons of 25 points on
average. All records name one small picture, so that an epoch is quick. Four workers go through `--draws` pictures, an
epoch unless told otherwise. The figure is a worker's private memory (USS: Private_Clean and Private_Dirty of Linux's
/proc/PID/smaps_rollup) less that of a worker on a set of one record, measured five times on the way, for every way in
which Python starts processes. Exit status 1 if one is ever 100 MB or more, or grows by 20 MB or more after the first
quarter.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_MB, GROWTH_MB = 100, 20
PICTURES, OBJECTS, CATEGORIES, POINTS = 118_287, 860_001, 80, 25
WIDTH, HEIGHT, SIDE, WORKERS, BATCH, MOMENTS = 64, 48, 32, 4, 64, 5
ROLLUP = "/proc/{}/smaps_rollup"


def main() -> bool:
    """Whether the labels cost every worker less than the limit, and no more at the end than at the beginning."""
    from figures import Missing, machine, row, show, write

    if not Path(ROLLUP.format("self")).exists():
        raise Missing("Linux's /proc/PID/smaps_rollup, from which private memory is read, is not there")
    arguments = _arguments()
    facts = machine(1)
    show(facts)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        size = _child("prepare", folder, arguments)["labels"]
        print(f"{arguments.pictures} pictures, labels {size / 1e6:.0f} MB; {WORKERS} workers, {arguments.draws} draws")
        print("private memory of each worker beyond that of a worker on one record, MB", flush=True)
        widths = (12, 9, *[9] * WORKERS)
        row(("started by", "draws", *(f"worker {i + 1}" for i in range(WORKERS))), widths)
        for method in arguments.methods:
            one = _child("one", folder, arguments, method)[-1]["private"]
            base = statistics.mean(one)
            moments = _child("all", folder, arguments, method)
            for moment in moments:
                moment["more"] = [(private - base) / 1e6 for private in moment["private"]]
                row((method, moment["draws"], *(f"{more:.1f}" for more in moment["more"])), widths)
            figures[method] = {"one_record": one, "moments": moments, "held": _held(moments)}
    held = all(figure["held"] for figure in figures.values())
    print(f"limits {LIMIT_MB} MB, growth {GROWTH_MB} MB: {'held' if held else 'NOT HELD'}")
    write(arguments.json, facts, {"limits": [LIMIT_MB, GROWTH_MB], "labels": size, "methods": figures})
    return held


def _held(moments: list[dict[str, Any]]) -> bool:
    after = [moment["more"] for moment in moments[1:]] or [moments[0]["more"]]
    growth = max(last - first for first, last in zip(after[0], after[-1]))
    return max(max(moment["more"]) for moment in moments) < LIMIT_MB and growth < GROWTH_MB


def prepare(folder: Path, pictures: int) -> dict[str, Any]:
    """Write the picture, and the labels as the arrays that a `Dataset` holds."""
    from PIL import Image

    from tracesight.data.dataset import Dataset

    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "picture.jpg", quality=80)
    names = {number: f"category {number}" for number in range(1, CATEGORIES + 1)}
    dataset = Dataset.of(_records(folder / "picture.jpg", pictures), names, folder)
    np.save(folder / "buffer.npy", dataset.buffer)
    np.save(folder / "offsets.npy", dataset.offsets)
    return {"labels": dataset.buffer.nbytes}


def _records(path: Path, pictures: int) -> Iterator[Any]:
    from tracesight.data.record import Annotation, Record

    random = np.random.default_rng(1)
    # As many objects as the real set has for each picture, the rest spread over the first ones.
    objects = np.full(pictures, OBJECTS // PICTURES)
    objects[: round(pictures * (OBJECTS % PICTURES / PICTURES))] += 1
    number = 0
    for image, count in enumerate(random.permutation(objects)):
        annotations = []
        for points in random.integers(POINTS // 2, POINTS * 3 // 2 + 1, count):
            (x, y), (w, h) = random.uniform(0, 0.6, 2) * (WIDTH, HEIGHT), random.uniform(0.1, 0.4, 2) * (WIDTH, HEIGHT)
            angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
            outline = np.stack([x + w * (0.5 + 0.5 * np.cos(angle)), y + h * (0.5 + 0.5 * np.sin(angle))], 1)
            box, category = (float(x), float(y), float(x + w), float(y + h)), int(random.integers(1, CATEGORIES + 1))
            polygon = outline.round(2).ravel().tolist()
            annotations.append(Annotation(number, category, box, [polygon], area=float(w * h)))
            number += 1
        yield Record(image, path, WIDTH, HEIGHT, tuple(annotations))


def measure(folder: Path, one: bool, method: str, draws: int) -> list[dict[str, Any]]:
    """Private bytes of every worker after some batches: once for one record, else at several moments on the way."""
    from tracesight.data.dataset import Dataset
    from tracesight.data.loader import training_batches
    from tracesight.data.transforms import train_transform

    buffer, offsets = np.load(folder / "buffer.npy"), np.load(folder / "offsets.npy")
    if one:
        buffer, offsets = buffer[: offsets[1]].copy(), offsets[:2].copy()
    names = {number: f"category {number}" for number in range(1, CATEGORIES + 1)}
    dataset = Dataset(buffer, offsets, np.arange(len(offsets) - 1), names, folder)
    multiprocessing.set_start_method(method)
    transform = partial(train_transform, image_size=SIDE)
    steps = -(-(min(draws, 4096) if one else draws) // BATCH)
    wanted = {round(1 + (steps - 1) * moment / (MOMENTS - 1)) for moment in range(MOMENTS)}
    # Some batches more than are measured, so that no worker is done when the last moment comes.
    batches = training_batches(
        dataset, batch_size=BATCH, seed=0, steps=steps + 4 * WORKERS, transform=transform, workers=WORKERS
    )
    moments = []
    for step in range(1, steps + 1):
        next(batches)
        if step in wanted:
            moments.append({"draws": step * BATCH, "private": _private()})
    batches.close()
    return moments


def _private() -> list[int]:
    """Private bytes of each child of this process, oldest first."""
    held = []
    for child in sorted(multiprocessing.active_children(), key=lambda child: child.pid or 0):
        fields = [line.split() for line in Path(ROLLUP.format(child.pid)).read_text(encoding="utf-8").splitlines()]
        held.append(sum(int(f[1]) for f in fields if f[0] in ("Private_Clean:", "Private_Dirty:")) * 1024)
    return held


def _child(job: str, folder: str, arguments: argparse.Namespace, method: str = "spawn") -> Any:
    from figures import Missing

    command = [sys.executable, __file__, "--job", job, "--folder", folder, "--methods", method]
    command += ["--pictures", str(arguments.pictures), "--draws", str(arguments.draws)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Missing(f"the process of {job!r} ended with status {done.returncode}; what it said is above")
    return json.loads(done.stdout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = multiprocessing.get_all_start_methods()
    parser.add_argument("--pictures", type=int, default=PICTURES, help=f"records in the set ({PICTURES})")
    parser.add_argument("--draws", type=int, help="pictures to go through (an epoch)")
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods, help="of starting processes (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--job", choices=("prepare", "one", "all"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.draws = arguments.draws or arguments.pictures
    return arguments


def _job(arguments: argparse.Namespace) -> None:
    if arguments.job == "prepare":
        print(json.dumps(prepare(arguments.folder, arguments.pictures)))
    else:
        method, one = arguments.methods[0], arguments.job == "one"
        print(json.dumps(measure(arguments.folder, one, method, arguments.draws)))


if __name__ == "__main__":
    if (given := _arguments()).job:
        _job(given)
    else:
        from figures import run

        run(main)
