"""How long does it take to read the labels of a large set, and how much memory?

The labels are made: as many pictures and objects as COCO train2017 has, 80 categories, polygons of 25 points on
average, and the names, addresses and dates that COCO writes for every picture. A fresh process reads the file with
`read_dataset`, which checks every label; the figures are its seconds (after imports; beside them what it computed, for
machines that are busy) and its peak resident memory (Python and all). Another process reads it with pycocotools'
`COCO(file)`, which checks nothing. Exit status 1 if reading takes 20 seconds or more, or 2 GB or more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Nothing heavy is imported here: a child's peak begins with what its parent holds.
LIMIT_S, LIMIT_GB = 20.0, 2.0
PICTURES, OBJECTS, CATEGORIES, POINTS = 118_287, 860_001, 80, 25
WIDTH, HEIGHT = 640, 480


def main() -> bool:
    """Whether both limits hold."""
    from figures import machine, row, show, write

    arguments = _arguments()
    facts = machine(1)
    show(facts)
    with tempfile.TemporaryDirectory() as folder:
        size = _child("prepare", folder, arguments)["bytes"]
        print(f"{arguments.pictures} pictures, a file of {size / 1e6:.0f} MB", flush=True)
        names = ("tracesight", "pycocotools") if arguments.peer else ("tracesight",)
        figures: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        widths = (12, 9, 9, 9, 9)
        row(("", "seconds", "CPU s", "peak GB", "objects"), widths)
        for _ in range(arguments.repeats):
            for name in names:
                figure = _child(name, folder, arguments)
                figures[name].append(figure)
                times = (f"{figure[key]:.1f}" for key in ("seconds", "cpu"))
                row((name, *times, f"{figure['peak']:.2f}", figure["objects"]), widths)
    best = min(figures["tracesight"], key=lambda figure: figure["seconds"])
    held = best["seconds"] < LIMIT_S and best["peak"] < LIMIT_GB
    print(f"limits {LIMIT_S:.0f} s, {LIMIT_GB:.0f} GB: {'held' if held else 'NOT HELD'}")
    write(arguments.json, facts, {"limits": [LIMIT_S, LIMIT_GB], "bytes": size, "figures": figures})
    return held


def prepare(folder: Path, pictures: int) -> dict[str, Any]:
    """Write the label file, and one of its pictures, so that the folder of pictures is found."""
    from PIL import Image

    (folder / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / f"{1:012d}.jpg")
    file = folder / "instances_train2017.json"
    with file.open("w", encoding="utf-8") as stream:
        stream.write('{"info": {"description": "made", "year": 2017}, "licenses": ')
        licence = {"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}
        stream.write(json.dumps([licence]))
        _write_array(stream, "images", (_image(number) for number in range(1, pictures + 1)))
        _write_array(stream, "annotations", _objects(pictures))
        names = ({"supercategory": "thing", "id": i, "name": f"category {i}"} for i in range(1, CATEGORIES + 1))
        _write_array(stream, "categories", names)
        stream.write("}")
    return {"bytes": file.stat().st_size}


def _write_array(stream: Any, key: str, rows: Iterator[dict[str, Any]]) -> None:
    stream.write(f', "{key}": [')
    for number, row in enumerate(rows):
        stream.write((", " if number else "") + json.dumps(row))
    stream.write("]")


def _image(number: int) -> dict[str, Any]:
    name = f"{number:012d}.jpg"
    return {
        "license": 4, "file_name": name, "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "height": HEIGHT, "width": WIDTH, "date_captured": "2013-11-14 11:18:45",
        "flickr_url": f"http://farm9.staticflickr.com/8186/{number:010d}_37ecf74a27_z.jpg", "id": number,
    }  # fmt: skip


def _objects(pictures: int) -> Iterator[dict[str, Any]]:
    """In the order in which nobody sorted them, as in COCO's file."""
    import numpy as np

    random = np.random.default_rng(1)
    for number in range(round(pictures * OBJECTS / PICTURES)):
        points = int(random.integers(POINTS // 2, POINTS * 3 // 2 + 1))
        (x, y), (w, h) = random.uniform(0, 0.6, 2) * (WIDTH, HEIGHT), random.uniform(0.1, 0.4, 2) * (WIDTH, HEIGHT)
        angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
        outline = np.stack([x + w * (0.5 + 0.5 * np.cos(angle)), y + h * (0.5 + 0.5 * np.sin(angle))], 1)
        yield {
            "segmentation": [outline.round(2).ravel().tolist()], "area": round(w * h, 4), "iscrowd": 0,
            "image_id": int(random.integers(1, pictures + 1)), "bbox": [round(v, 2) for v in (x, y, w, h)],
            "category_id": int(random.integers(1, CATEGORIES + 1)), "id": number + 1,
        }  # fmt: skip


def read(folder: Path) -> dict[str, Any]:
    """Ours."""
    from tracesight.data.formats import read_dataset

    began, computing = time.perf_counter(), time.process_time()
    dataset = read_dataset(folder / "instances_train2017.json")
    figure = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - computing, "peak": _peak()}
    return {**figure, "objects": sum(len(record.annotations) for record in dataset)}


def read_peer(folder: Path) -> dict[str, Any]:
    """pycocotools."""
    from contextlib import redirect_stdout

    from pycocotools.coco import COCO

    began, computing = time.perf_counter(), time.process_time()
    with redirect_stdout(sys.stderr):
        peer = COCO(str(folder / "instances_train2017.json"))
    figure = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - computing, "peak": _peak()}
    return {**figure, "objects": len(peer.anns)}


def _peak() -> float:
    """Peak resident memory of this process so far, in GB (10^9 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _child(job: str, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from figures import Missing

    command = [sys.executable, __file__, "--job", job, "--folder", folder, "--pictures", str(arguments.pictures)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Missing(f"the process of {job!r} ended with status {done.returncode}; what it said is above")
    return json.loads(done.stdout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=PICTURES, help=f"in the set ({PICTURES})")
    parser.add_argument("--repeats", type=int, default=3, help="of the reading, of which the fastest counts (3)")
    parser.add_argument("--peer", action="store_true", help="read with pycocotools too (needs 8 GB)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--job", choices=("prepare", "tracesight", "pycocotools"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _job(arguments: argparse.Namespace) -> None:
    jobs = {"tracesight": read, "pycocotools": read_peer}
    if arguments.job == "prepare":
        print(json.dumps(prepare(arguments.folder, arguments.pictures)))
    else:
        print(json.dumps(jobs[arguments.job](arguments.folder)))


if __name__ == "__main__":
    if (given := _arguments()).job:
        _job(given)
    else:
        from figures import run

        run(main)
