"""The worst mistakes of a set of results, so that a person sees first what to repair in the labels or the model.

Only detections from the threshold up count. They are matched to the labels by their boxes at IoU 0.5, category by
category, as in `evaluation.matching`; crowd regions excuse what lies in them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracesight.evaluation.coco import class_names
from tracesight.evaluation.matching import FREE, Matching, matchings
from tracesight.scene.mask import Mask

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset
    from tracesight.data.record import Annotation, Record

Result = Mapping[str, Any]
Box = tuple[float, float, float, float]

FOUND = 0.5  # box IoU from which a detection has found an object
NEAR = 0.1  # below this a detection and an object have nothing to do with each other
GOOD_MASK = 0.7  # mask IoU under which a found object's mask is called poor
KINDS = ("false positive", "missed", "poor mask", "wrong class", "duplicate")


@dataclass(frozen=True)
class Mistake:
    """One mistake: `kind` is one of `KINDS`, `box` xyxy in pixels, `severity` orders mistakes of the same kind."""

    image_id: int
    path: Path
    kind: str
    box: Box
    sentence: str
    severity: float


def worst(
    results_by_picture: Mapping[int, Sequence[Result]], dataset: Dataset, threshold: float, count: int
) -> list[Mistake]:
    """The `count` worst mistakes, taking turns between the kinds so that each is seen.

    Args:
        results_by_picture: COCO results (bbox needed, segmentation for "poor mask") by `Record.id`.
        dataset: the labelled pictures.
        threshold: least score of a detection that is shown.
        count: how many mistakes at most.

    Raises:
        ValueError: a result that cannot be scored.
    """
    results = [result for rows in results_by_picture.values() for result in rows]
    shown = [result for result in results if result["score"] >= threshold]
    hidden: dict[int, list[Result]] = defaultdict(list)
    for result in results:
        if result["score"] < threshold:
            hidden[result["image_id"]].append(result)
    by_picture: dict[int, list[Matching]] = defaultdict(list)
    for matching in matchings(shown, dataset, kind="bbox", iou=FOUND):
        by_picture[matching.image_id].append(matching)
    names = class_names(dataset)
    kinds: dict[str, list[Mistake]] = {kind: [] for kind in KINDS}
    for record in dataset:
        for mistake in _of_picture(record, by_picture[record.id], shown, hidden[record.id], names):
            kinds[mistake.kind].append(mistake)
    queues = [sorted(kinds[kind], key=lambda m: -m.severity) for kind in KINDS]
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return turns[:count]


def _of_picture(
    record: Record,
    found: Sequence[Matching],
    results: Sequence[Result],
    hidden: Sequence[Result],
    names: Mapping[int, str],
) -> Iterator[Mistake]:
    """The mistakes of one picture. `results` is what the positions in `found` point to, `hidden` scored too little."""

    def mistake(kind: str, box: Box, sentence: str, severity: float) -> Mistake:
        return Mistake(record.id, record.path, kind, box, sentence, severity)

    labels = {place: a for place, a in enumerate(record.annotations) if not a.ignored}
    taken = {m.objects[g] for m in found for g in m.matched if g >= 0}
    for matching in found:
        name = names[matching.category_id]
        for d, position in enumerate(matching.results):
            result, score = results[position], float(matching.scores[d])
            box = _xyxy(result["bbox"])
            if matching.matched[d] >= 0:
                annotation = labels[matching.objects[matching.matched[d]]]
                overlap = _mask_overlap(result, annotation, record)
                if overlap is not None and overlap < GOOD_MASK:
                    sentence = (
                        f"Finds the {name} (score {score:.2f}), but its mask overlaps the label by {overlap:.2f}."
                    )
                    yield mistake("poor mask", annotation.box, sentence, 1 - overlap)
            elif matching.matched[d] == FREE:
                kind, sentence, other = _unmatched(matching, d, box, labels, names)
                taken.update(other)
                yield mistake(kind, box, sentence, score)
    for place, annotation in labels.items():
        if place not in taken:
            yield mistake("missed", annotation.box, _missed(annotation, hidden, names), _area(annotation.box))


def _unmatched(
    matching: Matching, d: int, box: Box, labels: Mapping[int, Annotation], names: Mapping[int, str]
) -> tuple[str, str, list[int]]:
    """Kind and sentence of a detection that found nothing, and which labels are not missed because of it."""
    name, score = names[matching.category_id], float(matching.scores[d])
    nearest = float(matching.ious[d].max(initial=0.0))
    if nearest >= FOUND:
        better = matching.scores[int(np.flatnonzero(matching.matched == int(matching.ious[d].argmax()))[0])]
        return "duplicate", f"Reports one {name} twice: score {score:.2f} where {better:.2f} has found it already.", []
    others = {i: box_overlap(box, a.box) for i, a in labels.items() if a.category_id != matching.category_id}
    best = max(others, key=lambda i: others[i], default=-1)
    if others and others[best] >= FOUND:
        real = names[labels[best].category_id]
        return "wrong class", f"Labelled {real}, called {name} (score {score:.2f}).", [best]
    sentence = f"Reports a {name} (score {score:.2f}) where none is labelled"
    if nearest >= NEAR:
        sentence += f"; the nearest one overlaps it by only {nearest:.2f}"
    return "false positive", sentence + ".", []


def _missed(annotation: Annotation, hidden: Sequence[Result], names: Mapping[int, str]) -> str:
    x0, y0, x1, y1 = annotation.box
    sentence = f"Misses a {names[annotation.category_id]} of {x1 - x0:.0f} × {y1 - y0:.0f} pixels"
    near = [r for r in hidden if box_overlap(_xyxy(r["bbox"]), annotation.box) >= FOUND]
    guesses = [r["score"] for r in near if r["category_id"] == annotation.category_id]
    return sentence + (f"; its best guess scores {max(guesses):.2f}, under the threshold." if guesses else ".")


def _mask_overlap(result: Result, annotation: Annotation, record: Record) -> float | None:
    """Mask IoU, or None if either side has no mask."""
    truth = annotation.mask(record.height, record.width)
    if truth is None or not isinstance(result.get("segmentation"), Mapping):
        return None
    return float(Mask.from_coco(result["segmentation"]).iou(truth))


def box_overlap(one: Box, other: Box) -> float:
    """IoU of two xyxy boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(one) + _area(other) - shared) if shared else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _xyxy(bbox: Sequence[float]) -> Box:
    x, y, width, height = bbox
    return x, y, x + width, y + height
