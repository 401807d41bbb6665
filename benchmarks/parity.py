"""Do Tracesight and torchvision say the same? Mask R-CNN ResNet-50 FPN on photographs, same random weights.

Ours is what `predict` makes: the objects of a scene, masks in the picture's resolution. An object is found where the
other side has one of its class within 0.05 px, a score within 1e-4 and a mask of IoU 0.99. The columns box, score and
mask IoU are the worst of all pairs that lie anywhere near each other, found or not. The weights are random and
rescaled until scores spread, so that the comparison needs no download. Then the losses of a first step are compared;
torchvision gets the proposals and samples that ours chose, since each draws its own. Exit status 1 where a limit is
missed.

Both networks see the picture as ours resizes it. What torchvision's own resizing makes of it is compared by itself, in
the column resize: the largest difference of a pixel, in 0–1. torch's kernels round the place that a pixel comes from
once (with AVX2) or twice; ours rounds twice everywhere. Of 2e-5 in a pixel a network of random weights makes 3e-4 in
a score, more than of all other rounding.

--double compares in double precision, where rounding decides nothing: all must then be found. In float32 it decides
what comes last among a thousand regions, more so with the deeper heads of v2.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import asdict
from pathlib import Path

import torch
from figures import machine, photographs, row, run, show, write
from labelled import photograph_batch, whole_masks
from torch import nn
from torchvision_peer import (
    Agreement,
    agreement,
    as_picture,
    as_tensors,
    device_of,
    doubled,
    doubled_batch,
    losses_with_our_choices,
    on,
    our_objects,
    ours,
    peer,
    resized_picture,
    their_detections,
)

from tracesight.data.pictures import open_picture

FOUND, LOSS, LOSS_DOUBLE = 0.99, 1e-5, 1e-6
RESIZE = 1e-4
OBJECTS, CLASSES = 50, 2
WIDTHS = (20, 7, 7, 7, 9, 9, 8, 8, 8, 8)


def main() -> bool:
    """Whether everything held."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts = machine(arguments.threads)
    show(facts)
    paths = photographs(arguments.pictures)
    theirs = peer([as_picture(open_picture(path)) for path in paths[:4]], side=arguments.side, v2=arguments.v2)
    model = ours(theirs, "mask_rcnn_resnet50_fpn" + ("_v2" if arguments.v2 else "")).eval().to(arguments.device)
    theirs.to(arguments.device)
    if arguments.double:
        theirs, model = doubled(theirs, model)
    row(("picture", "objects", "theirs", "classes", "found", "by them", "box", "score", "mask IoU", "resize"), WIDTHS)
    rows, resize = {}, {}
    for path in paths:
        rows[path.stem], resize[path.stem] = _compare(theirs, model, path, arguments.side)
    total, held = _total(list(rows.values()), max(resize.values()), 1.0 if arguments.double else FOUND)
    held = held and total["resize"] <= RESIZE
    noise = _noise(theirs, paths) if arguments.noise else None
    losses, losses_held = ({}, True) if arguments.v2 else _losses(theirs, model, paths[:2], arguments.loss_side)
    rows = {name: {**asdict(same), "resize": resize[name]} for name, same in rows.items()}
    given = {"side": arguments.side, "double": arguments.double}
    write(arguments.json, facts, {**given, "total": total, "noise": noise, "losses": losses, "pictures": rows})
    print("held" if held and losses_held else "NOT HELD")
    return held and losses_held


def _compare(theirs: nn.Module, model: nn.Module, path: Path, side: int) -> tuple[Agreement, float]:
    """How the detections compare, and the largest difference of a resized pixel."""
    picture = open_picture(path)
    resized, whole = resized_picture(picture, side), as_picture(picture)
    resize = float((theirs.transform.resize(whole, None)[0] - resized).abs().max())
    same = agreement(as_tensors(our_objects(model, picture, side)), their_detections(theirs, whole, resized))
    _line(path.stem, same.ours, same.objects, same.classes, *same.found, same.box, same.score, same.mask_iou, resize)
    return same, resize


def _total(rows: list[Agreement], resize: float, least: float) -> tuple[dict[str, float], bool]:
    """Figures over all objects of all pictures, and whether so many are found."""
    our_count, their_count = sum(same.ours for same in rows), sum(same.objects for same in rows)
    total = {
        "ours": our_count,
        "theirs": their_count,
        "classes": max(same.classes for same in rows),
        "found": sum(same.found[0] * same.ours for same in rows) / max(our_count, 1),
        "found by them": sum(same.found[1] * same.objects for same in rows) / max(their_count, 1),
        "box": max(same.box for same in rows),
        "score": max(same.score for same in rows),
        "mask IoU": min(same.mask_iou for same in rows),
        "resize": resize,
        "pictures with enough objects": sum(same.objects >= OBJECTS for same in rows),
        "pictures with several classes": sum(same.classes >= CLASSES for same in rows),
    }
    _line("all", *list(total.values())[:9])
    enough, several = total["pictures with enough objects"], total["pictures with several classes"]
    print(f"{enough} of {len(rows)} pictures with at least {OBJECTS} objects, {several} with several classes")
    print(f"limit: {least:.0%} found both ways")
    return total, min(total["found"], total["found by them"]) >= least and their_count >= OBJECTS * len(rows)


def _noise(theirs: nn.Module, paths: list[Path]) -> dict[str, float]:
    """torchvision against itself with its weights channels last: what the order of additions alone does to it."""
    print("torchvision against itself in another memory format:")
    other, rows = copy.deepcopy(theirs).to(memory_format=torch.channels_last), []  # type: ignore[call-overload]
    for path in paths:
        picture = as_picture(open_picture(path))
        rows.append(agreement(their_detections(other, picture), their_detections(theirs, picture)))
    return _total(rows, 0.0, FOUND)[0]


def _losses(theirs: nn.Module, model: nn.Module, paths: list[Path], side: int) -> tuple[dict[str, list[float]], bool]:
    """(ours, torchvision's) by name, and whether they agree."""
    batch, targets = photograph_batch(paths, side)
    limit = LOSS
    if next(model.parameters()).dtype == torch.float64:
        batch, targets, limit = *doubled_batch(batch, targets), LOSS_DOUBLE
    columns = (on(batch, device_of(model)), on(targets, device_of(model)), whole_masks(batch, targets))
    with torch.no_grad():
        our_losses, their_losses = losses_with_our_choices(theirs, model, *columns)
    held = True
    for name, loss in our_losses.items():
        same = bool(torch.isclose(loss, their_losses[name], rtol=limit, atol=limit))
        held = held and same
        line = f"{name:18s} ours {float(loss):.7f}  torchvision {float(their_losses[name]):.7f}"
        print(line if same else f"{line}  differ by more than {limit:g}")
    return {name: [float(loss), float(their_losses[name])] for name, loss in our_losses.items()}, held


def _line(
    name: str, our: float, their: float, classes: float, found: float, by_them: float, *differences: float
) -> None:
    box, score, iou, resize = differences
    shares = (f"{found:.2%}", f"{by_them:.2%}")
    row((name, our, their, classes, *shares, f"{box:.4f}", f"{score:.1e}", f"{iou:.4f}", f"{resize:.1e}"), WIDTHS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, help="only the first so many photographs")
    parser.add_argument("--side", type=int, default=800, help="short side of the network's picture (800)")
    parser.add_argument("--loss-side", type=int, default=512, help="the same for the losses (512)")
    parser.add_argument("--v2", action="store_true", help="the heads of torchvision's v2; detections only")
    parser.add_argument("--double", action="store_true", help="in double precision: all must be found")
    parser.add_argument("--noise", action="store_true", help="compare torchvision with itself too, channels last")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--device", default="cpu", help="where both run (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
