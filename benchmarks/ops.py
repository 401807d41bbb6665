"""How fast are the operations of detection beside torchvision's? Each in turn with its peer, in one run.

The outputs are compared before anything is timed. Exit status 1 if they differ, or a ratio is below the one wanted.
A wanted ratio of "-" is none: the figure is there to be known.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ops_masks
import ops_nms
import ops_roi_align
import ops_roi_pool
import torch
from figures import held, machine, row, run, show, write

WIDTHS = (40, 9, 9, 7, 11, 7, 5, 5)
CASES: dict[str, Callable[[str, int], list[dict[str, Any]]]] = {
    "roi-align": ops_roi_align.measure,
    "masks": ops_masks.measure,
    "nms": ops_nms.measure,
    "roi-pool": ops_roi_pool.measure,
}


def main() -> bool:
    """Whether every ratio is as wanted and all outputs agree."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    row(("case", "ours ms", "peer ms", "ratio", "least–most", "wanted", "same", "held"), WIDTHS)
    figures = []
    for case in arguments.cases:
        for figure in CASES[case](arguments.device, arguments.repeats):
            figures.append(figure)
            spread = f"{min(figure['ratios']):.1f}–{max(figure['ratios']):.1f}"
            wanted = "-" if figure["wanted"] is None else f"{figure['wanted']:g}"
            marks = "yes" if figure["same"] else "NO", "yes" if held(figure) else "NO"
            times = f"{figure['ours'] * 1e3:.1f}", f"{figure['peer'] * 1e3:.1f}"
            row((figure["case"], *times, f"{figure['ratio']:.1f}", spread, wanted, *marks), WIDTHS)
    write(arguments.json, facts, {"cases": figures})
    return all(held(figure) for figure in figures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--device", default="cpu", help="where both run (cpu)")
    parser.add_argument("--repeats", type=int, default=9, help="repetitions of each case (9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
