"""What every script here needs: the facts of the machine, the real pictures, a table, a JSON file, the way to fail."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VARIABLE = "TRACESIGHT_DATA"


class Missing(Exception):
    """Something that the script needs is not there: one line, exit status 2."""


def data_folder(name: str) -> Path:
    """The folder `name` among the real pictures. Raises Missing."""
    root = os.environ.get(VARIABLE)
    if not root:
        raise Missing(f"{VARIABLE} is not set: it names the folder that holds {name}")
    folder = Path(root) / name
    if not folder.is_dir():
        raise Missing(f"{folder}: no such folder; {VARIABLE} names the folder that holds {name}")
    return folder


def photographs(count: int | None = None) -> list[Path]:
    """The first `count` photographs of `coco64` by name, all of them for None. Raises Missing."""
    folder = data_folder("coco64") / "images"
    paths = sorted(folder.glob("*.jpg"))[:count]
    if not paths:
        raise Missing(f"{folder}: no photographs (*.jpg) in it")
    return paths


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on: processor, cores, threads, versions."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("tracesight", "torch", "torchvision", "numpy", "pillow")},
    }


def show(facts: dict[str, Any]) -> None:
    """Print the facts of the machine in one line."""
    names = ("tracesight", "torch", "torchvision")
    versions = ", ".join(f"{name} {facts[name]}" for name in names)
    print(f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads; {versions}", flush=True)


def row(cells: Sequence[object], widths: Sequence[int]) -> None:
    """Print one line of a table, the first column to the left and the others to the right."""
    first, *rest = (str(cell) for cell in cells)
    print("  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:]))]), flush=True)


def write(path: Path | None, facts: dict[str, Any], figures: dict[str, Any]) -> None:
    """Write the figures and the facts of the machine as JSON; nothing for None."""
    if path is not None:
        path.write_text(json.dumps({"machine": facts, **figures}, indent=1) + "\n", encoding="utf-8")


def run(main: Callable[[], bool]) -> None:
    """Exit with 0 if `main` says that the figures hold, 1 if not, 2 with one line where something is missing.

    A training that a signal ended exits as the command does, with 128 and the signal's number.
    """
    from tracesight.errors import Interrupted, PartialFailure, UserError

    try:
        held = main()
    except (Missing, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except PartialFailure as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(128 + error.number)
    sys.exit(0 if held else 1)


def in_turn(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int, device: str = "cpu") -> dict[str, Any]:
    """Time both in turn, neither for the first time: whoever goes first changes with each repetition.

    Keys: ours and peer (median seconds), ratio (median of the peer's over ours), ratios.
    """
    import torch

    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            began = time.perf_counter()
            (ours, peer)[side]()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds[side].append(time.perf_counter() - began)
    ratios = [their / our for our, their in zip(*seconds)]
    ours_median, peer_median = (statistics.median(one) for one in seconds)
    return {"ours": ours_median, "peer": peer_median, "ratio": statistics.median(ratios), "ratios": ratios}


def held(figure: dict[str, Any]) -> bool:
    """Whether the outputs agreed and the ratio is as wanted (None: none is)."""
    return figure["same"] and (figure["wanted"] is None or figure["ratio"] >= figure["wanted"])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    facts = dict(part for line in reversed(lines) if len(part := [p.strip() for p in line.split(":", 1)]) == 2)
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
