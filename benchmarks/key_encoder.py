"""What does it take to let a key encoder follow, beside a loop over its parameters as MoCo's authors have it?

    resnet50            161 parameters, 23.5 million numbers and the head of MoCo v2
    cifar_resnet18      62 parameters, 11.2 million numbers

Both sides run in turn on the same weights and must agree to 1e-5 after all repeats. Wanted: at least twice as fast.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from figures import held, in_turn, machine, row, run, show, write
from torch import nn

from tracesight.models.encode import follow
from tracesight.models.methods import build_method

MOMENTUM, WANTED = 0.999, 2.0


def main() -> bool:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    facts = machine(torch.get_num_threads())
    show(facts)
    widths = (18, 12, 14, 8, 10)
    row(("", "ours, ms", "loop, ms", "ratio", "apart"), widths)
    figures, good = {}, True
    for name in ("resnet50", "cifar_resnet18"):
        figure = figures[name] = measure(name, arguments)
        times = (f"{1e3 * figure[side]:.2f}" for side in ("ours", "peer"))
        row((name, *times, f"{figure['ratio']:.2f}", f"{figure['apart']:.0e}"), widths)
        good = good and held(figure)
    print(f"at least {WANTED}: {'held' if good else 'NOT HELD'}", flush=True)
    write(arguments.json, facts, figures)
    return good


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds an update of both sides, and how far they are apart after as many."""
    torch.manual_seed(0)
    method: Any = build_method("moco-v2", name, {}, {"queue": 64}).to(arguments.device)
    with torch.no_grad():
        for parameter in method.encoder_q.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    other = copy.deepcopy(method.encoder_k)
    figure = in_turn(
        lambda: follow(method.encoder_k, method.encoder_q, MOMENTUM),
        lambda: loop(other, method.encoder_q),
        arguments.repeats,
        arguments.device,
    )
    apart = max(float((a - b).abs().max()) for a, b in zip(method.encoder_k.parameters(), other.parameters()))
    return {**figure, "apart": apart, "same": apart <= 1e-5, "wanted": WANTED}


@torch.no_grad()
def loop(slow: nn.Module, fast: nn.Module) -> None:
    """One parameter after the other, each as two products and a sum."""
    for ours, theirs in zip(slow.parameters(), fast.parameters()):
        ours.data = ours.data * MOMENTUM + theirs.data * (1.0 - MOMENTUM)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
