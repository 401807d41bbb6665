"""What a masked autoencoder fills in, drawn: each picture with its patches hidden, filled in, and as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from tracesight.data.channels import as_rgb
from tracesight.data.channels import unit as in_unit
from tracesight.data.dataset import Dataset
from tracesight.data.pictures import open_picture
from tracesight.data.whole import resample
from tracesight.errors import UserError
from tracesight.models.mae import MAE
from tracesight.models.pixels import standardised
from tracesight.report.gallery import Shot
from tracesight.scene.draw import in_a_row

TITLES = ("masked", "reconstructed", "true")
LEAST = 160  # pixels, about the side that a small picture is drawn with
_HIDDEN = 127  # the grey of hidden patches


@torch.no_grad()
def reconstruction_shots(
    model: MAE, dataset: Dataset, count: int, *, sides: tuple[int, int], resize: int | None, channels: int, seed: int
) -> list[Shot]:
    """`count` pictures, spread evenly over `dataset`: their middle, `sides` high and wide; always the same patches.

    resize: what a picture's short side becomes before the middle is cut out; None: the shorter of `sides`. channels: of
    the pictures, as in `open_picture`. Pictures that cannot be read are left out.
    """
    share = 1.0 if resize is None else min(1.0, min(sides) / resize)
    rows = [k * len(dataset) // count for k in range(min(count, len(dataset)))]
    shots, device, spread = [], model.pos_embed.device, cast(Any, model)
    for row in rows:
        try:
            pixels = middle(open_picture(dataset[row].path, channels), sides, share)
        except UserError:
            continue
        images = torch.from_numpy(in_unit(pixels)).permute(2, 0, 1)[None].contiguous().to(device)
        keys = torch.tensor([[seed, row]], device=device)
        made = model.reconstruct(standardised(model, images), keys)
        filled = (made.images * spread.pixel_std + spread.pixel_mean).clamp(0, 1)[0].permute(1, 2, 0).cpu().numpy()
        hidden = made.hidden[0, 0].cpu().numpy()
        shots.append(Shot(_strip(in_unit(pixels), filled, hidden), dataset[row].name or dataset[row].path.name))
    return shots


def middle(image: np.ndarray, sides: tuple[int, int], share: float = 1.0) -> np.ndarray:
    """A part in the middle of pixels (H, W, C), of the shape of `sides`, resized to them: the largest, or a share."""
    scale = share * min(image.shape[0] / sides[0], image.shape[1] / sides[1])
    height, width = (max(1, round(side * scale)) for side in sides)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return resample(image[top : top + height, left : left + width], sides)


def write_sheet(path: Path, shots: list[Shot]) -> None:
    """All pictures below each other in one PNG file; nothing without any."""
    if not shots:
        return
    width = max(shot.image.width for shot in shots)
    sheet = Image.new("RGB", (width, sum(shot.image.height for shot in shots)), "white")
    top = 0
    for shot in shots:
        sheet.paste(shot.image, (0, top))
        top += shot.image.height
    path.parent.mkdir(exist_ok=True)
    sheet.save(path)


def _strip(true: np.ndarray, filled: np.ndarray, hidden: np.ndarray) -> Image.Image:
    """The three beside each other, of pixels (H, W, C) in 0–1 and where they were hidden (H, W)."""
    width = true.shape[1]
    both = np.concatenate([true, filled], axis=1)
    if both.shape[2] == 3:
        both = np.rint(both * 255).astype(np.uint8)
    both = as_rgb(both)  # together, so that what is stretched is stretched alike
    masked = np.where(hidden[..., None], np.uint8(_HIDDEN), both[:, :width])
    times = max(1, round(LEAST / max(true.shape[:2])))
    drawn = [
        Image.fromarray(part).resize((part.shape[1] * times, part.shape[0] * times), Image.Resampling.NEAREST)
        for part in (masked, both[:, width:], both[:, :width])
    ]
    return in_a_row(drawn, TITLES)
