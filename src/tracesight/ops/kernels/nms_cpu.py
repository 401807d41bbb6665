"""Greedy suppression on the CPU: torchvision's kernel on dense sets, pairs that can overlap elsewhere.

torchvision's kernel compares every kept box with every box behind it, about 4 ns a pair on one core. In a picture full
of small objects nearly all of these pairs are far apart. Ordered by left side, a box and all that it can suppress or
be suppressed by lie in one short run, and runs of neighbouring boxes are compared with vector instructions. Sets of a
few boxes, one for each of 90 classes, are compared together, since a call for each costs more than its work.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

# Sets of up to so many boxes are done together if there are more of them than CALLS.
FEW, CALLS = 32, 12
# Smaller sets are done by torchvision before a sweep has prepared itself.
SMALL = 512
# Best boxes looked at first: where a quarter of them goes, most of the set goes before it is compared.
HEAD = 128
# Pairs compared at once: they fit a core's cache, and torch takes a second thread for more, which costs more than it
# brings to work of a few microseconds.
AT_ONCE = 32_000
# Boxes whose runs are cut to the longest of them at least.
STEP = 32
# Boxes looked at to learn how many rivals a box has.
SAMPLE = 64
# A sweep is worth its pairs up to this share of all pairs that torchvision's kernel may have to compare.
WORTH = 1.0
# Chains of suppressions that are followed over pairs: more than FEW. Real sets of boxes need 2 to 10.
PASSES = 64
# Overlaps of more than t need left sides within (1 - t) widths. Float32 is exact to 1e-6 of that.
SLACK = 1e-4


def keep_sets(boxes: Tensor, group: Tensor, live: Tensor, iou: float) -> Tensor:
    """Which boxes stay (N, K) bool, for boxes (N, K, 4), group and live (N, K) on the CPU, each row by falling score.

    float32 or float64; `iou` must be a number of that dtype. Every group of every row is one competing set; what is not
    live neither competes nor stays.
    """
    keep = torch.zeros_like(live)
    rows, sizes = _sets(group, live)
    if not len(rows):
        return keep
    boxes = boxes.flatten(0, 1)[rows]
    few = sizes <= FEW
    if few.sum() > CALLS:
        chosen = few.repeat_interleave(sizes)
        ahead = sizes.cumsum(0).repeat_interleave(sizes) - torch.arange(1, len(rows) + 1)
        keep.view(-1)[rows[chosen][_together(boxes[chosen], ahead[chosen], iou)]] = True
        rows, boxes, sizes = rows[~chosen], boxes[~chosen], sizes[~few]
    parts = sizes.tolist()
    # torchvision wants scores; the boxes are in their order already.
    score = torch.arange(max(parts, default=0), 0, -1, dtype=boxes.dtype)
    for row, box in zip(rows.split(parts), boxes.split(parts)):
        keep.view(-1)[row[_keep_set(box, score[: len(box)], iou)]] = True
    return keep


def _sets(group: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """Places among all N * K boxes of those that are live, by picture, group and score; and the sizes of the sets."""
    first = torch.arange(len(live)).unsqueeze(1) * live.shape[1]
    one_group = bool((group == group[:, :1]).all())
    order = torch.arange(live.shape[1]).expand_as(live) if one_group else group.sort(dim=1, stable=True).indices
    rows = (order + first)[live.gather(1, order)]
    picture, name = torch.div(rows, live.shape[1], rounding_mode="floor"), group.flatten()[rows]
    starts = (picture[1:] != picture[:-1]) | (name[1:] != name[:-1])
    starts = torch.nn.functional.pad(starts, (min(len(rows), 1), 0), value=True).nonzero().squeeze(1)
    return rows, torch.cat((starts, starts.new_full((1,), len(rows)))).diff()


def _together(boxes: Tensor, ahead: Tensor, iou: float) -> Tensor:
    """Places that stay among boxes (M, 4) of many sets, best first; ahead (M,) boxes behind each are of its set."""
    columns = _columns(boxes.t(), int(ahead.max()))
    kept = _settle(*_all_overlaps(columns, ahead, _blocks(ahead), iou), len(boxes))
    assert kept is not None
    return kept


def _keep_set(boxes: Tensor, score: Tensor, iou: float) -> Tensor:
    """Places that stay among boxes (M, 4) of one competing set, best first."""
    kept = None
    # Below 0 even boxes that are far apart suppress each other.
    if len(boxes) >= SMALL and iou >= 0 and 4 * len(torchvision_nms(boxes[:HEAD], score[:HEAD], iou)) > 3 * HEAD:
        kept = _sweep(boxes, iou)
    return torchvision_nms(boxes, score, iou) if kept is None else kept


def _sweep(boxes: Tensor, iou: float) -> Tensor | None:
    """Places that stay, or None where torchvision's kernel is expected to be faster."""
    count = len(boxes)
    left, place = boxes[:, 0].sort()
    sides = boxes[place].t()
    width = sides[2] - sides[0]
    bound = left + width * (max(1 - iou, 0) + SLACK)
    # Areas this small are rounded so much that boxes with little in common can count as equal.
    tiny = width * (sides[3] - sides[1]) < torch.finfo(boxes.dtype).tiny * 1e8
    bound = torch.where(tiny, sides[2], bound)
    bound = bound.nextafter(bound.new_full((), torch.inf))
    ahead = (torch.searchsorted(left, bound, right=True) - torch.arange(1, count + 1)).clamp_(min=0)
    columns = _columns(sides, int(ahead.max()))
    sample = range(0, count, -(-count // SAMPLE))
    longest = int(ahead[:: sample.step].max())
    rivals = 2 * len(_overlaps(columns, ahead, sample, longest, iou)[0]) / len(sample)
    # Greedy keeps about one box of every rivals + 1, or twice that (Caro and Wei have the lower bound), and torchvision
    # compares what is kept with all that follows.
    blocks = _blocks(ahead)
    if sum(len(rows) * longest for rows, longest in blocks) * (rivals + 1) > WORTH * count**2:
        return None
    one, other = (place[side] for side in _all_overlaps(columns, ahead, blocks, iou))
    return _settle(torch.minimum(one, other), torch.maximum(one, other), count)


def _columns(sides: Tensor, longest: int) -> Tensor:
    """Sides (4, M) and areas of boxes, (5, M + longest): room for a run behind the last one."""
    area = (sides[2] - sides[0]) * (sides[3] - sides[1])
    return torch.nn.functional.pad(torch.cat((sides, area.unsqueeze(0))), (0, longest))


def _blocks(ahead: Tensor) -> list[tuple[range, int]]:
    """Rows to compare at once, in order, and the longest of their runs; ahead (M,) is the length of each run."""
    count = len(ahead)
    steps = torch.nn.functional.pad(ahead, (0, -count % STEP)).view(-1, STEP).amax(1).tolist()
    blocks, start, longest = [], 0, 0
    for stop, most in zip(range(0, count, STEP), steps):
        if start < stop and (stop + STEP - start) * max(longest, most) > AT_ONCE:
            blocks.append((range(start, stop), longest))
            start, longest = stop, 0
        longest = max(longest, most)
    return [*blocks, (range(start, count), longest)]


def _all_overlaps(columns: Tensor, ahead: Tensor, blocks: list[tuple[range, int]], iou: float) -> tuple[Tensor, Tensor]:
    """Pairs (i, j) of columns (5, M + longest), j one of the `ahead` (M,) that follow i, with an IoU over `iou`."""
    i, j = zip(*(_overlaps(columns, ahead, rows, longest, iou) for rows, longest in blocks))
    return torch.cat(i), torch.cat(j)


def _overlaps(columns: Tensor, ahead: Tensor, rows: range, longest: int, iou: float) -> tuple[Tensor, Tensor]:
    """What `_all_overlaps` returns, for i in `rows` only, of whose runs the longest is `longest`."""
    if not longest:
        return ahead[:0], ahead[:0]
    here = columns[:, rows.start : rows.stop : rows.step, None]
    # A view: row r of it is the run that follows column r.
    there = columns[:, rows.start + 1 : rows.stop + longest].unfold(1, longest, 1)[:, :: rows.step]
    # torchvision's arithmetic, in its order.
    shared = torch.minimum(here[2], there[2]).sub_(torch.maximum(here[0], there[0])).clamp_(min=0)
    height = torch.minimum(here[3], there[3]).sub_(torch.maximum(here[1], there[1])).clamp_(min=0)
    shared.mul_(height)
    union = torch.add(here[4], there[4], out=height).sub_(shared)
    i, step = (shared.div_(union) > iou).nonzero().unbind(1)
    i = i * rows.step + rows.start
    # Rows of the view are as long as the longest run; past its own, a box meets other sets or the room at the end.
    inside = step < ahead[i]
    return i[inside], (i + step + 1)[inside]


def _settle(better: Tensor, worse: Tensor, count: int) -> Tensor | None:
    """Places below `count` that stay where each `better` one that stays suppresses its `worse`; None if that is long.

    Each pass settles one more link of every chain of suppressions.
    """
    keep = torch.ones(count, dtype=torch.bool)
    for _ in range(PASSES):
        now = torch.ones_like(keep)
        now[worse[keep[better]]] = False
        if torch.equal(now, keep):
            return keep.nonzero().squeeze(1)
        keep = now
    return None
