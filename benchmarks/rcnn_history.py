"""The R-CNN family beside itself on `bccd`: R-CNN, Fast, Faster C4 and Faster FPN on ResNet-18, from the same weights.

Of each seed four trainings, so from the same random backbone, or from the classifier given by --init; a table of AP,
seconds a picture in training and in testing, pictures a second, and a plot of AP over time: means over the seeds, with
AP's standard error. Proposals are made once, by selective search (extra `proposals`). Each training is a run of its
own, OUT/<system>-<seed>: called again, what is finished is only read.

The whole of it, 205 pictures to train on, 4 epochs, and 87 to test, took 42 minutes of one thread of an AMD EPYC with
AVX-512 bf16, with another training on the other core. --pictures 16 --epochs 1 tries it; --epochs 25 is the length of
preset `cpu`'s schedule (1282 steps, 1300). Keys as key=value change the recipe of all. One seed says little:
differences of a few points of AP are noise.

Exit status 1 where a training finds nothing at all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from figures import data_folder, machine, row, run, show, write

import tracesight as ts
from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_splits, write_sets
from tracesight.data.proposals import read_proposals
from tracesight.predict import dataset_results
from tracesight.predict.propose import propose
from tracesight.recipes.detect import Config, train
from tracesight.training.config import resolve
from tracesight.training.history import read_history

WIDTHS = (12, 6, 8, 8, 8, 8, 10, 10, 8)
ANCHORS = [[16, 32, 64, 128]]
# What all have; sides are of bccd's 480 × 640 pixels at a short side of 320.
SAME: dict[str, Any] = {
    "batch_size": 4, "optimiser": "adamw", "lr": 2e-4, "weight_decay": 0.05, "warmup_steps": 20, "clip_norm": 5.0,
    "image_size": 320, "validate_every": 0, "val_loss_pictures": 0, "checkpoint_every": 50, "samples": 0,
    "max_objects": 100,
}  # fmt: skip
NUMBERS = {"pre_nms_train": 1000, "post_nms_train": 500, "pre_nms_test": 1000, "post_nms_test": 300}
ROI = {"batch": 64}
SYSTEMS: dict[str, dict[str, Any]] = {
    "R-CNN": {"model": "rcnn_resnet18", "model_args": {"crop_size": 112, "crop_context": 8, "roi": ROI}},
    "Fast": {"model": "fast_rcnn_resnet18", "model_args": {"roi": ROI}},
    "Faster C4": {
        "model": "faster_rcnn_resnet18_c4", "model_args": {"roi": ROI, "rpn": NUMBERS, "anchor_sizes": ANCHORS},
    },
    "Faster FPN": {
        "model": "faster_rcnn_resnet18_fpn",
        "model_args": {"roi": ROI, "rpn": NUMBERS, "fpn_channels": 128, "box_channels": 512,
                       "anchor_sizes": [[16], [32], [64], [128], [256]]},
    },
}  # fmt: skip


def main() -> bool:
    """Whether every training has found something."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    data = data_folder("bccd")
    train_set, val, _ = read_splits(data, 0)
    assert val is not None
    sets = {"train": train_set, "val": val}
    if arguments.pictures:
        sets = {name: dataset.subset(range(min(arguments.pictures, len(dataset)))) for name, dataset in sets.items()}
        data = arguments.out / "some"
        if not data.exists():
            write_sets(sets, data, "coco")
    proposals = _proposals(sets, arguments)
    row(("system", "seed", "AP", "error", "AP50", "AR100", "train s", "test s", "fps"), WIDTHS)
    found, means = {}, {}
    for name in arguments.only or SYSTEMS:
        found[name] = []
        for seed in arguments.seeds:
            found[name].append(_measured(name, seed, data, sets, proposals, arguments))
            _show(name, seed, found[name][-1])
        means[name] = _mean(found[name])
        if len(arguments.seeds) > 1:
            _show(name, "mean", means[name])
    _plot(means, arguments.out / "rcnn-history.png")
    asked = {name: getattr(arguments, name) for name in ("epochs", "pictures", "seeds", "keys")}
    write(arguments.json, facts, {"systems": found, "means": means, **asked})
    return all(figures["AP50"] > 0 for seeds in found.values() for figures in seeds)


def _mean(seeds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure the mean, and AP's standard error where there are two seeds or more."""
    mean = {key: statistics.mean(figures[key] for figures in seeds) for key in seeds[0]}
    if len(seeds) > 1:
        mean["error"] = statistics.stdev(figures["AP"] for figures in seeds) / len(seeds) ** 0.5
    return mean


def _show(name: str, seed: int | str, shown: dict[str, float]) -> None:
    error = f"{shown['error']:.3f}" if "error" in shown else ""
    row((name, seed, f"{shown['AP']:.3f}", error, f"{shown['AP50']:.3f}", f"{shown['AR100']:.3f}",
         f"{shown['train']:.3f}", f"{shown['test']:.3f}", f"{1 / shown['test']:.2f}"), WIDTHS)  # fmt: skip


def _proposals(sets: dict[str, Dataset], arguments: argparse.Namespace) -> Path:
    file = arguments.out / "proposals.safetensors"
    if not file.exists():
        pictures = [(record.path, record.name) for dataset in sets.values() for record in dataset]
        began = time.perf_counter()
        made = propose(pictures, file, most=arguments.proposals)
        seconds = (time.perf_counter() - began) / len(pictures)
        print(f"{len(made.boxes) / len(pictures):.0f} proposals a picture, {seconds:.2f} s each", flush=True)
    return file


def _measured(
    name: str, seed: int, data: Path, sets: dict[str, Dataset], proposals: Path, arguments: argparse.Namespace
) -> dict[str, float]:
    """Train a system, or read its finished run, and time its testing."""
    keys = {**SAME, **SYSTEMS[name], "epochs": arguments.epochs, "threads": arguments.threads, "seed": seed}
    keys |= {"device": arguments.device, "model_args": {"norm": "group", **keys["model_args"]}}
    given = "rpn" not in keys["model_args"]
    if given:
        keys["proposals"] = str(proposals)
    out = arguments.out / f"{name.lower().replace(' ', '-')}-{seed}"
    fixed = [f"{key}={json.dumps(value)}" for key, value in keys.items()]
    config = resolve(Config, overrides=[*fixed, *arguments.keys])
    metrics = train(config, data, out, init=arguments.init, resume=out.exists(), progress=lambda _: None)
    bundle, val = ts.load(out / "last"), sets["val"]
    some = val.subset(range(min(len(val), arguments.timed)))
    options = {"device": arguments.device, "proposals": read_proposals(proposals) if given else None}
    dataset_results(bundle, some.subset([0]), **options)
    began = time.perf_counter()
    dataset_results(bundle, some, **options)
    figures = metrics["bbox"]
    first, *_, last = (row for row in read_history(out / "history.csv") if "loss" in row)
    return {
        "AP": figures["AP"] or 0.0,
        "AP50": figures["AP50"] or 0.0,
        "AP75": figures["AP75"] or 0.0,
        "AR100": figures["AR100"] or 0.0,
        # Between the first step and the last: without start, validation and what a stop cost.
        "train": (last["seconds"] - first["seconds"]) / ((last["step"] - first["step"]) * SAME["batch_size"]),
        "test": (time.perf_counter() - began) / len(some),
    }


def _plot(rows: dict[str, dict[str, float]], path: Path) -> None:
    """AP over seconds a picture in testing, a point a system, with the standard error where there is one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, shown in rows.items():
        axes.errorbar(shown["test"], shown["AP"], yerr=shown.get("error"), fmt="o", capsize=3)
        axes.annotate(name, (shown["test"], shown["AP"]), xytext=(7, 4), textcoords="offset points")
    axes.margins(0.2)
    axes.set(xscale="log", xlabel="seconds a picture in testing, proposals not counted", ylabel="AP on bccd's val")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    print(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="key=value of the recipe, for all")
    parser.add_argument("--out", type=Path, default=Path("rcnn-history"), help="folder of the runs (rcnn-history)")
    parser.add_argument("--init", type=Path, help="bundle of a ResNet-18 classifier with group norm (random weights)")
    parser.add_argument("--epochs", type=int, default=4, help="of each training (4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training of each system a seed (0)")
    parser.add_argument("--pictures", type=int, help="only so many of train and of val, 8 or more")
    parser.add_argument("--proposals", type=int, default=300, help="most proposals a picture (300)")
    parser.add_argument("--timed", type=int, default=20, help="pictures of val that testing is timed on (20)")
    parser.add_argument("--only", nargs="+", choices=list(SYSTEMS), help="these systems alone")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--device", default="cpu", help="where all run (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_intermixed_args()  # keys may come after options


if __name__ == "__main__":
    run(main)
