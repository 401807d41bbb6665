"""COCO's figures for keypoints: average precision over object keypoint similarity, through faster-coco-eval.

COCO's keypoint task and pycocotools: the similarity of a detection and an object is the mean over the object's labelled
points of exp(-d² / (2 s² (2σ)²)), d being the distance in pixels, s² the object's area as the labels have it, and σ how
far people differ who label this point. Objects without a labelled point are ignored. Up to 20 detections of a category
count in a picture; `AP@all` and `AP50@all` take the model's own limit. As with masks, a detection without a match
belongs to the area range of its box.

COCO measured σ for the 17 points of a person. Any other set of points has `SIGMA` for each, about that of a person's
wrist, and is scored by itself: categories may have different points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracesight.data.points import PERSON, with_points
from tracesight.errors import UserError
from tracesight.evaluation.coco import IOU50, IOU75, accumulate, class_names, mean, regions, truth_row

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset
    from tracesight.data.points import Keypoints

LIMIT = 20
SIGMA = 0.05
SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip
MEDIUM, LARGE = 1, 2  # positions among the area ranges: there is no small one


def sigmas_of(points: Keypoints) -> np.ndarray:
    """σ of each point (K,): COCO's for its person, recognised by the names, else `SIGMA`."""
    return np.array(SIGMAS if points.names == PERSON.names else [SIGMA] * len(points.names))


def keypoint_figures(results: Sequence[Mapping[str, Any]], dataset: Dataset, max_objects: int) -> dict[str, Any]:
    """COCO's ten keypoint figures, AP@all, AP50@all, and "per_class" of the categories that have points.

    results: as in `evaluate`, with "keypoints", [x, y, anything, …]; of categories without points none is looked at.
    Raises UserError for a result whose points are not as many as the labels'.
    """
    dataset = with_points(dataset)
    limits = sorted({LIMIT, max_objects})
    twenty, every = limits.index(LIMIT), limits.index(max_objects)
    precisions, recalls, rows = [], [], {}
    for number, name in class_names(dataset).items():
        if number not in dataset.keypoints:
            continue
        points = dataset.keypoints[number]
        mine = [result for result in results if result["category_id"] == number]
        _check(mine, name, len(points.names))
        truth = _truth(dataset, number, len(points.names))
        objects = sum(a["num_keypoints"] > 0 and not a["iscrowd"] for a in truth["annotations"])
        precision, recall = accumulate(mine, truth, "keypoints", limits, sigmas_of(points))
        precisions.append(precision)
        recalls.append(recall)
        rows[name] = {
            "AP": mean(precision[:, :, :, 0, twenty]),
            "AP50": mean(precision[IOU50, :, :, 0, twenty]),
            "AP75": mean(precision[IOU75, :, :, 0, twenty]),
            "AP@all": mean(precision[:, :, :, 0, every]),
            "AP50@all": mean(precision[IOU50, :, :, 0, every]),
            "recall": mean(recall[IOU50, :, 0, every]),
            "objects": objects,
        }
    empty = np.full((10, 1, 1, 3, len(limits)), -1.0)
    precision = np.concatenate(precisions, axis=2) if precisions else empty
    recall = np.concatenate(recalls, axis=1) if recalls else empty[:, 0]
    return {
        "AP": mean(precision[:, :, :, 0, twenty]),
        "AP50": mean(precision[IOU50, :, :, 0, twenty]),
        "AP75": mean(precision[IOU75, :, :, 0, twenty]),
        "APm": mean(precision[:, :, :, MEDIUM, twenty]),
        "APl": mean(precision[:, :, :, LARGE, twenty]),
        "AR": mean(recall[:, :, 0, twenty]),
        "AR50": mean(recall[IOU50, :, 0, twenty]),
        "AR75": mean(recall[IOU75, :, 0, twenty]),
        "ARm": mean(recall[:, :, MEDIUM, twenty]),
        "ARl": mean(recall[:, :, LARGE, twenty]),
        "AP@all": mean(precision[:, :, :, 0, every]),
        "AP50@all": mean(precision[IOU50, :, :, 0, every]),
        "per_class": rows,
    }


def _check(results: Sequence[Mapping[str, Any]], name: str, count: int) -> None:
    for result in results:
        found = result.get("keypoints", ())
        if len(found) != 3 * count or not np.isfinite(found).all():
            raise UserError(
                f"picture {result['image_id']}: a result of {name} has {len(found) / 3:g} keypoints, the labels have "
                f"{count}; evaluate on labels of the points that the model was trained on"
            )


def _truth(dataset: Dataset, number: int, count: int) -> dict[str, Any]:
    """The labels of one category as COCO's keypoint files have them."""
    images, annotations = [], []
    for record in dataset:
        images.append({"id": record.id, "height": record.height, "width": record.width})
        rows = []
        for annotation in record.annotations:
            if annotation.category_id == number:
                points = annotation.keypoints or ((0.0, 0.0, 0),) * count
                row, _ = truth_row(annotation, record, "bbox")
                rows.append({**row, "keypoints": [float(v) for point in points for v in point]})
        rows += [{**row, "keypoints": [0.0] * 3 * count} for row in regions(record) if row["category_id"] == number]
        for row in rows:
            labelled = sum(v > 0 for v in row["keypoints"][2::3])
            annotations.append({**row, "num_keypoints": labelled, "id": len(annotations) + 1})
    categories = [{"id": number, "name": dataset.categories[number]}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}
