"""Lightly's MoCo on CIFAR-10, the peer of `moco_cifar.py long`: same files, network, views, schedule and kNN.

It needs `pip install lightly`. Parts are Lightly's: transforms, projection head, loss with its memory bank, momentum
update, shuffling; the loop around them is its documented example. Batch norm is over the whole batch of one GPU, as
there. One line at the end: its kNN, looked at as ours is. With several seeds run it several times.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from degradation import unpacked
from figures import Missing, machine, run, show, write
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from tracesight.bundle import Bundle
from tracesight.data.formats import read_splits
from tracesight.evaluation.knn import neighbours
from tracesight.models.build import build
from tracesight.models.encode import pooled
from tracesight.predict.features import dataset_features
from tracesight.recipes import pretrain
from tracesight.training.config import resolve
from tracesight.training.nearest import knn_figures, known_pictures
from tracesight.training.prepare import Splits


def main() -> bool:
    arguments = _arguments()
    try:
        import lightly
    except ImportError as error:
        raise Missing(f"{error.name} is not installed: pip install lightly") from None
    facts = {**machine(torch.get_num_threads()), "lightly": lightly.__version__}
    show(facts)
    config = resolve(pretrain.Config, "moco-cifar", overrides=arguments.keys)
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.data or unpacked(Path(folder))
        torch.manual_seed(config.seed)
        encoder = learned(config, place / "train", arguments)
        train, val, _ = read_splits({"train": place / "train", "val": place / "test"}, 0, needs="image labels")
        known = known_pictures(Splits(train, val, ()), config.knn_pictures, config.neighbours, config.knn_temperature)
        assert known is not None
        bundle = Bundle.of(encoder, {}, image_size=config.image_size)
        asked, bank = (dataset_features(bundle, part.dataset) for part in (known.asked, known.bank))
    figures = knn_figures(neighbours(asked, bank, known.k), known)
    print(f"kNN of Lightly's MoCo, seed {config.seed}: {figures['top1']:.4f}", flush=True)
    write(arguments.json, facts, {"knn": figures, "config": config.model_dump(mode="json")})
    return True


def learned(config: pretrain.Config, folder: Path, arguments: argparse.Namespace) -> nn.Module:
    """The encoder after the schedule of `config`."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import MoCoProjectionHead
    from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum
    from lightly.transforms.moco_transform import MoCoV2Transform

    size, device = config.image_size, arguments.device
    views = MoCoV2Transform(input_size=size, min_scale=config.area[0], gaussian_blur=0.0)
    loader = DataLoader(
        ImageFolder(str(folder), views), config.batch_size, shuffle=True, drop_last=True, num_workers=config.workers
    )
    encoder = build(config.model, 0).to(device)
    width = pooled(encoder, torch.zeros(1, 3, size, size, device=device)).shape[1]
    head = MoCoProjectionHead(width, width, config.dim or 128, num_layers=1).to(device)
    slow, slow_head = copy.deepcopy(encoder), copy.deepcopy(head)
    for module in (slow, slow_head):
        deactivate_requires_grad(module)
    criterion = NTXentLoss(config.temperature or 0.1, memory_bank_size=(config.queue or 4096, config.dim or 128)).to(
        device
    )
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.SGD(parameters, config.lr, config.momentum, weight_decay=config.weight_decay)
    total, step = arguments.steps or config.epochs * len(loader), 0
    while step < total:
        for (first, second), _ in loader:
            for group in optimiser.param_groups:
                group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * step / total))
            update_momentum(encoder, slow, config.key_momentum)
            update_momentum(head, slow_head, config.key_momentum)
            query = head(pooled(encoder, first.to(device)))
            with torch.no_grad():
                mixed, order = batch_shuffle(second.to(device))
                key = batch_unshuffle(slow_head(pooled(slow, mixed)), order)
            loss = criterion(query, key)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            if step % 100 == 0 or step == total:
                print(f"step {step}/{total}: loss {float(loss.detach()):.3f}", flush=True)
            if step == total:
                break
    return encoder.eval()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="key=value, as those of `moco_cifar.py long`")
    parser.add_argument("--data", type=Path, help="unpacked pictures, with train and test; default: unpack them")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, help="stop after so many, to try it out")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
