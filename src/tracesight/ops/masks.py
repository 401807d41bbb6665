"""Masks between pictures and the small grids that networks see: "Mask R-CNN" (2017), section 3."""

from __future__ import annotations

import torch
from torch import Tensor

from tracesight.ops.trim import may_read

# Samples a bin side on devices; a bin side longer than this many pixels is sampled, not averaged, there.
MOST_SAMPLES = 8
# And in eager mode on the CPU: against boxes without end.
MOST_SAMPLES_READ = 128


def mask_targets(
    pixels: Tensor,
    offsets: Tensor,
    crop_sizes: Tensor,
    crop_boxes: Tensor,
    boxes: Tensor,
    sizes: Tensor,
    *,
    output_size: int,
    aligned: bool,
) -> Tensor:
    """What each region's mask should be: (R, P, P), the share, 0–1, of each bin that the object covers.

    pixels (T,) uint8: all crops, flat, row-major; offsets (R,), crop_sizes (R, 2) height and width, crop_boxes (R, 4)
    the rectangle that the crop spans in the network's picture: the crop of each region's object. boxes (R, 4);
    sizes (R, 2) height and width of each region's picture. Bilinear samples, one a pixel and bin side, are averaged,
    at most 8 elsewhere than in eager mode on the CPU.
    aligned: whether a pixel's value sits at its centre; without it, as in torchvision, targets lie half a pixel off.
    A box that is not finite gives zeros.
    """
    with torch.no_grad():
        finite = torch.isfinite(boxes).all(1)
        boxes = boxes.masked_fill(~finite[:, None], 0.0)
        zero = ~finite[:, None, None]
        most = MOST_SAMPLES_READ if may_read(boxes) else MOST_SAMPLES
        bins = torch.ceil((boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6) / output_size).clamp(max=most).to(torch.int64)
        if not may_read(boxes):
            return _sampled(
                pixels, offsets, crop_sizes, crop_boxes, boxes, sizes, bins, most, output_size, aligned
            ).masked_fill(zero, 0.0)
        out = boxes.new_empty(boxes.shape[0], output_size, output_size)
        longest = bins.amax(dim=1)
        for side in longest.unique().tolist():
            rows = (longest == side).nonzero().squeeze(1)
            # Large objects a few at a time: 28 × 28 bins of 30 × 30 samples are 700,000 numbers each.
            for part in rows.split(max(1, 2_000_000 // (output_size * side) ** 2)):
                out[part] = _sampled(
                    pixels,
                    offsets[part],
                    crop_sizes[part],
                    crop_boxes[part],
                    boxes[part],
                    sizes[part],
                    bins[part],
                    side,
                    output_size,
                    aligned,
                )
        return out.masked_fill_(zero, 0.0)


def _sampled(
    pixels: Tensor,
    offsets: Tensor,
    crop_sizes: Tensor,
    crop_boxes: Tensor,
    boxes: Tensor,
    sizes: Tensor,
    bins: Tensor,
    most: int,
    output_size: int,
    aligned: bool,
) -> Tensor:
    """`mask_targets` with room for `most` samples a bin side, of which a region uses `bins` (R, 2) in x and y."""
    weights, rows = [], []
    for axis in (1, 0):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        length = high - low
        if not aligned:
            length = length.clamp(min=1.0)
        step = torch.arange(most, device=boxes.device)
        count = bins[:, axis, None]
        fraction = (step + 0.5) / count
        used = (step < count) / count.to(boxes.dtype)
        cell = torch.arange(output_size, device=boxes.device)[None, :, None] + fraction[:, None, :]
        position = low[:, None, None] + cell * (length / output_size)[:, None, None]
        shift = 0.0 if aligned else 0.5
        # The picture's border goes on for half a pixel; beyond its own box, a crop is background.
        position = position.clamp(min=0.0).minimum((sizes[:, 1 - axis] - (0 if aligned else 1))[:, None, None])
        extent = (crop_boxes[:, axis + 2] - crop_boxes[:, axis]).clamp(min=1e-6)
        count = crop_sizes[:, 1 - axis]
        position = (position + shift - crop_boxes[:, axis][:, None, None]) * (count / extent)[:, None, None] - 0.5
        lower = position.floor()
        part = position - lower
        neighbours = torch.stack((lower, lower + 1), dim=-1).to(torch.int64)
        weight = torch.stack((1 - part, part), dim=-1) * used[:, None, :, None]
        inside = (neighbours >= 0) & (neighbours < count[:, None, None, None])
        weights.append((weight * inside).flatten(2))
        rows.append(neighbours.clamp(min=0).minimum((count - 1).clamp(min=0)[:, None, None, None]).flatten(2))
    (y_weight, x_weight), (y, x) = weights, rows
    # (R, P, 1, 2S, 1) with (R, 1, P, 1, 2S)
    index = (y * crop_sizes[:, 1][:, None, None] + offsets[:, None, None])[:, :, None, :, None] + x[:, None, :, None, :]
    values = pixels[index.clamp(max=pixels.shape[0] - 1)].to(boxes.dtype)
    # Sums and no matrix product, which autocast would round to bfloat16.
    return ((values * x_weight[:, None, :, None, :]).sum(-1) * y_weight[:, :, None, :]).sum(-1)
