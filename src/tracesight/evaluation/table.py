"""Figures as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracesight.evaluation.coco import GROUPS
from tracesight.evaluation.frequency import frequency_groups

NAMES = {"bbox": "boxes", "segm": "masks"}
CLASS_NAMES = {**NAMES, "keypoints": "keypoints"}
KEYPOINT_FIGURES = {
    "AP": "average precision, mean over similarities of 0.50 to 0.95",
    "AP50": "average precision at a similarity of 0.50",
    "AP75": "the same at 0.75",
    "APm": "AP of objects of 32² to 96² pixels",
    "APl": "AP of larger objects",
    "AR": "recall, mean over similarities of 0.50 to 0.95",
    "AR50": "recall at 0.50",
    "AR75": "recall at 0.75",
    "ARm": "AR of objects of 32² to 96² pixels",
    "ARl": "AR of larger objects",
    "AP@all": "AP with all detections of a picture, not the best 20",
    "AP50@all": "AP50 with all of them",
}
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
CLASS_FIGURES = ("AP", "AP50", "AP75", "AP@all", "AP50@all", "recall")


# Of whole pictures: what each is, in the order in which it is shown.
IMAGE_FIGURES = {
    "top1": "share of pictures whose surest answer is right",
    "top5": "share whose label is among the five surest",
    "mAP": "average precision, mean over classes",
    "f1": "harmonic mean of precision and recall, at the threshold",
    "precision": "share of the answers that are right, at the threshold",
    "recall": "share of the labels that are found, at the threshold",
    "threshold": "probability from which a category is shown",
    "nll": "negative log-likelihood, lower is better",
    "ece": "expected calibration error, lower is better",
    "ece_raw": "the same at temperature 1",
    "temperature": "what scores are divided by",
}
IMAGE_CLASS_FIGURES = ("recall", "precision", "AP")


def figure(value: float | None) -> str:
    """Three decimals, or a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def table(metrics: Mapping[str, Any], *, width: int = 100, colour: bool = False) -> str:
    """What `evaluate` or `evaluate_classes` returned, as text: the figures, of boxes and masks side by side, then the
    classes.

    Args:
        metrics: their result.
        width: columns of the terminal.
        colour: with ANSI codes, for a terminal; without them, for a file or pipe.
    """
    from rich.console import Console

    console = Console(width=width, force_terminal=colour, no_color=not colour, highlight=False)
    with console.capture() as capture:
        kinds = [kind for kind in NAMES if kind in metrics]
        if kinds:
            console.print(_overall(metrics, kinds))
        if "keypoints" in metrics:
            console.print(_points(metrics["keypoints"]))
        for kind in (kind for kind in CLASS_NAMES if kind in metrics):
            console.print(_classes(metrics, kind))
        if "proposals" in metrics:
            shown = "  ".join(f"{name} {figure(value)}" for name, value in metrics["proposals"].items())
            console.print(f"proposals: {shown}", markup=False)
        if "image" in metrics:
            for part in _whole(metrics["image"]):
                console.print(part)
        for warning in metrics.get("warnings", ()):
            console.print(f"warning: {warning}", style="yellow", markup=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _overall(metrics: Mapping[str, Any], kinds: list[str]) -> Any:
    from rich import box
    from rich.table import Table

    most = metrics.get("max_objects")
    out = Table(box=box.SIMPLE_HEAD, title="Figures", title_justify="left", title_style="bold", pad_edge=False)
    out.add_column("figure")
    out.add_column("detections", justify="right")
    for kind in kinds:
        out.add_column(NAMES[kind], justify="right")
    for name in FIGURES:
        limit = name.removeprefix("AR") if name in ("AR1", "AR10") else "100"
        out.add_row(name, limit, *(figure(metrics[kind][name]) for kind in kinds), end_section=name == FIGURES[-1])
    for name in ("AP@all", "AP50@all"):
        out.add_row(name, "all" if most is None else str(most), *(figure(metrics[kind][name]) for kind in kinds))
    for name, classes in _shown_groups(metrics, kinds).items():
        limit = "all" if most is None else str(most)
        out.add_row(f"{name} ({classes})", limit, *(figure(metrics[kind][name]) for kind in kinds))
    return out


def _shown_groups(metrics: Mapping[str, Any], kinds: list[str]) -> dict[str, str]:
    """By figure, what its group is called and how many classes with objects it holds; of a single group, nothing,
    since its figure only repeats `AP@all`."""
    if not kinds or "APr" not in metrics[kinds[0]]:
        return {}
    rows = metrics[kinds[0]]["per_class"]
    groups = frequency_groups({i: row["train_pictures"] for i, row in enumerate(rows.values()) if row["objects"]})
    if sum(map(bool, groups.values())) < 2:
        return {}
    sizes = {name: len(groups[group]) for name, group in GROUPS.items()}
    return {name: f"{GROUPS[name]}, {n} class{'' if n == 1 else 'es'}" for name, n in sizes.items()}


def _points(figures: Mapping[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    out = Table(box=box.SIMPLE_HEAD, title="Keypoints", title_justify="left", title_style="bold", pad_edge=False)
    out.add_column("figure")
    out.add_column("keypoints", justify="right")
    out.add_column("what it means")
    for name, meaning in KEYPOINT_FIGURES.items():
        out.add_row(name, figure(figures[name]), meaning)
    return out


def _classes(metrics: Mapping[str, Any], kind: str) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"By class, {CLASS_NAMES[kind]}"
    out = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    out.add_column("class", overflow="fold")
    out.add_column("objects", justify="right")
    for name in CLASS_FIGURES:
        out.add_column(name, justify="right")
    for name, row in metrics[kind]["per_class"].items():
        out.add_row(Text(name), str(row["objects"]), *(figure(row[key]) for key in CLASS_FIGURES))
    return out


def _whole(image: Mapping[str, Any]) -> list[Any]:
    """The tables of a classifier's figures: overall, by class, and what it takes for what most often."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def made(title: str, *columns: str) -> Table:
        out = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
        for place, column in enumerate(columns):
            out.add_column(column, justify="right" if place else "left", overflow="fold")
        return out

    overall = made(f"Figures on {image['pictures']} pictures", "figure", "value", "what it means")
    overall.columns[2].justify = "left"
    for name, meaning in IMAGE_FIGURES.items():
        if name in image:
            overall.add_row(name, figure(image[name]), meaning)
    shown = [name for name in IMAGE_CLASS_FIGURES if name in next(iter(image["per_class"].values()), {})]
    classes = made("By class", "class", "pictures", *shown)
    for name, row in image["per_class"].items():
        classes.add_row(Text(name), str(row["pictures"]), *(figure(row[key]) for key in shown))
    confused = made("Taken for another, most often", "label", "answer", "pictures")
    for row in image.get("confused", ())[:10]:
        confused.add_row(Text(row["label"]), Text(row["answer"]), str(row["pictures"]))
    return [overall, classes, *([confused] if confused.rows else [])]
