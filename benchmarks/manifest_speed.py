"""How fast `tracesight data manifest` is: beside a bare loop that reads and hashes, and the second time.

Makes 100,000 tiny pictures with COCO labels, one box each, and pictures of an ordinary size. A bare loop (open, read,
SHA-256) over the same files runs in as many processes, in turn with ours, which reads EXIF as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import figures
import numpy as np
from PIL import Image

SECOND_RUN = 10.0  # seconds, at most, for the tiny pictures
SHARE = 0.8  # of the bare loop's pictures per second, at least
PHOTOGRAPH = (480, 640)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", type=int, default=100_000, help="tiny pictures")
    parser.add_argument("--photographs", type=int, default=5_000, help="pictures of 640 × 480")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs that are timed")
    parser.add_argument("--json", type=Path, help="file that receives the figures")
    arguments = parser.parse_args()
    facts = figures.machine(1)
    figures.show(facts)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, count, size in (("tiny", arguments.tiny, (8, 8)), ("photographs", arguments.photographs, PHOTOGRAPH)):
            data = Path(scratch) / name
            make(data, count, size)
            found[name] = hashing(data, arguments.repeats)
        found["runs"] = runs(Path(scratch) / "tiny", Path(scratch) / "cache", arguments.repeats)
    report(found)
    figures.write(arguments.json, facts, found)
    fast = all(found[name]["ratio"] >= SHARE for name in ("tiny", "photographs"))
    return fast and found["runs"]["second"] < SECOND_RUN


def make(data: Path, count: int, size: tuple[int, int]) -> None:
    """JPEG pictures of noise, no two alike, each with one box."""
    (data / "images").mkdir(parents=True)
    height, width = size
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(data / "one.jpg", quality=60)
    content = (data / "one.jpg").read_bytes()
    (data / "one.jpg").unlink()
    images, annotations = [], []
    for number in range(count):
        name = f"{number:06}.jpg"
        (data / "images" / name).write_bytes(content + number.to_bytes(4, "big"))  # what follows the end is no pixel
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [1, 1, 5, 6], "iscrowd": 0})
    labels = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (data / "instances.json").write_text(json.dumps(labels))


def bare(names: list[str]) -> list[str]:
    digests = []
    for name in names:
        with open(name, "rb") as file:  # noqa: PTH123
            digests.append(hashlib.sha256(file.read()).hexdigest())
    return digests


def hashing(data: Path, repeats: int) -> dict[str, Any]:
    """Both over the same files, which lie in memory after the first time, without the cache."""
    from tracesight.data.digests import file_facts

    paths = sorted((data / "images").iterdir())
    names, processes = list(map(str, paths)), os.cpu_count() or 1
    chunks = [names[start : start + 200] for start in range(0, len(names), 200)]

    def peer() -> list[str]:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            return [digest for part in pool.map(bare, chunks) for digest in part]

    def ours() -> list[str]:
        return [facts.sha256 for facts in file_facts(paths, kept=False, processes=True)]

    same = ours() == peer()
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            began = time.perf_counter()
            (ours, peer)[side]()
            seconds[side].append(time.perf_counter() - began)
    ratios = [their / our for our, their in zip(*seconds)]
    rates = [len(paths) / statistics.median(one) for one in seconds]
    return {
        "pictures": len(paths),
        "same": same,
        "ours": rates[0],
        "bare": rates[1],
        "ratio": statistics.median(ratios),
    }


def runs(data: Path, cache: Path, repeats: int) -> dict[str, Any]:
    """Seconds of the whole command, the first time and when nothing has changed since."""
    time.sleep(3)  # files of just now are not trusted
    command = [sys.executable, "-m", "tracesight", "data", "manifest", str(data), "--out", str(data.parent / "m.json")]
    seconds = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, "TRACESIGHT_CACHE": str(cache)}, capture_output=True)
        seconds.append(time.perf_counter() - began)
    shutil.rmtree(cache)
    return {"first": seconds[0], "second": statistics.median(seconds[1:]), "all": seconds[1:]}


def report(found: dict[str, Any]) -> None:
    widths = (14, 10, 14, 14, 8)
    figures.row(("pictures", "count", "ours, per s", "bare, per s", "ratio"), widths)
    for name in ("tiny", "photographs"):
        one = found[name]
        figures.row((name, one["pictures"], f"{one['ours']:.0f}", f"{one['bare']:.0f}", f"{one['ratio']:.2f}"), widths)
    both = found["runs"]
    every = ", ".join(f"{seconds:.1f}" for seconds in both["all"])
    print(f"data manifest on the tiny ones: first {both['first']:.1f} s, then {every}: median {both['second']:.1f} s")


if __name__ == "__main__":
    figures.run(main)
