"""Is a deeper plain network worse at what it is trained on, and what does a shortcut change? He et al., "Deep Residual
Learning" (2016), section 4.2, on the files of `cifar10-jpeg`.

    curves     plain-20, ResNet-20, plain-56, ResNet-56 trained by the preset `he2016-cifar`; training and test error of
               each over the steps, in OUT/degradation.png
    losses     the first ten losses of these trainings, as their histories have them, beside those of a plain PyTorch
               loop on the same weights and batches: the same to 1e-4
    gradients  the norm of the loss gradient of every convolution, plain-110 beside ResNet-110, at initialisation and
               after an epoch (at lr 0.01, as the paper warms up 110 layers), in OUT/gradients.png

Training error is that of 5,000 pictures of train at even distances, seen as test pictures are. Each training is a
folder OUT/NAME-seedN, made by the command that is printed: what is finished is kept, what was stopped goes on, and
several may run at the same time (`--nets`). Keys given as key=value (device=cuda precision=fp32 workers=8) go to every
training; the plain loop is in fp32.
Exit status 1 where a loss differs, plain-56 has no larger training error than plain-20 in the mean over the seeds, or,
by the paper's whole schedule, ResNet-56 has no smaller test error than ResNet-20.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import degradation_plots as plots
import torch
from figures import Missing, data_folder, machine, row, run, show, write
from torch import Tensor, nn
from torch.nn import functional as F

import tracesight as ts
from tracesight.data.formats import read_dataset
from tracesight.recipes import classify
from tracesight.training.config import resolve
from tracesight.training.history import read_history
from tracesight.training.precision import choose_device
from tracesight.training.prepare import Splits
from tracesight.training.ranks import ALONE

PRESET, EPOCH, PARTS = "he2016-cifar", 390, ("curves", "losses", "gradients")
NETS = ("plain20", "resnet20", "plain56", "resnet56")
DEEP = ("plain110", "resnet110")
TRAIN_ERROR, TEST_ERROR = "train_image_top1", "val_image_top1"
LOSSES, SAME = 10, 1e-4


def main() -> bool:
    """Whether the figures of the parts asked for hold."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.data = arguments.data or unpacked(arguments.out)
    parts = {"curves": curves, "losses": losses, "gradients": gradients}
    figures, held = {}, True
    for part in arguments.parts:
        figures[part], good = parts[part](arguments)
        held = held and good
    write(arguments.json, facts, figures)
    return held


def unpacked(out: Path) -> Path:
    """The pictures of `TRACESIGHT_DATA`/cifar10-jpeg.tar.xz, unpacked below `out`. Raises Missing."""
    folder = out / "cifar10-jpeg"
    if not folder.is_dir():
        archive = data_folder(".") / "cifar10-jpeg.tar.xz"
        if not archive.is_file():
            raise Missing(f"{archive}: no such file; or name a folder with train and test by --data")
        with tarfile.open(archive) as file:
            file.extractall(out / "cifar10-jpeg.part", filter="data")
        (out / "cifar10-jpeg.part").rename(folder)
    return folder


# --- trainings ---


def trained(arguments: argparse.Namespace, net: str, seed: int, keys: Iterable[str], name: str) -> Path:
    """The folder of a training that has been brought to its end. Raises CalledProcessError where it was not."""
    folder = arguments.out / f"{name}-seed{seed}"
    if not (folder / "metrics.json").exists():
        sets = [f"train={arguments.data / 'train'}", f"val={arguments.data / 'test'}"]
        words = ["train", "--task", "classify", *sets, "--preset", PRESET, *keys_of(arguments, net, seed, keys)]
        words += ["--out", str(folder), "--resume"]
        print("tracesight", *words, flush=True)
        subprocess.run([sys.executable, "-m", "tracesight", *words], check=True)
    return folder


def keys_of(arguments: argparse.Namespace, net: str, seed: int, keys: Iterable[str]) -> list[str]:
    """key=value of a training: those of the part, and those that were asked for."""
    return [f"model=cifar_{net}", *keys, f"threads={arguments.threads}", f"seed={seed}", *arguments.keys]


def schedule(arguments: argparse.Namespace) -> list[str]:
    """Keys of the trainings of `curves`: the paper's steps, or so many epochs with the same milestones."""
    known = "known_pictures=5000"
    if not arguments.epochs:
        return [known]
    return [f"max_steps={EPOCH * arguments.epochs}", f"validate_every={EPOCH}", known, "checkpoint_every=195"]


def curves(arguments: argparse.Namespace) -> tuple[dict, bool]:
    """Final errors in percent by net, one a seed, and whether the pairs show the paper's signs."""
    reached: dict[str, dict[str, list[float]]] = {}
    drawn = {}
    for net in arguments.nets:
        folders = [trained(arguments, net, seed, schedule(arguments), net) for seed in range(arguments.seeds)]
        histories = [read_history(folder / "history.csv") for folder in folders]
        errors = {what: [errors_of(rows, what) for rows in histories] for what in (TRAIN_ERROR, TEST_ERROR)}
        reached[net] = {what: [line[-1][1] for line in lines] for what, lines in errors.items()}
        drawn[net] = {what: lines[0] for what, lines in errors.items()}
    widths = (12, 22, 22)
    row(("error in %", "5,000 of train", "test"), widths)
    for net, errors in reached.items():
        row((net, *(told(errors[what]) for what in (TRAIN_ERROR, TEST_ERROR))), widths)
    plots.draw_errors(drawn, arguments.out / "degradation.png")
    checks = []
    if {"plain20", "plain56"} <= reached.keys():
        checks.append(("plain-56 has the larger training error", "plain20", "plain56", TRAIN_ERROR, True))
    if {"resnet20", "resnet56"} <= reached.keys():
        checks.append(
            ("ResNet-56 has the smaller test error", "resnet56", "resnet20", TEST_ERROR, not arguments.epochs)
        )
    good = True
    for said, less, more, what, wanted in checks:
        held = statistics.mean(reached[less][what]) < statistics.mean(reached[more][what])
        good = good and (held or not wanted)
        print(f"{said}: {'yes' if held else 'no'}{'' if wanted else ' (reported only: not the whole schedule)'}")
    return {"errors": reached, "schedule": schedule(arguments)}, good


def errors_of(rows: list[dict[str, float]], what: str) -> list[tuple[float, float]]:
    """(step, error in percent) of each validation."""
    return [(line["step"], 100 * (1 - line[what])) for line in rows if what in line]


def told(values: list[float]) -> str:
    """The mean, and its standard error where there is one."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) / math.sqrt(len(values)):.2f}"


# --- the plain loop ---


def losses(arguments: argparse.Namespace) -> tuple[dict, bool]:
    """Both sides' first losses by net, and whether they are the same."""
    figures, good = {}, True
    widths = (12, 12, 12, 12)
    row(("loss", "step 1", f"step {LOSSES}", "farthest"), widths)
    for net in arguments.nets:
        history = arguments.out / f"{net}-seed0" / "history.csv"
        rows = [line for line in read_history(history) if "loss" in line] if history.exists() else []
        if len(rows) < LOSSES:
            raise Missing(f"{history}: no {LOSSES} steps in it yet; run the part curves first")
        ours = [line["loss"] for line in rows[:LOSSES]]
        plain = plain_losses(arguments, net)
        apart = max(abs(a - b) for a, b in zip(ours, plain))
        row((net, f"{ours[0]:.5f}", f"{ours[-1]:.5f}", f"{apart:.1e}"), widths)
        row(("  plain loop", f"{plain[0]:.5f}", f"{plain[-1]:.5f}"), widths)
        figures[net], good = {"ours": ours, "plain": plain}, good and apart <= SAME
    print(f"equal to {SAME:g}: {'yes' if good else 'NO'}")
    return figures, good


def plain_losses(arguments: argparse.Namespace, net: str) -> list[float]:
    """The first losses of a loop as everybody writes it."""
    config, batches = first_batches(arguments, net)
    torch.manual_seed(0)
    device = choose_device(config.device)
    model = ts.build(config.model).to(device)
    mean, std = pixels_of(config)
    decaying = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    # Fused as in the training: the other kinds round otherwise, and ten steps of a plain network at this rate make
    # 1e-3 of the last bit; in double precision the same loop ends 3e-2 away.
    optimiser = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    criterion = nn.CrossEntropyLoss()
    found = []
    model.train()
    for images, categories in islice(batches, LOSSES):
        loss = criterion(model(((images - mean) / std).to(device)), categories.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found


def pixels_of(config: classify.Config) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the channels, (1, 3, 1, 1) each."""
    assert config.pixels is not None
    mean, std = (torch.tensor(config.pixels[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return mean, std


def first_batches(arguments: argparse.Namespace, net: str) -> tuple[classify.Config, Iterator[tuple[Tensor, Tensor]]]:
    """The training's keys, and its batches from the first on: pictures (N, 3, 32, 32) in 0–1, categories (N,)."""
    overrides = keys_of(arguments, net, 0, schedule(arguments))
    splits = Splits(read_dataset(arguments.data / "train"), None, ())
    config = resolve(classify.Config, PRESET, overrides=[*overrides, "workers=0"])
    labels, _ = classify.labels_of(config, splits)
    config = classify.decided_by(config, splits, labels, ALONE)
    batches = classify.batches_of(config, splits, labels, ALONE, print, 0, LOSSES)
    return config, ((loaded.batch.images, loaded.targets.shares.argmax(1)) for loaded in batches)


# --- gradients ---


def gradients(arguments: argparse.Namespace) -> tuple[dict, bool]:
    """Norms by net, at initialisation and after an epoch, from the first convolution to the last."""
    config, batches = first_batches(arguments, DEEP[0])
    batch = next(batches)
    keys = [f"max_steps={arguments.gradient_steps}", "lr=0.01", "milestones=[]", "validate_every=0",
            "checkpoint_every=65"]  # fmt: skip
    figures: dict[str, dict[str, list[float]]] = {}
    for net in DEEP:
        torch.manual_seed(0)
        figures[net] = {"at initialisation": norms(ts.build(f"cifar_{net}"), config, batch)}
    for net in DEEP if arguments.gradient_steps else ():
        model = ts.load(trained(arguments, net, 0, keys, f"{net}-{arguments.gradient_steps}steps") / "last").model
        figures[net][f"after {arguments.gradient_steps} steps"] = norms(model, config, batch)
    widths = (12, 20, 12, 12, 14)
    row(("gradient", "", "first", "last", "first / last"), widths)
    for net, found in figures.items():
        for when, values in found.items():
            # The means of eleven: single convolutions scatter.
            first, last = (statistics.mean(part) for part in (values[:11], values[-11:]))
            row((net, when, f"{first:.2e}", f"{last:.2e}", f"{first / last:.2g}"), widths)
    plots.draw_gradients(figures, arguments.out / "gradients.png")
    return figures, all(map(math.isfinite, (v for found in figures.values() for line in found.values() for v in line)))


def norms(model: nn.Module, config: classify.Config, batch: tuple[Tensor, Tensor]) -> list[float]:
    """The norm of the loss gradient of each convolution's weights on one batch, in the order of the network."""
    model.train()
    mean, std = pixels_of(config)
    model.zero_grad()
    F.cross_entropy(model((batch[0] - mean) / std), batch[1]).backward()
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return [float(weight.grad.norm()) for weight in weights if weight.grad is not None]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="keys for every training")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings and plots")
    parser.add_argument("--data", type=Path, help="folder with train and test; default: unpacked into OUT")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--epochs", type=int, default=0, help="0: the paper's 64,000 steps; 10 on a CPU")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each net, with a standard error from 2 on")
    parser.add_argument("--gradient-steps", type=int, default=EPOCH, help="0: at initialisation only")
    parser.add_argument("--threads", type=int, default=1, help="of each training; part of what a loss rounds to")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_intermixed_args()  # keys may come after options


if __name__ == "__main__":
    run(main)
