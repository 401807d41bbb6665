"""Is Tracesight as fast as torchvision? Prediction and a training step, in turn in one run, same weights and pictures.

Prediction goes from a decoded picture to boxes, scores and masks in the picture's resolution on both sides: torchvision
pastes its masks and makes them binary, ours becomes the objects of a scene. Training is forward, backward and update
(fused SGD at lr 0, so that every repetition does the same work) on a batch that is loaded already; torchvision's own
resizing is switched off there, since ours happens in the loader. torchvision has the frozen batch norms of its
published detectors. Before anything is timed, the outputs are compared: 99% of the objects of either within 1 px and a
score within 0.01 of one of the other, masks with an IoU of 0.9 (`parity.py` has the strict limits); losses from the
same samples to 1e-5 in float32, to 5% in bf16. Exit status 1 if they differ, or if ours is slower.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from figures import data_folder, machine, photographs, row, run, show, write
from labelled import for_torchvision, nuclei_batch, photograph_batch, whole_masks
from torch import Tensor, nn
from torchvision_peer import (
    agreement,
    as_picture,
    as_tensors,
    device_of,
    exact_products,
    freeze_norms,
    losses_with_our_choices,
    on,
    our_objects,
    ours,
    peer,
    small_peer,
    their_detections,
)

from tracesight.data.batch import Batch, Targets
from tracesight.data.pictures import open_picture
from tracesight.errors import PartialFailure
from tracesight.models.build import build
from tracesight.recipes.detect import Config
from tracesight.training.compiled import compiled
from tracesight.training.config import resolve
from tracesight.weights import load_weights

WIDTHS = (24, 9, 12, 7, 13, 9)
CASES = ("predict-mask", "predict-box", "train-resnet50", "train-small")
Work = Callable[[], Any]


def main() -> bool:
    """Whether ours is nowhere slower."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    row(("case", "ours s", "torchvision s", "ratio", "least–most", "held"), WIDTHS)
    figures = {}
    for case in arguments.cases:
        if case.startswith("predict"):
            pairs = _prediction(case == "predict-mask", arguments.pictures, arguments.side, arguments.device)
        elif case == "train-resnet50":
            pairs = _training(arguments.train_side, arguments.device, arguments.compile)
        else:
            pairs = _small_training(arguments.device, arguments.compile)
        figures[case] = _measure(case, pairs, arguments.repeats)
        if arguments.device != "cpu":
            figures[case] |= _on_device(pairs[0][0])
        del pairs
    write(arguments.json, facts, {"cases": figures})
    return all(figure["ratio"] >= 1.0 for figure in figures.values())


def _on_device(work: Work) -> dict[str, float]:
    """How many kernels ours launches, and for how many seconds the GPU works, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    events = seen.key_averages()
    launches = sum(event.count for event in events if "LaunchKernel" in event.key)
    kernels = [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    print(f"  {launches} kernels launched, the GPU works {1e3 * busy:.1f} ms")
    return {"launches": launches, "busy": busy}


def _measure(case: str, pairs: list[tuple[Work, Work]], repeats: int) -> dict[str, Any]:
    """Time the pairs (ours, torchvision's) in turn; whoever goes first changes with every repetition."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        spent = [0.0, 0.0]
        for pair in pairs:
            for side in (0, 1) if repeat % 2 == 0 else (1, 0):
                began = time.perf_counter()
                pair[side]()
                spent[side] += time.perf_counter() - began
        for total, one in zip(seconds, spent):
            total.append(one / len(pairs))
    our, their = (statistics.median(one) for one in seconds)
    ratios = [b / a for a, b in zip(*seconds)]
    ratio = statistics.median(ratios)
    spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
    row((case, f"{our:.3f}", f"{their:.3f}", f"{ratio:.2f}", spread, "yes" if ratio >= 1 else "NO"), WIDTHS)
    return {"ours": our, "torchvision": their, "ratio": ratio, "ratios": ratios, "seconds": seconds}


def _prediction(masks: bool, count: int, side: int, device: str) -> list[tuple[Work, Work]]:
    """Work on each of `count` photographs, after both have found the same on it."""
    paths = photographs(count)
    pictures = [open_picture(path) for path in paths]
    theirs = freeze_norms(peer([as_picture(p) for p in pictures], depth=50, masks=masks, side=side))
    model = ours(theirs, f"{'mask' if masks else 'faster'}_rcnn_resnet50_fpn").eval().to(device)
    theirs.to(device)
    pairs = []
    for path, picture in zip(paths, pictures):
        with exact_products():
            same = agreement(
                as_tensors(our_objects(model, picture, side)), their_detections(theirs, as_picture(picture))
            )
        # On one picture of a hundred objects each counts 1% (rounded to float32); parity.py holds all to 99%.
        if min(same.partners) < 0.989 or min(same.found) < 0.949:
            raise PartialFailure(f"{path}: the outputs differ, so no time is given: {same}")
        pairs.append(
            (
                lambda picture=picture: our_objects(model, picture, side),
                lambda picture=picture: their_detections(theirs, as_picture(picture)),
            )
        )
    return pairs


def _training(side: int, device: str, how: str) -> list[tuple[Work, Work]]:
    """A step of Mask R-CNN ResNet-50 FPN in float32 on two photographs."""
    paths = photographs(2)
    batch, targets = photograph_batch(paths, side)
    theirs = freeze_norms(peer([as_picture(open_picture(path)) for path in paths], depth=50, side=side))
    return [_steps(theirs, ours(theirs, "mask_rcnn_resnet50_fpn"), batch, targets, device, how, bf16=False)]


def _small_training(device: str, how: str) -> list[tuple[Work, Work]]:
    """A step of the network of preset `cpu` in bf16 on four pictures of nuclei."""
    config = resolve(Config, "cpu")
    regions = {**config.model_args.get("roi", {}), "max_objects": config.max_objects}
    model = build(config.model, 2, "torchvision", **{**config.model_args, "roi": regions})
    batch, targets = nuclei_batch(data_folder("nuclei") / "train", config.batch_size, side=256)
    theirs = small_peer(model, 256)
    load_weights(model, theirs.state_dict(), source="torchvision")
    return [_steps(theirs, model, batch, targets, device, how, bf16=True)]


def _steps(
    theirs: nn.Module, model: nn.Module, batch: Batch, targets: Targets, device: str, how: str, *, bf16: bool
) -> tuple[Work, Work]:
    """One training step each, after both have had the same losses from the same choices."""
    whole = whole_masks(batch, targets)
    theirs, model, batch, targets = theirs.to(device), model.to(device), on(batch, device), on(targets, device)
    for half, limit in ((False, 1e-5), (True, 0.05)) if bf16 else ((False, 1e-5),):
        half_or_not = torch.autocast(batch.images.device.type, torch.bfloat16, enabled=half)
        with torch.no_grad(), exact_products(), half_or_not:
            losses = losses_with_our_choices(copy.deepcopy(theirs), model, batch, targets, whole)
        for name, loss in losses[0].items():
            if not torch.isclose(loss, losses[1][name], rtol=limit, atol=limit):
                values = f"{float(loss):.7f}, torchvision's {float(losses[1][name]):.7f}"
                raise PartialFailure(f"{name} is {values}: the outputs differ, so no time is given")
    images, labels = for_torchvision(batch, targets, whole)
    theirs.transform._skip_resize = True
    network = compiled(model.train(), how, batch.images.device)
    ours_step = _step(model, lambda: network(batch, targets), bf16)
    their_step = _step(theirs.train(), lambda: theirs(images, labels), bf16)
    for _ in range(3):  # The first steps allocate what the later ones use again, compile, and record graphs.
        ours_step(), their_step()
    return ours_step, their_step


def _step(model: nn.Module, losses_of: Callable[[], dict[str, Tensor]], bf16: bool) -> Work:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, fused=True)
    device = device_of(model)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            loss = torch.stack(list(losses_of().values())).sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--device", default="cpu", help="where both run (cpu)")
    parser.add_argument("--compile", choices=("none", "kernels", "graphs"), default="none", help="our training (none)")
    parser.add_argument("--repeats", type=int, default=7, help="repetitions of each case (7)")
    parser.add_argument("--pictures", type=int, default=4, help="photographs that are predicted on (4)")
    parser.add_argument("--side", type=int, default=800, help="short side in prediction (800)")
    parser.add_argument("--train-side", type=int, default=512, help="short side in training, ResNet-50 (512)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
