"""How much memory does predicting one large picture take? Mask R-CNN ResNet-50 FPN, 4000 × 3000 pixels, 100 masks.

The figure is the peak resident memory of a fresh process that loads a bundle and predicts: Python, torch and the model
included. The weights are random, rescaled on the picture until at least 100 objects are found. Exit status 1 if the
peak is not below 2.5 GB, or if fewer masks come out. `--peer` measures torchvision on the same picture and weights too,
whose pasted masks alone take 5 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Nothing heavy is imported here: a child's peak begins with what its parent holds.
LIMIT_GB, WIDTH, HEIGHT, MASKS, SIDE = 2.5, 4000, 3000, 100, 800
PICTURE, BUNDLE, WEIGHTS = "picture.jpg", "bundle", "torchvision.pt"


def main() -> bool:
    """Whether the peak is below the limit."""
    from figures import machine, row, show, write

    arguments = _arguments()
    facts = machine(arguments.threads)
    show(facts)
    with tempfile.TemporaryDirectory() as folder:
        _child("prepare", folder, arguments.threads)
        figures = {"ours": _child("ours", folder, arguments.threads)}
        if arguments.peer:
            figures["torchvision"] = _child("torchvision", folder, arguments.threads)
    widths = (12, 9, 15, 9)
    row(("", "peak GB", "before it, GB", "masks"), widths)
    for name, figure in figures.items():
        row((name, f"{figure['peak']:.2f}", f"{figure['before']:.2f}", figure["masks"]), widths)
    held = figures["ours"]["peak"] < LIMIT_GB and figures["ours"]["masks"] >= MASKS
    print(f"limit {LIMIT_GB} GB for {MASKS} masks: {'held' if held else 'NOT HELD'}")
    write(arguments.json, facts, {"limit": LIMIT_GB, "peaks": figures})
    return held


def prepare(folder: Path) -> None:
    """Write the picture, the bundle and the same weights for torchvision."""
    import numpy as np
    from PIL import Image
    from torchvision_peer import as_picture, ours, peer

    import tracesight as ts

    # Noise at several scales: as many objects as anyone could want, small and large.
    random = np.random.default_rng(0)
    canvas = np.zeros((HEIGHT, WIDTH, 3))
    for cell in (8, 40, 200):
        noise = random.integers(0, 256, (HEIGHT // cell, WIDTH // cell, 3), dtype=np.uint8)
        canvas += np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    picture = Image.fromarray((canvas / 3).astype(np.uint8))
    picture.save(folder / PICTURE, quality=90)
    # Already as small as the network takes it: torchvision would paste masks into the large one six times.
    small = np.array(picture.resize((WIDTH * SIDE // HEIGHT, SIDE), Image.Resampling.BILINEAR))
    theirs = peer([as_picture(small)], depth=50, side=SIDE)
    model = ours(theirs, "mask_rcnn_resnet50_fpn")
    ts.Bundle.of(model, {label: str(label) for label in range(1, 91)}, image_size=SIDE).save(folder / BUNDLE)
    _torch().save(theirs.state_dict(), folder / WEIGHTS)


def predict(folder: Path) -> dict[str, Any]:
    """Ours: load the bundle, predict, count the masks."""
    import tracesight as ts

    bundle = ts.load(folder / BUNDLE)
    before = _peak()
    scene = bundle.predict(folder / PICTURE, threshold=0.05)
    masks = [item for item in scene.objects if item.mask is not None]
    return {"peak": _peak(), "before": before, "masks": len(masks), "pixels": sum(item.mask.area for item in masks)}


def predict_peer(folder: Path) -> dict[str, Any]:
    """torchvision: the same, its masks made binary."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision_peer import as_picture, freeze_norms, their_detections

    from tracesight.data.pictures import open_picture

    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    theirs.load_state_dict(_torch().load(folder / WEIGHTS, weights_only=True))
    theirs = freeze_norms(theirs).eval()
    before = _peak()
    masks = their_detections(theirs, as_picture(open_picture(folder / PICTURE)))["masks"]
    return {"peak": _peak(), "before": before, "masks": len(masks), "pixels": int(masks.sum())}


def _torch() -> Any:
    import torch

    return torch


def _peak() -> float:
    """Peak resident memory of this process so far, in GB (10^9 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _child(job: str, folder: str, threads: int) -> dict[str, Any]:
    from figures import Missing

    command = [sys.executable, __file__, "--job", job, "--folder", folder, "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Missing(f"the process of {job!r} ended with status {done.returncode}; what it said is above")
    return json.loads(done.stdout or "{}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--peer", action="store_true", help="measure torchvision too (needs 16 GB)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--job", choices=("prepare", "ours", "torchvision"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _job(arguments: argparse.Namespace) -> None:
    _torch().set_num_threads(arguments.threads)
    if arguments.job == "prepare":
        prepare(arguments.folder)
    else:
        print(json.dumps((predict if arguments.job == "ours" else predict_peer)(arguments.folder)))


if __name__ == "__main__":
    if (given := _arguments()).job:
        _job(given)
    else:
        from figures import run

        run(main)
