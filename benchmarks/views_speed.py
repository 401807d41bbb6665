"""Two views a picture, decoding excluded: how fast beside torchvision's v1 transforms on Pillow images?

Photographs of `coco64` (COCO's size), MoCo v2's views of 224 × 224: random cut, flip, jitter, grey, blur, then tensors
in 0–1, which the network standardises. Both get decoded pictures, run on one thread, and in turn. Wanted: at least 2.5
times as many. Beside it stands how far our colours are from torchvision's hue, which turns in HSV and not in YIQ: mean
absolute difference of pixels in 0–1 after a turn of 36°, the largest.

With --device cuda the cut is on one core of the CPU, as workers do it, and the rest on the GPU, timed apart.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import held, in_turn, machine, photographs, row, run, show, write
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional as peer

from tracesight.data.colour import colour_matrix
from tracesight.data.pictures import open_picture
from tracesight.data.views import MATRIX, NUMBERS, View, changed

SIDE, WANTED = 224, 2.5
PURPOSES = ("first view", "second view")


class Blur:
    """The authors' blur: Pillow's, of a random deviation."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(0.1, 2.0))))


def main() -> bool:
    arguments = _arguments()
    torch.set_num_threads(1)
    facts = machine(1)
    show(facts)
    arrays = [open_picture(path) for path in photographs(arguments.pictures)]
    images = [Image.fromarray(array) for array in arrays]
    torch.manual_seed(0)
    timed = in_turn(lambda: ours(arrays), lambda: theirs(images), arguments.repeats)
    views = 2 * len(arrays)
    figure = {**timed, "same": True, "wanted": WANTED}
    widths = (24, 14, 14, 8)
    row(("two views", "ours, ms/view", "torchvision", "ratio"), widths)
    each = [1e3 * timed[side] / views for side in ("ours", "peer")]
    row((f"{len(arrays)} photographs", f"{each[0]:.2f}", f"{each[1]:.2f}", f"{timed['ratio']:.2f}"), widths)
    turned = hue_apart(arrays)
    print(f"hue by 36° in YIQ against HSV: {turned:.4f} apart on average", flush=True)
    if arguments.device != "cpu":
        figure["device_ms"] = on_device(arrays, arguments.device)
        print(f"colours and blur of a batch of 256 on {arguments.device}: {figure['device_ms']:.2f} ms", flush=True)
    good = held(figure)
    print(f"at least {WANTED}: {'held' if good else 'NOT HELD'}", flush=True)
    write(arguments.json, facts, {"views": figure, "hue_apart": turned})
    return good


def ours(arrays: list[np.ndarray]) -> torch.Tensor:
    """(2 N, 3, S, S) in 0–1 by the package's own functions."""
    view = View(SIDE)
    made = [view(array, 0, draw, purpose) for draw, array in enumerate(arrays) for purpose in PURPOSES]
    return changed(torch.stack([cut for cut, _ in made]), torch.from_numpy(np.stack([change for _, change in made])))


def theirs(images: list[Image.Image]) -> torch.Tensor:
    """The same by torchvision's v1 transforms, put together as the authors' code has them."""
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
    transform = transforms.Compose([
        transforms.RandomResizedCrop(SIDE, scale=(0.2, 1.0)),
        transforms.RandomApply([jitter], p=0.8),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomApply([Blur()], p=0.5),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
    ])  # fmt: skip
    return torch.stack([transform(image) for image in images for _ in PURPOSES])


def hue_apart(arrays: list[np.ndarray]) -> float:
    """Mean absolute difference of the two ways to turn the hue by a tenth of a circle."""
    change = torch.zeros(1, NUMBERS)
    change[:, MATRIX] = torch.from_numpy(colour_matrix(1.0, 0.2 * math.pi)).flatten().float()
    apart = []
    for array in arrays[:16]:
        pixels = torch.from_numpy(array.copy()).permute(2, 0, 1)[None, :, :SIDE, :SIDE].contiguous()
        apart.append(float((changed(pixels, change) - peer.adjust_hue(pixels / 255, 0.1)).abs().mean()))
    return float(np.mean(apart))


def on_device(arrays: list[np.ndarray], device: str) -> float:
    """Milliseconds for a batch of 256 views that are cut already."""
    view = View(SIDE)
    made = [view(arrays[draw % len(arrays)], 0, draw, PURPOSES[0]) for draw in range(256)]
    pixels = torch.stack([cut for cut, _ in made]).to(device)
    changes = torch.from_numpy(np.stack([change for _, change in made])).to(device)
    for _ in range(3):
        changed(pixels, changes)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(10):
        changed(pixels, changes)
    torch.cuda.synchronize()
    return 1e2 * (time.perf_counter() - began)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
