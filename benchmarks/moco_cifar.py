"""Does MoCo learn anything worth having in two hours of a CPU, and in 200 epochs on a GPU?

    short     8 epochs of `cifar10-jpeg` with ResNet-18 in CIFAR form, MoCo v2, views of 16 × 16, batch 128 (about two
              hours of two cores); wanted: kNN 15 points above that of random weights, both looked at as training does
    long      preset `moco-cifar`, 200 epochs of 512 pictures, for a GPU

The run lies in --out and goes on where it stopped, however often it is stopped. Keys as key=value change the recipe.
Exit status 1 where the figure does not hold, or where the run is not finished yet (`--report` looks without training).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from degradation import unpacked
from figures import machine, row, run, show, write

from tracesight.bundle import Bundle
from tracesight.data.formats import read_splits
from tracesight.models.build import build
from tracesight.recipes import pretrain
from tracesight.training.config import resolve
from tracesight.training.history import read_history
from tracesight.training.nearest import Known, knn_figures, known_pictures
from tracesight.training.precision import repeatable
from tracesight.training.prepare import Splits

WANTED = 0.15
SHORT = (
    "method=moco-v2", "epochs=8", "batch_size=128", "bn_group=64", "queue=512", "temperature=0.1", "optimiser=adamw",
    "lr=0.001", "weight_decay=0.0001", "warmup_steps=200", "image_size=16", "area=[0.2,1.0]", "validate_every=625",
    "knn_pictures=10000", "checkpoint_every=50", "workers=0", "threads=2", "precision=fp32", "device=cpu",
)  # fmt: skip


def main() -> bool:
    arguments = _arguments()
    facts = machine(1)
    show(facts)
    with tempfile.TemporaryDirectory() as folder:
        data = _data(arguments, Path(folder))
        keys = [*(SHORT if arguments.case == "short" else ()), *arguments.keys]
        config = resolve(pretrain.Config, "moco-cifar", overrides=keys)
        if not arguments.report:
            pretrain.train(config, data, arguments.out, resume=True)
        random = knn_of_random(config, data)
        print(f"kNN of random weights: {random:.4f}", flush=True)
    rows = [r for r in read_history(arguments.out / "history.csv") if "val_image_knn" in r]
    widths = (10, 12, 10)
    row(("step", "kNN", "above"), widths)
    for found in rows:
        row((int(found["step"]), f"{found['val_image_knn']:.4f}", f"{found['val_image_knn'] - random:+.4f}"), widths)
    finished = (arguments.out / "metrics.json").is_file()
    above = rows[-1]["val_image_knn"] - random if rows else float("nan")
    good = finished and above >= WANTED
    print(
        f"{'finished' if finished else 'NOT FINISHED'}; at least {WANTED}: {'held' if good else 'NOT HELD'}", flush=True
    )
    write(arguments.json, facts, {"random": random, "knn": rows[-1]["val_image_knn"] if rows else None, "above": above})
    return good


def knn_of_random(config: pretrain.Config, data: dict[str, Path]) -> float:
    """The figure of an encoder that has learnt nothing, looked at as training does."""
    import torch

    from tracesight.evaluation.knn import neighbours
    from tracesight.predict.features import dataset_features

    train, val, _ = read_splits(data, 0, needs="image labels")
    known = known_pictures(Splits(train, val, ()), config.knn_pictures, config.neighbours, config.knn_temperature)
    assert isinstance(known, Known) and isinstance(config.image_size, int)
    with torch.random.fork_rng(devices=[]), repeatable(torch.device("cpu"), config.threads):
        torch.manual_seed(config.seed)
        bundle = Bundle.of(build(config.model, 0, **config.model_args), {}, image_size=config.image_size)
        asked, bank = (dataset_features(bundle, part.dataset) for part in (known.asked, known.bank))
    return float(knn_figures(neighbours(asked, bank, known.k), known)["top1"])


def _data(arguments: argparse.Namespace, folder: Path) -> dict[str, Path]:
    place = arguments.data or unpacked(folder)
    return {"train": place / "train", "val": place / "test"}


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("short", "long"))
    parser.add_argument("keys", nargs="*", help="key=value of the recipe")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--data", type=Path, help="unpacked pictures, with train and test; default: unpack them")
    parser.add_argument("--report", action="store_true", help="only look at what is there")
    parser.add_argument("--json", type=Path)
    return parser.parse_intermixed_args()  # keys may come after --out


if __name__ == "__main__":
    run(main)
