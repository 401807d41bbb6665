"""Who learns more at equal budget, Tracesight or torchvision? Faster R-CNN FPN on `bccd`, Mask R-CNN FPN on `nuclei`.

Both train the network of preset `cpu` (ResNet-18 with group norm) from random weights, each from its own beginning and
with its own anchors, samples, losses and weights of convention; torchvision's is put together of its own parts. Batches
are the same, drawn and turned by our recipe, as are optimiser, warm-up, rate and clipping. Predictions are each side's
own; both are scored by our evaluation (which equals pycocotools'). Wanted: the mean over the seeds of our AP@all not
lower than torchvision's by more than one standard error of the difference; of one seed there is no error, and nothing
but the difference is shown. --same-start takes the beginning away as a reason for it.

A run lies in OUT/<data>-<ours, same-start or torchvision>-<seed>: ours goes on where it stopped, torchvision's begins
anew; what is finished is only read. Keys as key=value change the recipe of both. 100 steps of four pictures take a core
some minutes a side.
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
from labelled import for_torchvision, whole_masks
from torch import nn
from torchvision_peer import as_picture, on, small_peer, their_detections

from tracesight.bundle import Bundle
from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_splits
from tracesight.data.pictures import open_picture
from tracesight.evaluation.coco import evaluate
from tracesight.models.build import build
from tracesight.recipes.around import rate_of
from tracesight.recipes.detect import Config, batches_of, for_task, train
from tracesight.scene import Mask
from tracesight.training.config import resolve
from tracesight.training.optim import build_optimiser
from tracesight.training.prepare import Splits
from tracesight.training.ranks import ALONE
from tracesight.weights import load_weights

# Of each: the task, the kind of AP, and the side that pictures are brought to.
SETS = {"bccd": ("detect", "bbox", 320), "nuclei": ("segment", "segm", 512)}
SAME = (
    "ema=0", "validate_every=0", "val_loss_pictures=0", "samples=0", "precision=fp32", "sampling=uniform",
    "jitter=short_side", "checkpoint_every=50",
)  # fmt: skip
WIDTHS = (8, 6, 12, 12, 12)


def main() -> bool:
    """Whether ours is nowhere lower by more than one standard error."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    row(("data", "seed", "ours", "torchvision", "difference"), WIDTHS)
    found, good = {}, True
    for name in arguments.data:
        figures = found[name] = [one_seed(name, seed, arguments) for seed in arguments.seeds]
        apart = [ours - theirs for ours, theirs in figures]
        if len(apart) < 2:
            continue
        error = statistics.stdev(apart) / len(apart) ** 0.5
        held = statistics.mean(apart) >= -error
        mean = f"{statistics.mean(apart):+.4f}, standard error {error:.4f}"
        print(f"{name}: ours less torchvision's {mean}: {'held' if held else 'NOT HELD'}", flush=True)
        good = good and held
    write(arguments.json, facts, {"steps": arguments.steps, "keys": arguments.keys, "AP@all": found})
    return good


def one_seed(name: str, seed: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """AP@all on val, of ours and of torchvision's."""
    task, kind, side = SETS[name]
    keys = [*SAME, f"image_size={side}", f"max_steps={arguments.steps}", f"seed={seed}", f"device={arguments.device}"]
    keys += ["crop_size=null", "scales=null"] if task == "detect" else []
    config = for_task(resolve(Config, "cpu", overrides=[*keys, f"threads={arguments.threads}", *arguments.keys]), task)
    start = _start(name, config, arguments.out) if arguments.same_start else None
    out = arguments.out / f"{name}-{'same-start' if start else 'ours'}-{seed}"
    ours = train(config, data_folder(name), out, init=start, resume=True, progress=lambda _: None)
    file = arguments.out / f"{name}-torchvision-{seed}" / "metrics.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(torchvisions(name, kind, config)), encoding="utf-8")
    pair = tuple(metrics[kind]["AP@all"] or 0.0 for metrics in (ours, json.loads(file.read_text(encoding="utf-8"))))
    row((name, seed, *(f"{value:.4f}" for value in pair), f"{pair[0] - pair[1]:+.4f}"), WIDTHS)
    return pair[0], pair[1]


def _start(name: str, config: Config, out: Path) -> Path:
    """A bundle of ours with the weights that torchvision's network begins from."""
    folder, categories = out / f"{name}-start-{config.seed}", read_splits(data_folder(name), config.seed)[0].categories
    if not folder.exists():
        theirs, model = _networks(config, len(categories) + 1)
        load_weights(model, theirs.state_dict(), source="torchvision")
        Bundle.of(model, categories).save(folder)
    return folder


def _networks(config: Config, classes: int) -> tuple[Any, nn.Module]:
    """(torchvision's, ours), each with random weights of its own."""
    regions = {**config.model_args.get("roi", {}), "max_objects": config.max_objects}
    model = build(config.model, classes, "torchvision", **{**config.model_args, "roi": regions})
    return small_peer(model, config.image_size, config.seed), model


def torchvisions(name: str, kind: str, config: Config) -> dict[str, Any]:
    """Train torchvision's network on our batches; what it reaches on val."""
    sets, val, _ = read_splits(data_folder(name), config.seed)
    assert val is not None and config.max_steps is not None
    model, _ = _networks(config, len(sets.categories) + 1)
    model.roi_heads.score_thresh = 0.05
    model.to(config.device).train()
    model.transform._skip_resize = True
    optimiser = build_optimiser(config.optimiser, model, lr=config.lr, weight_decay=config.weight_decay)
    splits, began = Splits(sets, val, ()), time.perf_counter()
    for step, loaded in enumerate(batches_of(config, splits, None, ALONE, 0, print, 0, config.max_steps)):
        assert loaded.targets is not None
        masks = whole_masks(loaded.batch, loaded.targets)
        batch, targets = on(loaded.batch, config.device), on(loaded.targets, config.device)
        losses = model(*for_torchvision(batch, targets, masks))
        for group in optimiser.param_groups:
            group["lr"] = rate_of(config, config.max_steps, step)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        if config.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimiser.step()
    seconds = time.perf_counter() - began
    model.eval()
    model.transform._skip_resize = False
    figures = evaluate(results_of(model, val), val, max_objects=config.max_objects, kinds=[kind])
    return {**figures, "seconds": seconds}


def results_of(model: nn.Module, val: Dataset) -> list[dict[str, Any]]:
    """torchvision's detections as COCO results."""
    results = []
    for record in val:
        found = their_detections(model, as_picture(open_picture(record.path)))
        for number, (x1, y1, x2, y2) in enumerate(found["boxes"].tolist()):
            result = {
                "image_id": record.id, "category_id": val.category_ids[int(found["labels"][number]) - 1],
                "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(found["scores"][number]),
            }  # fmt: skip
            if "masks" in found:
                result["segmentation"] = Mask.from_array(found["masks"][number].numpy()).to_coco()
            results.append(result)
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="key=value of the recipe, for both")
    parser.add_argument("--out", type=Path, default=Path("free-training"), help="folder of the runs (free-training)")
    parser.add_argument("--data", nargs="+", choices=list(SETS), default=list(SETS), help="these alone (both)")
    parser.add_argument("--steps", type=int, default=200, help="updates of each (200)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training of each side a seed (0)")
    parser.add_argument("--same-start", action="store_true", help="ours begins from torchvision's random weights")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--device", default="cpu", help="where both run (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_intermixed_args()  # keys may come after options


if __name__ == "__main__":
    run(main)
