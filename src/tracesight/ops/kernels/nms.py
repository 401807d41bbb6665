"""Greedy suppression on a GPU: two Triton kernels, one for the overlaps and one that walks through them in order.

`_overlaps` writes one bit for each pair of boxes (i, j) with i before j, of one group, with an IoU over the limit, in
words of 64: words (N, T, T * 64), where words[n, t, i] holds the boxes of tile t that i suppresses and T is the number
of tiles of 64 boxes. `_walk` is one program for each row of N. It takes the tiles in order: what boxes kept in earlier
tiles suppress is gone, and within the tile the fixpoint of keep_j = live_j and no i before j with keep_i and bit_ij
gives the rest in as many passes as the longest chain has links. The host is told nothing, so that a CUDA graph can hold
it; memory is K² / 8 bytes a row. This file imports triton: import it where it is needed, never on the way in.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 64  # bits of a word
TOGETHER = 16  # tiles whose words are loaded at once


def keep_boxes(boxes: Tensor, group: Tensor, live: Tensor, limit: float) -> Tensor:
    """Which boxes stay (N, K) bool, for boxes (N, K, 4), group and live (N, K), each row by falling score.

    float32 or float64. `limit` must be a number of the boxes' dtype: an IoU over it suppresses.
    """
    rows, count = live.shape
    keep = torch.empty_like(live, memory_format=torch.contiguous_format)
    if not keep.numel():
        return keep
    tiles = triton.cdiv(count, TILE)
    words = torch.empty((rows, tiles, tiles * TILE), dtype=torch.int64, device=boxes.device)
    kept = torch.empty((rows, tiles), dtype=torch.int64, device=boxes.device)
    # A tensor: a number would arrive as float32 and move the limit of float64 boxes.
    over = boxes.new_full((1,), limit)
    # A fused multiply-add rounds once where torchvision rounds twice.
    how: dict[str, Any] = {"TILE": TILE, "num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
    together: dict[str, Any] = {"TOGETHER": TOGETHER}
    boxes, group, live = boxes.contiguous(), group.contiguous(), live.contiguous()
    # Triton launches on the current device.
    with torch.cuda.device_of(boxes):
        _overlaps[(rows, tiles, tiles)](boxes, group, live, over, words, count, **how)
        _walk[(rows,)](live, words, kept, keep, count, **how, **together)
    return keep


@triton.jit(do_not_specialize=["count"])
def _overlaps(boxes, group, live, limit, words, count, TILE: tl.constexpr):
    # 64 bits: N * K * K / 64 words may be more than 2^31.
    row = tl.program_id(0).to(tl.int64)
    before, tile = tl.program_id(1), tl.program_id(2)
    tiles = tl.num_programs(2)
    if before <= tile:
        lane = tl.arange(0, TILE)
        i, j = before * TILE + lane, tile * TILE + lane
        live_i = tl.load(live + row * count + i, mask=i < count, other=0) != 0
        live_j = tl.load(live + row * count + j, mask=j < count, other=0) != 0
        group_i = tl.load(group + row * count + i, mask=live_i, other=0)
        group_j = tl.load(group + row * count + j, mask=live_j, other=0)
        at_i, at_j = boxes + (row * count + i) * 4, boxes + (row * count + j) * 4
        left_i = tl.load(at_i, mask=live_i, other=0.0)[:, None]
        top_i = tl.load(at_i + 1, mask=live_i, other=0.0)[:, None]
        right_i = tl.load(at_i + 2, mask=live_i, other=0.0)[:, None]
        bottom_i = tl.load(at_i + 3, mask=live_i, other=0.0)[:, None]
        left_j = tl.load(at_j, mask=live_j, other=0.0)[None, :]
        top_j = tl.load(at_j + 1, mask=live_j, other=0.0)[None, :]
        right_j = tl.load(at_j + 2, mask=live_j, other=0.0)[None, :]
        bottom_j = tl.load(at_j + 3, mask=live_j, other=0.0)[None, :]
        area_i = (right_i - left_i) * (bottom_i - top_i)
        area_j = (right_j - left_j) * (bottom_j - top_j)
        width = tl.minimum(right_i, right_j) - tl.maximum(left_i, left_j)
        height = tl.minimum(bottom_i, bottom_j) - tl.maximum(top_i, top_j)
        shared = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
        union = area_i + area_j - shared
        # `/` is an approximation in float32.
        iou = tl.div_rn(shared, union) if shared.dtype == tl.float32 else shared / union
        over = (iou > tl.load(limit)) & (group_i[:, None] == group_j[None, :]) & (i[:, None] < j[None, :])
        over = over & live_i[:, None] & live_j[None, :]
        bit = tl.full((1, TILE), 1, tl.int64) << lane[None, :].to(tl.int64)
        # Bits of one word differ, so that their sum is their union.
        word = tl.sum(tl.where(over, bit, tl.zeros_like(bit)), axis=1)
        tl.store(words + (row * tiles + tile) * tiles * TILE + i, word)


@triton.jit
def _union(left, right):
    return left | right


@triton.jit(do_not_specialize=["count"])
def _walk(live, words, kept, keep, count, TILE: tl.constexpr, TOGETHER: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    tiles = tl.cdiv(count, TILE)
    live += row * count
    keep += row * count
    kept += row * tiles
    words += row * tiles * tiles * TILE
    lane = tl.arange(0, TILE)
    bit = tl.full((TILE,), 1, tl.int64) << lane.to(tl.int64)
    none = tl.zeros((TILE,), tl.int64)
    earlier = tl.arange(0, TOGETHER)
    for tile in range(0, tiles):
        j = tile * TILE + lane
        here = words + tile * tiles * TILE
        alive = tl.sum(tl.where(tl.load(live + j, mask=j < count, other=0) != 0, bit, none), axis=0)
        gone = tl.zeros((TOGETHER, TILE), tl.int64)
        # Rows end with what is not live: nothing to ask for it.
        for start in range(0, tl.where(alive != 0, tile, 0), TOGETHER):
            tile_i = start + earlier
            stays = tl.load(kept + tile_i, mask=tile_i < tile, other=0)[:, None] & bit[None, :]
            i = tile_i[:, None] * TILE + lane[None, :]
            gone = gone | tl.load(here + i, mask=stays != 0, other=0)
        alive = alive & ~tl.reduce(tl.reduce(gone, 0, _union), 0, _union)  # pyright: ignore[reportOperatorIssue]
        within = tl.load(here + j)
        now, last = alive, ~alive
        while now != last:
            last = now
            lost = tl.reduce(tl.where((now & bit) != 0, within, none), 0, _union)
            now = alive & ~lost  # pyright: ignore[reportOperatorIssue]
        tl.store(kept + tile, now)
        tl.store(keep + j, (now & bit) != 0, mask=j < count)
        # Later tiles read what this one kept, by other threads.
        tl.debug_barrier()
