"""Does fine-tuning gain from masked autoencoding on CIFAR-10, at equal steps of fine-tuning?

ViT-Ti with patches of 4 learns from the 50,000 pictures of `cifar10-jpeg` without their labels, then is fine-tuned with
them (layer decay, drop path, mixup, CutMix, label smoothing), beside the same fine-tuning from random weights. Wanted:
the mean gain in top-1 above twice its standard error.

    short     4 epochs of pretraining, 500 steps of fine-tuning on 2,000 pictures; hours of one core
    long      400 epochs and 100 epochs, for a GPU

Everything lies in --out: one pretraining and two fine-tunings a seed, each of which goes on where it stopped. `--seeds`
and `--part pretrain|tuned|random` choose what is run now; the table shows what is finished. Keys as key=value change
both recipes (device, workers, threads, precision). Exit status 1 where the figure does not hold or is not all there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from degradation import unpacked
from figures import machine, row, run, show, write

from tracesight.recipes import classify, pretrain
from tracesight.training.config import resolve

PARTS = ("pretrain", "tuned", "random")
LEARN = ("model=vit_tiny_patch4", "decoder=[128,2,4]", "image_size=32", "area=[0.2,1.0]", "knn_pictures=10000")
TUNE = (
    "model=vit_tiny_patch4", "model_args={pool: mean, drop_path: 0.1}", "image_size=32", "test_resize=32",
    "crop=padded", "rand_augment=0", "layer_decay=0.75", "samples=0",
)  # fmt: skip
CASES = {
    "short": (
        ("epochs=4", "batch_size=128", "lr=1e-3", "warmup_steps=150", "validate_every=400", "checkpoint_every=50"),
        ("max_steps=500", "batch_size=64", "lr=1e-3", "warmup_steps=50", "validate_every=0", "checkpoint_every=50"),
        ("device=cpu", "workers=0", "threads=1", "precision=fp32"),
    ),
    "long": (
        ("epochs=400", "batch_size=1024", "lr=6e-4", "warmup_steps=1000", "validate_every=2000"),
        ("epochs=100", "batch_size=512", "lr=1e-3", "warmup_steps=500", "validate_every=2000"),
        (),
    ),
}  # fmt: skip
FEW = 200  # pictures of each category that the short case is fine-tuned on


def main() -> bool:
    arguments = _arguments()
    facts = machine(1)
    show(facts)
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.data or unpacked(Path(folder))
        tuned_on = place / "train" if arguments.case == "long" else few(place / "train", Path(folder, "few"))
        for seed in arguments.seeds:
            for part in arguments.part or PARTS:
                one(arguments, part, seed, place, tuned_on)
    gains = gains_of(arguments.out, arguments.seeds)
    enough = len(gains) == len(arguments.seeds) >= 2
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) >= 2 else float("nan")
    good = enough and statistics.mean(gains) > 2 * error
    if gains:
        print(f"gain {statistics.mean(gains):+.4f}, standard error {error:.4f}", flush=True)
    print(f"{len(gains)} of {len(arguments.seeds)} seeds are finished: {'held' if good else 'NOT HELD'}", flush=True)
    write(arguments.json, facts, {"gains": gains, "error": error})
    return good


def one(arguments: Any, part: str, seed: int, place: Path, tuned_on: Path) -> None:
    """A pretraining or a fine-tuning, or the rest of it."""
    learn, tune, where = CASES[arguments.case]
    keys, out = [*where, *arguments.keys, f"seed={seed}"], arguments.out / f"{part}-{seed}"
    if part == "pretrain":
        config = resolve(pretrain.Config, "mae", overrides=[*LEARN, *learn, *keys])
        pretrain.train(config, {"train": place / "train", "val": place / "test"}, out, resume=True)
        return
    init = None if part == "random" else arguments.out / f"pretrain-{seed}" / "last"
    if init is not None and not init.is_dir():
        print(f"{out.name}: waits for {init}", flush=True)
        return
    config = resolve(classify.Config, "mae-finetune", overrides=[*TUNE, *tune, *keys])
    classify.train(config, {"train": tuned_on, "val": place / "test"}, out, init=init, resume=True)


def few(train: Path, folder: Path) -> Path:
    """Links to the first pictures of each category."""
    for category in sorted(path for path in train.iterdir() if path.is_dir()):
        (folder / category.name).mkdir(parents=True)
        for picture in sorted(category.iterdir())[:FEW]:
            (folder / category.name / picture.name).symlink_to(picture.resolve())
    return folder


def gains_of(out: Path, seeds: list[int]) -> list[float]:
    """By how much top-1 is higher after pretraining, of each seed whose three parts are finished; prints a table."""
    widths, gains = (8, 12, 12, 10), []
    row(("seed", "random", "pretrained", "gain"), widths)
    for seed in seeds:
        found = [out / f"{part}-{seed}" / "metrics.json" for part in ("random", "tuned")]
        if all(path.is_file() for path in found):
            random, tuned = (json.loads(path.read_text())["image"]["top1"] for path in found)
            gains.append(tuned - random)
            row((seed, f"{random:.4f}", f"{tuned:.4f}", f"{tuned - random:+.4f}"), widths)
    return gains


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("keys", nargs="*", help="key=value of both recipes")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="unpacked pictures, with train and test; default: unpack them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part (may be repeated)")
    parser.add_argument("--json", type=Path)
    return parser.parse_intermixed_args()  # keys may come after --out


if __name__ == "__main__":
    run(main)
