"""What a report says of a classifier: figures, classes, confusions, and pictures with truth and answer.

n pictures of val, K categories, in ascending order of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from tracesight.bundle import Bundle
from tracesight.data.channels import as_rgb
from tracesight.data.dataset import Dataset
from tracesight.data.pictures import open_picture
from tracesight.evaluation.table import IMAGE_CLASS_FIGURES, IMAGE_FIGURES, figure
from tracesight.ops.chances import probabilities
from tracesight.report.gallery import Shot
from tracesight.scene import SceneCategory, draw_categories

SIDE = 320  # pixels, long side of one drawn picture
ANSWERS = 3  # categories that are drawn below it
WHOLE = 20  # categories up to which the whole confusion matrix is shown

Table = Callable[..., str]


def class_shots(
    bundle: Bundle, val: Dataset, scores: np.ndarray, truth: np.ndarray, count: int, mistakes: int
) -> tuple[list[Shot], list[Shot]]:
    """`count` pictures spread evenly over val, and those of which the bundle was surest and wrong, with its answers.

    scores (n, K), truth (n, K) bool: as `predict.dataset_scores` gives them.
    """
    chances = probabilities(scores, bundle.multi_label, bundle.thresholds["temperature"])
    answered = chances >= bundle.threshold
    if not bundle.multi_label:
        answered = np.arange(truth.shape[1]) == scores.argmax(axis=1)[:, None]
    rows = [k * len(val) // count for k in range(count)] if 0 < count < len(val) else range(len(val) if count else 0)
    drawn = [_shot(bundle, val, row, chances[row], answered[row], truth[row]) for row in rows]
    # How far the surest wrong answer of a picture lies on the wrong side.
    wrong = np.where(answered & ~truth, chances, 0.0).max(axis=1)
    if bundle.multi_label:
        wrong = np.maximum(wrong, np.where(truth & ~answered, 1 - chances, 0.0).max(axis=1))
    worst = [int(row) for row in np.argsort(-wrong, kind="stable")[:mistakes] if wrong[row] > 0]
    return drawn, [_shot(bundle, val, row, chances[row], answered[row], truth[row], "wrong") for row in worst]


def image_figures(image: Mapping[str, Any], table: Table) -> str:
    """The figures of `evaluation.evaluate_classes` as HTML. table: of the page."""
    rows = [[name, figure(image[name]), meaning] for name, meaning in IMAGE_FIGURES.items() if name in image]
    return table(["figure", "value", "what it means"], rows, text=(2,))


def image_classes(image: Mapping[str, Any], table: Table) -> str:
    """The same by class, and what was taken for what."""
    shown = [name for name in IMAGE_CLASS_FIGURES if name in next(iter(image["per_class"].values()), {})]
    rows = [[name, str(row["pictures"]), *(row[key] for key in shown)] for name, row in image["per_class"].items()]
    parts = [table(["class", "pictures", *shown], rows)]
    confusion = image.get("confusion")
    if confusion and len(confusion["classes"]) <= WHOLE:
        parts.append("<h3>What was taken for what</h3>" + _matrix(confusion["classes"], confusion["counts"]))
    elif image.get("confused"):
        rows = [[row["label"], row["answer"], str(row["pictures"])] for row in image["confused"][:WHOLE]]
        parts.append("<h3>Taken for another, most often</h3>" + table(["label", "answer", "pictures"], rows))
    return "".join(parts)


def image_tiles(image: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(value, label) of what stands at the top of the page."""
    labels = {"top1": "top-1", "top5": "top-5", "mAP": "mAP", "f1": "F1 at threshold", "ece": "calibration error"}
    return [(figure(image[name]), label) for name, label in labels.items() if image.get(name) is not None]


def _matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Labels down, answers across; the darker, the larger the share of a label's pictures."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("label \\ answer", *names))
    lines = []
    for name, row in zip(names, counts):
        total = sum(row) or 1
        cells = "".join(
            f'<td style="background:rgba(11,99,165,{0.7 * count / total:.2f})">{count or ""}</td>' for count in row
        )
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _shot(
    bundle: Bundle,
    val: Dataset,
    row: int,
    chances: np.ndarray,
    answered: np.ndarray,
    truth: np.ndarray,
    title: str = "",
) -> Shot:
    record, ids = val[row], sorted(bundle.categories)
    picture = Image.fromarray(as_rgb(open_picture(record.path, bundle.in_channels)))
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    best = np.argsort(-chances, kind="stable")[:ANSWERS]
    said = [SceneCategory(bundle.categories[ids[k]], ids[k], min(1.0, float(chances[k]))) for k in best]
    labelled, answers = (_names(bundle, ids, places) for places in (np.flatnonzero(truth), np.flatnonzero(answered)))
    drawn = draw_categories(picture.resize(size, Image.Resampling.BICUBIC), said, scale=1)
    return Shot(drawn, f"{record.name}: labelled {labelled}, answered {answers}", title)


def _names(bundle: Bundle, ids: Sequence[int], places: np.ndarray) -> str:
    return ", ".join(bundle.categories[ids[place]] for place in places) or "nothing"
