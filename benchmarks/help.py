"""How long does `tracesight --help` take? The best of ten starts; exit status 1 from half a second on."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from figures import machine, run, show, write

LIMIT, STARTS = 0.5, 10


def main() -> bool:
    """Whether the help comes within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    facts = machine(1)
    show(facts)
    taken = []
    for _ in range(STARTS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tracesight", "--help"], capture_output=True, check=True)
        taken.append(time.perf_counter() - start)
    held = min(taken) < LIMIT
    print(f"--help: {min(taken):.2f} s (slowest {max(taken):.2f} s), limit {LIMIT} s: {'held' if held else 'NOT HELD'}")
    write(arguments.json, facts, {"limit": LIMIT, "seconds": taken})
    return held


if __name__ == "__main__":
    run(main)
