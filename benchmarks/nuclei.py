"""What does preset `cpu` reach on `nuclei` from random weights, and in what time? Masks, on `val`.

The same as `tracesight train --task segment NUCLEI --preset cpu --out OUT`. The time is training and validation as the
run records it, the final evaluation excluded; reading and checking the data comes before it. `--rescore` predicts `val`
again with the bundle in OUT/last, writes scenes, and scores their JSON with pycocotools alone. Exit status 1 where
AP@all is under 0.42, AP50@all under 0.75, the time over 30 minutes, or the two scores are not the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from figures import data_folder, machine, row, run, show, write

import tracesight as ts
from tracesight.recipes.detect import Config, for_task, train
from tracesight.training.config import resolve
from tracesight.training.history import read_history

LIMITS = {"AP@all": 0.42, "AP50@all": 0.75}
MINUTES, SAME, LEAST_SCORE = 30.0, 0.001, 0.05
WIDTHS = (26, 10, 10, 6)


def main() -> bool:
    """Whether the figures hold."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    data = data_folder("nuclei")
    config = for_task(resolve(Config, "cpu", overrides=arguments.keys), "segment")
    metrics = train(config, data, arguments.out, resume=arguments.resume)
    minutes = training_seconds(read_history(arguments.out / "history.csv")) / 60
    figures = {name: metrics["segm"][name] or 0.0 for name in LIMITS}
    again = rescore(arguments.out, data / "val") if arguments.rescore else {}

    row(("", "reached", "limit", "held"), WIDTHS)
    checks = [_check("minutes", minutes, f"≤ {MINUTES:g}", minutes <= MINUTES, ".1f")]
    checks += [_check(f"mask {name}", figures[name], f"≥ {limit}", figures[name] >= limit) for name, limit in
               LIMITS.items()]  # fmt: skip
    for name, value in again.items():
        same = abs(value - figures[name]) <= SAME
        checks.append(_check(f"{name} by pycocotools", value, f"± {SAME}", same))
    row(("minutes with final evaluation", f"{metrics['seconds'] / 60:.1f}"), WIDTHS)
    row(("steps", metrics["steps"]), WIDTHS)
    reached = {"minutes": minutes, "steps": metrics["steps"], "masks": figures, "by pycocotools": again}
    write(arguments.json, facts, {**reached, "keys": arguments.keys, "metrics": metrics})
    return all(checks)


def training_seconds(rows: list[dict[str, float]]) -> float:
    """Seconds until the last update was made, validations on the way included, from the rows of history.csv.

    A row is written when a step's losses are known: the last update itself is taken to last as long as a usual step.
    """
    steps = [one["seconds"] for one in rows if "loss" in one]
    usual = statistics.median(b - a for a, b in pairwise(steps)) if len(steps) > 1 else 0.0
    return steps[-1] + usual


def rescore(out: Path, val: Path) -> dict[str, float]:
    """Predict `val` with the last bundle into OUT/rescore, and score the masks of those scenes with pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = json.loads((val / "instances.json").read_text(encoding="utf-8"))
    # pycocotools takes annotation id 0 for "no match".
    annotations = [{**annotation, "id": number} for number, annotation in enumerate(labels["annotations"], start=1)]
    truth = COCO()
    truth.dataset = {**labels, "annotations": annotations}
    truth.createIndex()
    bundle = ts.load(out / "last")
    (out / "rescore").mkdir(exist_ok=True)
    results = []
    for picture in labels["images"]:
        file = out / "rescore" / f"{Path(picture['file_name']).stem}.json"
        bundle.predict(val / "images" / picture["file_name"], threshold=LEAST_SCORE).save(file)
        scene = json.loads(file.read_text(encoding="utf-8"))
        results += [_result(item, picture["id"]) for item in scene["objects"]]
    if not results:
        return dict.fromkeys(LIMITS, 0.0)
    evaluation = COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.params.maxDets = [1, 100, bundle.max_objects]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU, recall, category; all areas, all objects
    return {
        "AP@all": float(precision[precision > -1].mean()),
        "AP50@all": float(precision[0][precision[0] > -1].mean()),
    }


def _result(item: dict[str, Any], picture: int) -> dict[str, Any]:
    return {
        "image_id": picture,
        "category_id": item["category_id"],
        "score": item["score"],
        "segmentation": item["mask"],
    }


def _check(name: str, value: float, limit: str, held: bool, digits: str = ".3f") -> bool:
    row((name, f"{value:{digits}}", limit, "yes" if held else "NO"), WIDTHS)
    return held


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "keys", nargs="*", metavar="KEY=VALUE", help="keys that replace the preset's, as in max_steps=4"
    )
    parser.add_argument("--out", type=Path, default=Path("nuclei-run"), help="folder of the run (nuclei-run)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUT; a finished one is only read")
    parser.add_argument("--rescore", action="store_true", help="score the scenes with pycocotools too")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
