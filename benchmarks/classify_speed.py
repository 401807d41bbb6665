"""What does a training step of a classifier take, beside a plain PyTorch loop that has its batches in memory?

    cifar     ResNet-20, 128 pictures of 32 × 32 a step, `cifar10-jpeg`, preset `he2016-cifar`
    photos    ResNet-50, 16 photographs of `coco64` at 224 × 224 a step, preset `he2016`

Ours is the recipe's own loop from the files on: reading, decoding and augmenting in a worker, losses, update, the watch
over losses, history, progress. The plain loop gets the same batches as tensors that are standardised already, the same
weights, `nn.CrossEntropyLoss` and `torch.optim.SGD`; ResNet-50 is torchvision's. Both run in turn, from the beginning
each time; the first steps of each are not counted. Pictures that fit into memory are decoded once, so that the first
epoch is slower than those that follow: an epoch of `cifar` has 20 steps here, the first one is shown by itself, and the
others count; an epoch of `photos` has 4 steps, 3 of which are not counted.
Exit status 1 where ours has less than 0.95 of its steps a second, or where the first ten losses differ by more than
1e-4 from those of the plain loop on tensors that lie in memory as ours do (channels last; it is timed as torch lays
them out by itself).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torchvision
from degradation import unpacked
from figures import machine, photographs, row, run, show, write
from torch import Tensor, nn

import tracesight as ts
from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset
from tracesight.data.image_labels import ImageLabels
from tracesight.recipes import classify
from tracesight.recipes.around import open_run
from tracesight.training.config import resolve
from tracesight.training.history import read_history
from tracesight.training.precision import repeatable
from tracesight.training.prepare import Splits
from tracesight.training.progress import Display
from tracesight.training.ranks import ALONE
from tracesight.training.signals import Stop

RATIO, SAME, COMPARED, WARM = 0.95, 1e-4, 10, 3


@dataclass(frozen=True)
class Case:
    """A network and its data. apart: first steps, which do not count. plain: the network of the plain loop."""

    preset: str
    keys: tuple[str, ...]
    steps: int
    apart: int
    data: Callable[[argparse.Namespace, Path], Dataset]
    plain: Callable[[nn.Module], nn.Module]


def main() -> bool:
    """Whether all cases asked for are as fast as wanted and agree."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    facts = machine(torch.get_num_threads())
    show(facts)
    widths = (10, 14, 14, 8, 12, 14)
    row(("", "ours, s/step", "plain, s/step", "ratio", "first epoch", "losses apart"), widths)
    figures, good = {}, True
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.cases:
            found = figures[name] = measure(CASES[name], arguments, Path(folder) / name)
            ratio, apart = found["ratio"], found["apart"]
            early = "" if found["first"] is None else f"{found['first']:.3f}"
            row((name, f"{found['ours']:.4f}", f"{found['plain']:.4f}", f"{ratio:.3f}", early, f"{apart:.1e}"), widths)
            held = ratio >= RATIO and apart <= SAME
            print(f"at least {RATIO}, losses equal to {SAME:g}: {'held' if held else 'NOT HELD'}", flush=True)
            good = good and held
    write(arguments.json, facts, figures)
    return good


def measure(case: Case, arguments: argparse.Namespace, folder: Path) -> dict:
    """Median seconds a step of both sides over all repeats, their ratios, and how far the first losses are apart."""
    folder.mkdir()
    steps = arguments.steps or case.steps
    keys = [*case.keys, f"max_steps={steps}", "validate_every=0", "checkpoint_every=0", "samples=0", "milestones=[]"]
    overrides = [*keys, f"workers={arguments.workers}", f"device={arguments.device}", "precision=fp32"]
    overrides.append(f"compile={arguments.compile}")
    config = resolve(classify.Config, case.preset, overrides=overrides)
    splits = Splits(case.data(arguments, folder), None, ())
    labels, _ = classify.labels_of(config, splits)
    config = classify.decided_by(config, splits, labels, ALONE)
    batches = ready(config, splits, labels)
    categories = len(splits.train.categories)
    same, _ = plain(case, config, categories, batches[:COMPARED], torch.channels_last)
    sides: tuple[list[float], list[float]] = ([], [])
    early: tuple[list[float], list[float]] = ([], [])
    for repeat in range(arguments.repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            if side == 0:
                losses, moments = recipe(config, splits, labels, folder / f"run{repeat}")
                apart = max(abs(a - b) for a, b in zip(losses, same))
            else:
                _, moments = plain(case, config, categories, batches, torch.contiguous_format)
            seconds = [after - before for before, after in pairwise(moments)]
            early[side].extend(seconds[WARM : case.apart])
            sides[side].extend(seconds[case.apart :])
    ours, theirs = (statistics.median(seconds) for seconds in sides)
    first = statistics.median(early[1]) / statistics.median(early[0]) if early[0] else None
    return {"ours": ours, "plain": theirs, "ratio": theirs / ours, "first": first, "apart": apart, "steps": steps,
            "means": [statistics.mean(seconds) for seconds in sides], "repeats": arguments.repeats}  # fmt: skip


def ready(config: classify.Config, splits: Splits, labels: ImageLabels) -> list[tuple[Tensor, Tensor]]:
    """All batches of the training, standardised: (N, 3, S, S) and categories (N,)."""
    assert config.pixels is not None and config.max_steps is not None
    pixels = config.pixels
    mean, std = (torch.tensor(pixels[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    batches = classify.batches_of(config, splits, labels, ALONE, print, 0, config.max_steps)
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    return [
        (((loaded.batch.images - mean) / std).contiguous().to(device), loaded.targets.shares.argmax(1).to(device))
        for loaded in batches
    ]


def recipe(
    config: classify.Config, splits: Splits, labels: ImageLabels, out: Path
) -> tuple[list[float], list[float]]:  # fmt: skip
    """Losses of the recipe's own loop, and the moments of its steps in seconds, as its history has them."""
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    display = Display(lambda line: None)
    with repeatable(device):
        begun = classify.start(config, splits, labels, None, device, ALONE, Stop(at_once=False))
        columns = classify.columns_of(config, splits)
        with open_run(begun, config, out, False, display, [], columns) as history:
            classify.learn(begun, config, splits, labels, history, out, display)
    rows = read_history(out / "history.csv")
    return [line["loss"] for line in rows], [line["seconds"] for line in rows]


def plain(
    case: Case,
    config: classify.Config,
    categories: int,
    batches: list[tuple[Tensor, Tensor]],
    layout: torch.memory_format,
) -> tuple[list[float], list[float]]:
    """Losses of a loop as everybody writes it, and the moments of its steps in seconds."""
    torch.manual_seed(config.seed)
    model = case.plain(ts.build(config.model, categories)).to(batches[0][0].device)
    model.to(memory_format=layout)  # type: ignore[call-overload]
    decaying = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    criterion = nn.CrossEntropyLoss()
    losses, moments = [], []
    model.train()
    for images, targets in batches:
        loss = criterion(model(images.contiguous(memory_format=layout)), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        moments.append(time.perf_counter())
    return losses, moments


def _cifar(arguments: argparse.Namespace, folder: Path) -> Dataset:
    return read_dataset((arguments.data or unpacked(folder)) / "train").evenly(128 * 20)


def _photos(_: argparse.Namespace, folder: Path) -> Dataset:
    """Photographs as two categories of nothing in particular."""
    for number, path in enumerate(photographs()):
        place = folder / "photos" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / path.name)
    return read_dataset(folder / "photos")


def _torchvisions(ours: nn.Module) -> nn.Module:
    """torchvision's network with the weights of ours."""
    model = torchvision.models.resnet50(num_classes=2)
    model.load_state_dict(ours.state_dict(), strict=False)
    return model


CASES = {
    "cifar": Case("he2016-cifar", (), 80, 20, _cifar, lambda ours: ours),
    "photos": Case("he2016", ("model=resnet50", "batch_size=16", "lr=0.00625"), 14, WARM, _photos, _torchvisions),
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--data", type=Path, help="folder with CIFAR's train; default: unpacked from TRACESIGHT_DATA")
    parser.add_argument("--steps", type=int, default=0, help="of each side; 0: 80, and 14 of ResNet-50")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--compile", choices=("none", "kernels", "graphs"), default="none", help="our step (none)")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
