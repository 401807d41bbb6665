"""What keypoint AP does a small Mask R-CNN with a keypoint head reach on stick figures, from random weights?

Makes pictures (`stick_figures.py`), trains, and scores figures that it has not seen: COCO's keypoint AP, with the
default σ of 0.05 for each point and the boxes' areas as the objects'. `--no-swap` trains on labels that say that no
point has a twin, so that a mirrored picture calls a left hand left: what that costs. Exit status 1 where AP is under
0.8.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from figures import machine, row, run, show, write
from stick_figures import make_figures

from tracesight.recipes.detect import Config, train

LIMIT = 0.8
SIDE = 96
WIDTHS = (26, 10, 10, 6)
CONFIG = {
    "model": "keypoint_rcnn_resnet18_fpn",
    "model_args": {
        "norm": "group", "fpn_channels": 64, "box_channels": 128, "keypoint_channels": 64,
        "anchor_sizes": [[12], [24], [48], [96], [144]],
        "rpn": {"pre_nms_train": 300, "post_nms_train": 150, "pre_nms_test": 300, "post_nms_test": 100},
        "roi": {"batch": 32},
    },
    "max_objects": 20, "max_steps": 500, "batch_size": 4, "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.05,
    "warmup_steps": 40, "clip_norm": 5.0, "image_size": SIDE, "validate_every": 0, "val_loss_pictures": 0,
    "checkpoint_every": 100, "keep_checkpoints": 1, "samples": 0, "workers": 0,
}  # fmt: skip


def main() -> bool:
    """Whether the figure holds."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    data = arguments.out / "data"
    if not data.exists():
        for seed, (split, pictures) in enumerate((("train", 600), ("val", 60))):
            make_figures(data / split, pictures=pictures, seed=seed, side=SIDE)
    if arguments.no_swap:
        _without_twins(data)
    config = Config(**{**CONFIG, "threads": arguments.threads, "max_steps": arguments.steps})
    metrics = train(config, data, arguments.out / "run", resume=arguments.resume)
    points, boxes = metrics["keypoints"], metrics["bbox"]
    held = points["AP"] >= LIMIT
    row(("", "reached", "limit", "held"), WIDTHS)
    row(("keypoint AP", f"{points['AP']:.3f}", f"≥ {LIMIT}", "yes" if held else "NO"), WIDTHS)
    row(("keypoint AP50, AP75", f"{points['AP50']:.3f}", f"{points['AP75']:.3f}"), WIDTHS)
    row(("box AP, AP50", f"{boxes['AP']:.3f}", f"{boxes['AP50']:.3f}"), WIDTHS)
    row(("steps, minutes", metrics["steps"], f"{metrics['seconds'] / 60:.1f}"), WIDTHS)
    write(arguments.json, facts, {"metrics": metrics, "swap": not arguments.no_swap})
    return held


def _without_twins(data: Path) -> None:
    for file in data.rglob("instances.json"):
        labels = json.loads(file.read_text(encoding="utf-8"))
        labels["categories"][0]["flip_pairs"] = []
        file.write_text(json.dumps(labels), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("keypoints-run"), help="folder of data and run (keypoints-run)"
    )
    parser.add_argument("--steps", type=int, default=CONFIG["max_steps"], help="updates (500)")
    parser.add_argument("--no-swap", action="store_true", help="labels without twins")
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
