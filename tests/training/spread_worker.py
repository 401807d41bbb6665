"""Twenty steps of a small Mask R-CNN, alone or under torchrun: prints the losses of each step as JSON.

    python spread_worker.py DATA '{"dtype": "float64", "how": "ddp", "norm": "group", "parts": 1}'

With "folder", a checkpoint there is taken up, and with "until" the steps end there and a checkpoint is written.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch

import tracesight as ts
from tracesight.data.formats import read_dataset
from tracesight.data.loader import training_batches
from tracesight.data.transforms import train_transform
from tracesight.training.begin import begin
from tracesight.training.checkpoint import load_newest
from tracesight.training.optim import build_optimiser
from tracesight.training.precision import repeatable
from tracesight.training.progress import Display
from tracesight.training.ranks import joined, of_first
from tracesight.training.signals import Stop
from tracesight.training.steps import steps, update
from tracesight.training.watch import LossWatch

ARGS = {
    "fpn_channels": 16, "box_channels": 32, "mask_channels": 16, "anchor_sizes": ((12,), (24,), (48,), (96,), (144,)),
    "rpn": {"pre_nms_train": 100, "post_nms_train": 50}, "roi": {"batch": 32, "max_objects": 12},
}  # fmt: skip


def main(
    data: str, dtype: str = "float64", how: str = "ddp", norm: str = "group", parts: int = 1,
    folder: str | None = None, until: int = 20,
) -> None:  # fmt: skip
    number = getattr(torch, dtype)
    with joined("cpu") as (ranks, device), repeatable(device, 1):
        dataset = read_dataset(Path(data))
        torch.manual_seed(0)
        model = ts.build("mask_rcnn_resnet18_fpn", num_classes=4, norm=norm, **ARGS).to(number)
        run = begin(
            model,
            lambda placed: build_optimiser("adamw", placed, lr=1e-3, weight_decay=0.05),
            device=device, ranks=ranks, stop=Stop(at_once=False), distributed=how, compile="none",
            batch_size=4, parts=parts, half=False, ema=True, total=until, identity={"config": {}},
        )  # fmt: skip
        if folder is not None:
            found = of_first(ranks, lambda: load_newest(Path(folder)))
            if found.state is not None:
                run.restore(found.state)
        rows = []

        def losses_of(network, loaded):
            batch = loaded.batch._replace(images=loaded.batch.images.to(number))
            targets = loaded.targets._replace(
                boxes=loaded.targets.boxes.to(number), mask_boxes=loaded.targets.mask_boxes.to(number)
            )
            return network(batch, targets)

        watch = LossWatch(run, dataset, Path(), losses_of, lambda step, row: rows.append(row))
        transform = partial(train_transform, image_size=96, scales=(0.6, 1.2), crop_size=80)

        def batches(first, count):
            return training_batches(dataset, batch_size=4, seed=3, start_step=first, steps=count, transform=transform,
                                    rank=ranks.rank, ranks=ranks.count)  # fmt: skip

        for _, part in steps(run, batches, lambda step: 1e-3, Display(lambda line: None)):
            update(run, losses_of(run.network, part), watch, clip_norm=5.0, ema_decay=0.9)
        whole = run.result  # asked for by all ranks
        if folder is not None:
            run.save(Path(folder), keep=1)
        if ranks.first:
            rows.append({"ema": sum(float(p.detach().double().abs().sum()) for p in whole.parameters())})
            print("ROWS " + json.dumps(rows), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
