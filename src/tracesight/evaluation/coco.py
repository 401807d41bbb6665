"""The COCO figures of a list of results, for boxes and masks, through faster-coco-eval.

Lin et al., "Microsoft COCO: Common Objects in Context" (2014), and its reference implementation, pycocotools: the
twelve figures are the ones pycocotools computes from the same list, with at most 100 detections of a category in a
picture. Pictures with hundreds of objects need more: `AP@all` and `AP50@all` take the model's own limit instead. As in
pycocotools, a detection without a match belongs to the area range of its box if the results carry boxes, also where
masks are scored; without `bbox` in the results it belongs to that of its mask.

Letters: T IoU thresholds (0.50, 0.55 … 0.95), R recall points (0, 0.01 … 1), K categories in ascending id,
A area ranges (all, small < 32², medium, large ≥ 96² square pixels), M limits on detections.

Deviations from pycocotools, none of which changes a figure where pycocotools gives one: annotations are renumbered
from 1, since it reads id 0 as "unmatched"; where it answers -1 ("no example") the answer here is None.

Rare, common and frequent categories, and labels that do not speak of every category (`Record.absent`,
`Record.not_exhaustive`): Gupta, Dollár, Girshick, "LVIS" (2019), and its reference implementation, lvis-api. What is
not scored is left out before the matching, and where a category was not labelled to the last object the whole picture
is an ignored region of it: both give lvis-api's figures. One difference is left, the limit: lvis-api keeps the best 300
detections of a picture over all categories, before anything is left out, and here it is the best `max_objects` of each
category. For a model that gives no more than 300 a picture, as ours with `max_objects` 300, both keep everything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracesight.evaluation.frequency import frequency_groups
from tracesight.scene.mask import Mask

if TYPE_CHECKING:
    from tracesight.data.dataset import Dataset
    from tracesight.data.record import Annotation, Record

KINDS = ("bbox", "segm")
EVERY_KIND = (*KINDS, "keypoints")
LIMITS = (1, 10, 100)
AREAS = ("all", "small", "medium", "large")
IOU50, IOU75 = 0, 5  # positions in T
GROUPS = {"APr": "rare", "APc": "common", "APf": "frequent"}
BEYOND = 1e6  # pixels; farther out than any box reaches
UNUSED = "N/A"  # the name of category ids that a catalogue reserves and never uses


def evaluate(
    results: Sequence[Mapping[str, Any]],
    dataset: Dataset,
    *,
    max_objects: int,
    kinds: Sequence[str] = KINDS,
    train_pictures: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """Score results against the labels of `dataset`.

    Where a picture's labels do not speak of every category, only the results of categories that are labelled on it or
    known to be absent are scored (`scored_positions`), and results without an object in a category that was not
    labelled to the last one count neither way.

    Args:
        results: COCO results: image_id (`Record.id`), category_id, score and, according to `kinds`, bbox
            (x, y, width, height in pixels) and segmentation (RLE). May be empty. Is left unchanged.
        dataset: the labelled pictures, all of which count, also those without a result.
        max_objects: most detections of a category in a picture that `AP@all` and `AP50@all` consider, best first.
        kinds: any of "bbox", "segm" and "keypoints"; the last one's figures are those of `keypoint_figures`.
        train_pictures: number of training pictures by category id, as `training_pictures` gives them; categories that
            are not named have none.

    Returns:
        For each kind AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, AP@all, AP50@all, each 0 to 1 or
        None where no object could be counted, and "per_class": for each category name AP, AP50, AP75, AP@all,
        AP50@all, "recall" (share of the objects found at IoU 0.5 within `max_objects`), "objects" (crowds excluded).
        With `train_pictures` each kind also has APr, APc, APf: the mean of AP@all over the rare, common and frequent
        categories, None where no such category has an object here; and each row of "per_class" has "train_pictures".
        Besides the kinds, "max_objects" and "warnings", a list of sentences.

    Raises:
        ValueError: a result that cannot be scored, named by its position.
    """
    if max_objects < 1:
        raise ValueError(f"max_objects must be at least 1, not {max_objects}")
    unknown = set(kinds) - set(EVERY_KIND)
    if unknown:
        raise ValueError(f"unknown kind of evaluation {sorted(unknown)[0]!r}: use {', '.join(EVERY_KIND)}")
    check_results(results, dataset, kinds)
    warnings = _category_warnings(results, dataset)
    scored = [results[position] for position in scored_positions(results, dataset)]
    if unscored := sum(result["category_id"] in dataset.categories for result in results) - len(scored):
        said = "the labels do not say whether objects of their category are in the picture"
        warnings.append(f"{unscored} results were not scored: {said}")
    metrics: dict[str, Any] = {}
    for kind in kinds:
        if kind == "keypoints":
            from tracesight.evaluation.keypoints import keypoint_figures

            metrics[kind] = keypoint_figures(_with_area(scored, dataset, "bbox"), dataset, max_objects)
            continue
        metrics[kind], left_out = _score(scored, dataset, kind, max_objects, train_pictures)
        if left_out:
            warnings.append(f"{left_out} objects have no mask: for mask figures their boxes are ignored regions")
    if train_pictures is not None:
        warnings += _unlearnt_classes(dataset, train_pictures)
    metrics["max_objects"] = max_objects
    metrics["warnings"] = warnings + _empty_classes(dataset)
    return metrics


def _score(
    scored: Sequence[Mapping[str, Any]],
    dataset: Dataset,
    kind: str,
    max_objects: int,
    train_pictures: Mapping[int, int] | None,
) -> tuple[dict[str, Any], int]:
    """The figures of one kind, and how many objects had no mask."""
    truth, left_out = coco_truth(dataset, kind)
    counts = Counter(a["category_id"] for a in truth["annotations"] if not a["iscrowd"])
    # A detection's fate does not depend on those that score less, so one matching serves every limit.
    limits = sorted({*LIMITS, max_objects})
    precision, recall = accumulate(_with_area(scored, dataset, kind), truth, kind, limits)
    hundred, every = limits.index(100), limits.index(max_objects)
    figures: dict[str, Any] = _figures(precision, recall, limits, max_objects)
    figures["per_class"] = _per_class(precision, recall, hundred, every, dataset, counts)
    if train_pictures is not None:
        _add_frequency(figures, precision[:, :, :, 0, every], dataset, train_pictures)
    return figures, left_out


def check_results(results: Sequence[Mapping[str, Any]], dataset: Dataset, kinds: Iterable[str]) -> None:
    """Refuse results that no evaluation could place.

    Raises:
        ValueError: names the result's position and what is wrong with it: a missing key, a picture that is not in
            `dataset`, a score that is not finite, a box that is not four finite numbers, a mask of another size.
    """
    sizes = {record.id: (record.height, record.width) for record in dataset}
    keys = ["image_id", "category_id", "score", *("segmentation" if k == "segm" else "bbox" for k in kinds)]
    for position, result in enumerate(results):
        missing = [key for key in keys if key not in result]
        if missing:
            raise ValueError(f"result {position} has no {missing[0]!r}")
        size = sizes.get(result["image_id"])
        if size is None:
            raise ValueError(f"result {position}: picture {result['image_id']!r} is not in the data")
        if not math.isfinite(result["score"]):
            raise ValueError(f"result {position}: score {result['score']!r} is not a finite number")
        if "bbox" in keys and (len(result["bbox"]) != 4 or not all(math.isfinite(v) for v in result["bbox"])):
            raise ValueError(f"result {position}: box {result['bbox']!r} is not four finite numbers")
        if "segmentation" in keys and tuple(result["segmentation"]["size"]) != size:
            raise ValueError(f"result {position}: mask of size {result['segmentation']['size']} on picture {size}")


def scored_positions(results: Sequence[Mapping[str, Any]], dataset: Dataset) -> list[int]:
    """Positions of the results that the labels can judge: those of a category of `dataset` that is labelled on its
    picture or known to be absent from it; where `Record.absent` is None, of every category."""
    spoken = {
        record.id: {*record.absent, *(annotation.category_id for annotation in record.annotations)}
        for record in dataset
        if record.absent is not None
    }
    known = dataset.categories

    def judged(result: Mapping[str, Any]) -> bool:
        category = result["category_id"]
        return category in known and category in spoken.get(result["image_id"], known)

    return [position for position, result in enumerate(results) if judged(result)]


def _with_area(results: Sequence[Mapping[str, Any]], dataset: Dataset, kind: str) -> Sequence[Mapping[str, Any]]:
    """`results` without those of no area in a category that was not labelled to the last object on their picture: they
    find nothing and count neither way, but lie in no region that could say so."""
    vague = {(record.id, category_id) for record in dataset for category_id in record.not_exhaustive}

    def keep(result: Mapping[str, Any]) -> bool:
        if (result["image_id"], result["category_id"]) not in vague:
            return True
        return Mask.from_coco(result["segmentation"]).area > 0 if kind == "segm" else min(result["bbox"][2:]) > 0

    return [result for result in results if keep(result)] if vague else results


def coco_truth(dataset: Dataset, kind: str) -> tuple[dict[str, Any], int]:
    """The labels as COCO's own structure, annotations numbered from 1, and how many objects had no mask.

    For "segm" every segmentation is RLE; an object that has no mask becomes an ignored region as large as its box. A
    category in `Record.not_exhaustive` has an ignored region, the last of its picture, that holds every detection.
    """
    images, annotations, left_out = [], [], 0
    for record in dataset:
        images.append({"id": record.id, "height": record.height, "width": record.width})
        for annotation in record.annotations:
            row, without = truth_row(annotation, record, kind)
            left_out += without
            annotations.append({**row, "id": len(annotations) + 1})
        for region in regions(record):
            annotations.append({**region, "id": len(annotations) + 1})
    categories = [{"id": i, "name": dataset.categories[i]} for i in dataset.category_ids]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, left_out


def regions(record: Record) -> list[dict[str, Any]]:
    """An ignored region for each category of which the picture may hold more than is labelled."""
    return [_everywhere(record, category_id) for category_id in record.not_exhaustive]


def _everywhere(record: Record, category_id: int) -> dict[str, Any]:
    """A crowd region around all that can be detected: its overlap with a detection, as COCO has it, is 1."""
    size = [record.height, record.width]
    return {
        "image_id": record.id,
        "category_id": category_id,
        "bbox": [-BEYOND, -BEYOND, 2 * BEYOND, 2 * BEYOND],
        "segmentation": Mask.from_coco({"size": size, "counts": [0, record.height * record.width]}).to_coco(),
        "area": float(record.height * record.width),
        "iscrowd": 1,
    }


def truth_row(annotation: Annotation, record: Record, kind: str) -> tuple[dict[str, Any], bool]:
    """An object as COCO has it, and whether it lacks the mask that it needs."""
    x0, y0, x1, y1 = annotation.box
    row = {
        "image_id": record.id,
        "category_id": annotation.category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": int(annotation.ignored),
    }
    area, without = annotation.area, False
    if kind == "segm" or area is None:
        mask = annotation.mask(record.height, record.width)
        if mask is not None:
            row["segmentation"] = mask.to_coco()
        elif kind == "segm":
            row["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            row["iscrowd"], without = 1, not annotation.ignored
        if area is None:
            area = mask.area if mask is not None else (x1 - x0) * (y1 - y0)
    row["area"] = float(area)  # type: ignore[arg-type]
    return row, without


def accumulate(
    results: Sequence[Mapping[str, Any]],
    truth: dict[str, Any],
    kind: str,
    limits: list[int],
    sigmas: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T,R,K,A,M) and recall (T,K,A,M), M being the limits; -1 where there is nothing to count.

    sigmas: of keypoints.
    """
    from faster_coco_eval import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    # A copy of each, since loadRes writes into what it gets; a box alone is enough to score boxes.
    shape = {"bbox": [], "segm": ["segmentation"], "keypoints": ["keypoints"]}[kind]
    keys = ["image_id", "category_id", "score", "bbox", *shape]
    rows = [{k: result[k] for k in keys if k in result} for result in results]
    labels = COCO(truth)
    evaluation = COCOeval_faster(labels, labels.loadRes(rows), kind, rle_iou_max_workers=2, kpt_oks_sigmas=sigmas)  # type: ignore[arg-type]
    evaluation.params.maxDets = limits
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


def mean(values: np.ndarray) -> float | None:
    """Mean of what is not -1; None if nothing is left."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


def _figures(precision: np.ndarray, recall: np.ndarray, limits: list[int], max_objects: int) -> dict[str, float | None]:
    hundred, every = limits.index(100), limits.index(max_objects)
    _, small, medium, large = range(len(AREAS))
    return {
        "AP": mean(precision[:, :, :, 0, hundred]),
        "AP50": mean(precision[IOU50, :, :, 0, hundred]),
        "AP75": mean(precision[IOU75, :, :, 0, hundred]),
        "APs": mean(precision[:, :, :, small, hundred]),
        "APm": mean(precision[:, :, :, medium, hundred]),
        "APl": mean(precision[:, :, :, large, hundred]),
        "AR1": mean(recall[:, :, 0, limits.index(1)]),
        "AR10": mean(recall[:, :, 0, limits.index(10)]),
        "AR100": mean(recall[:, :, 0, hundred]),
        "ARs": mean(recall[:, :, small, hundred]),
        "ARm": mean(recall[:, :, medium, hundred]),
        "ARl": mean(recall[:, :, large, hundred]),
        "AP@all": mean(precision[:, :, :, 0, every]),
        "AP50@all": mean(precision[IOU50, :, :, 0, every]),
    }


def _per_class(
    precision: np.ndarray, recall: np.ndarray, hundred: int, every: int, dataset: Dataset, counts: Mapping[int, int]
) -> dict[str, dict[str, float | int | None]]:
    rows: dict[str, dict[str, float | int | None]] = {}
    for k, (category_id, name) in enumerate(class_names(dataset).items()):
        objects = counts.get(category_id, 0)
        if dataset.categories[category_id] == UNUSED and not objects:
            continue
        rows[name] = {
            "AP": mean(precision[:, :, k, 0, hundred]),
            "AP50": mean(precision[IOU50, :, k, 0, hundred]),
            "AP75": mean(precision[IOU75, :, k, 0, hundred]),
            "AP@all": mean(precision[:, :, k, 0, every]),
            "AP50@all": mean(precision[IOU50, :, k, 0, every]),
            "recall": mean(recall[IOU50, k, 0, every]),
            "objects": objects,
        }
    return rows


def _add_frequency(
    figures: dict[str, Any], precision: np.ndarray, dataset: Dataset, train_pictures: Mapping[int, int]
) -> None:
    """Write APr, APc, APf and each class's "train_pictures"; precision (T,R,K) at `max_objects`, all sizes."""
    pictures = {category: train_pictures.get(category, 0) for category in dataset.category_ids}
    groups = frequency_groups(pictures)
    place = {category: k for k, category in enumerate(dataset.category_ids)}
    for figure, group in GROUPS.items():
        figures[figure] = mean(precision[:, :, [place[category] for category in groups[group]]])
    for category, name in class_names(dataset).items():
        if name in figures["per_class"]:
            figures["per_class"][name]["train_pictures"] = pictures[category]


def class_names(dataset: Dataset) -> dict[int, str]:
    """Names by category id, ascending; a name that several categories share is followed by its id."""
    shared = Counter(dataset.categories.values())
    return {i: n if shared[n := dataset.categories[i]] == 1 else f"{n} ({i})" for i in dataset.category_ids}


def _category_warnings(results: Sequence[Mapping[str, Any]], dataset: Dataset) -> list[str]:
    strangers = Counter(r["category_id"] for r in results if r["category_id"] not in dataset.categories)
    return [f"{n} results of category id {i} were not scored: the data has no such category"
            for i, n in sorted(strangers.items())]  # fmt: skip


def _unlearnt_classes(dataset: Dataset, train_pictures: Mapping[int, int]) -> list[str]:
    names = [n for i, n in class_names(dataset).items()
             if not train_pictures.get(i, 0) and dataset.categories[i] != UNUSED]  # fmt: skip
    said = "without training pictures, so neither rare nor common nor frequent"
    return [f"{said}: {_listed(names)}"] if names else []


def _empty_classes(dataset: Dataset) -> list[str]:
    present = {a.category_id for record in dataset for a in record.annotations if not a.ignored}
    names = [n for i, n in class_names(dataset).items() if i not in present and dataset.categories[i] != UNUSED]
    if not present:
        return ["the data holds no object to find: no figure could be computed"]
    return [f"without examples in this data, so left out of the means: {_listed(names)}"] if names else []


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 8 else [*names[:8], f"{len(names) - 8} more"])
