"""A report as one HTML file that needs nothing else: no script, no network, pictures inside it.

Every text from outside (names, paths, config values, notes) is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tracesight.evaluation.table import CLASS_FIGURES, CLASS_NAMES, FIGURES, KEYPOINT_FIGURES, NAMES, figure
from tracesight.report.classes import image_classes, image_figures, image_tiles
from tracesight.report.curves import curves_png
from tracesight.report.facts import ReportFacts, SplitFacts, TrainingFacts
from tracesight.report.neighbours import knn_rows
from tracesight.report.page import data_uri, listed, made_with, pairs, shots, table, thousands, tiles_of, write_page

MEANINGS = {
    "AP": "mean over IoU 0.50 to 0.95",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "APs": "objects under 32² pixels",
    "APm": "objects of 32² to 96² pixels",
    "APl": "objects over 96² pixels",
    "AR1": "recall, 1 detection a picture",
    "AR10": "recall, 10 detections a picture",
    "AR100": "recall, 100 detections a picture",
    "ARs": "recall, objects under 32² pixels",
    "ARm": "recall, objects of 32² to 96² pixels",
    "ARl": "recall, objects over 96² pixels",
}
FILLED = (
    "On the left what the network sees, in the middle what it fills in, on the right the picture. Where patches are "
    "normalised one by one (normalised=true), mean and deviation of each patch that it fills in are the true ones."
)
TASKS = {
    "segment": "Instance segmentation", "detect": "Object detection", "classify": "Classification",
    "features": "Pretraining without labels",
}  # fmt: skip


def write_report(path: str | Path, facts: ReportFacts) -> None:
    """Write the page; the file is there whole or not at all.

    Args:
        path: the HTML file to write; its folder must exist.
        facts: what to say.
    """
    write_page(
        path,
        title=f"{facts.name}: {TASKS.get(facts.task, facts.task).lower()}",
        heading=facts.name,
        lead=_summary(facts),
        top=_tiles(facts),
        sections=_sections(facts),
        foot=made_with(facts.versions),
    )


def _sections(facts: ReportFacts) -> list[tuple[str, str, str]]:
    config = facts.training.config if facts.training else {}
    sides, marks, layout = "The label is on the left, the prediction on the right.", "Brackets mark each one.", ""
    if facts.task == "classify":
        sides, marks, layout = "Below each picture are the surest answers.", "Of these it was surest.", " many"
    if facts.task == "features":
        sides = "On the left a picture, on its right those whose features lie nearest, and how many show the same."
    return [
        ("notes", "Please note", listed(facts.notes)),
        ("next", "Use it next", _commands(facts.commands)),
        ("figures", f"Figures on {facts.evaluated_on}", _figures(facts.metrics)),
        ("curves", "Curves", _curves(facts.training)),
        ("classes", "By class", _classes(facts.metrics)),
        ("filled", "Hidden patches filled in", shots(facts.filled, FILLED, " pairs")),
        ("samples", "Samples", shots(facts.samples, f"{sides} {_shown(facts)}", layout)),
        ("mistakes", "Worst mistakes", shots(facts.mistakes, f"{sides} {marks}", layout or " pairs")),
        ("data", "The data", _data(facts.splits, facts.task)),
        ("config", "Config", pairs(config)),
        ("versions", "Versions", pairs(facts.versions)),
    ]


def _summary(facts: ReportFacts) -> str:
    task, training = TASKS.get(facts.task, facts.task), facts.training
    if training is None:
        return f"{task}, evaluated on {facts.evaluated_on}."
    pictures = f" on {thousands(facts.splits[0].pictures)} pictures" if facts.splits else ""
    return (
        f"{task} with {training.model} ({training.parameters / 1e6:.1f} million parameters), trained{pictures} from "
        f"{training.start}: {thousands(training.steps)} steps of {training.batch_size} in "
        f"{duration(training.seconds)} on {training.hardware}."
    )


def _tiles(facts: ReportFacts) -> str:
    tiles: list[tuple[str, str]] = []
    metrics = facts.metrics or {}
    for kind in [kind for kind in ("keypoints", "segm", "bbox") if kind in metrics]:
        name = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}[kind]
        tiles.append((figure(metrics[kind]["AP50@all"]), f"{name} AP50@all"))
        tiles.append((figure(metrics[kind]["AP@all"]), f"{name} AP@all"))
    tiles += image_tiles(metrics["image"]) if "image" in metrics else []
    tiles += [(figure(metrics["knn"]["top1"]), "kNN top-1")] if "knn" in metrics else []
    if facts.operating:
        tiles.append((_short(facts.operating["threshold"]), "threshold"))
        tiles.append((_percent(facts.operating["precision"]), "precision at threshold"))
        tiles.append((_percent(facts.operating["recall"]), "recall at threshold"))
    return tiles_of(tiles)


def _figures(metrics: Mapping[str, Any] | None) -> str:
    if not metrics:
        return ""
    if "knn" in metrics:
        return table(["figure", "value", "what it means"], knn_rows(metrics["knn"]), text=(2,))
    if "image" in metrics:
        return image_figures(metrics["image"], table) + listed(metrics.get("warnings", ()))
    kinds = [kind for kind in NAMES if kind in metrics]
    most = metrics.get("max_objects")
    limit = f"up to {most} detections a picture" if most else "every detection"
    rows = [[name, *(figure(metrics[kind][name]) for kind in kinds), MEANINGS[name]] for name in FIGURES]
    rows += [[name, *(figure(metrics[kind][name]) for kind in kinds), f"{MEANINGS[name[:-4]]}, {limit}"]
             for name in ("AP@all", "AP50@all")]  # fmt: skip
    head = ["figure", *(NAMES[kind] for kind in kinds), "what it means"]
    hint = (
        "COCO’s figures, 0 to 1, higher is better. Up to 100 detections of a class count in each picture unless stated."
    )
    figures = table(head, rows, text=(len(head) - 1,), apart=(len(FIGURES),))
    if "keypoints" in metrics:
        rows = [[name, figure(metrics["keypoints"][name]), meaning] for name, meaning in KEYPOINT_FIGURES.items()]
        figures += "<h3>Keypoints</h3>" + table(["figure", "keypoints", "what it means"], rows, text=(2,))
    return f'<p class="soft">{hint}</p>{figures}{listed(metrics.get("warnings", ()))}'


def _classes(metrics: Mapping[str, Any] | None) -> str:
    parts = []
    if metrics and "image" in metrics:
        return image_classes(metrics["image"], table)
    for kind in ("keypoints", "segm", "bbox"):
        if metrics and kind in metrics:
            head = ["class", "objects", *CLASS_FIGURES]
            rows = [
                [name, thousands(row["objects"]), *(row[key] for key in CLASS_FIGURES)]
                for name, row in metrics[kind]["per_class"].items()
            ]
            parts.append(f"<h3>{CLASS_NAMES[kind].capitalize()}</h3>" + table(head, rows))
    hint = '<p class="soft">Recall: share of the objects found at IoU 0.50, whatever the score.</p>'
    return "".join(parts) + hint if parts else ""


def _curves(training: TrainingFacts | None) -> str:
    if training is None or not training.history:
        return ""
    light, dark = (data_uri(curves_png(training.history, dark=dark), "png") for dark in (False, True))
    return (
        f'<div class="wide"><picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="Losses, figures and learning rate against the step"></picture></div>'
    )


def _commands(commands: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<p>{escape(purpose)}</p><pre>{escape(command)}</pre>" for purpose, command in commands)


def _data(splits: Sequence[SplitFacts], task: str) -> str:
    if not splits:
        return ""
    names = list(dict.fromkeys(name for split in splits for name in split.objects))
    things = "labels" if task in ("classify", "features") else "objects"
    rows: list[list[Any]] = [
        ["pictures", *(thousands(split.pictures) for split in splits)],
        [f"of these without {things}", *(thousands(split.empty) for split in splits)],
        [things, *(thousands(sum(split.objects.values())) for split in splits)],
        ["crowd regions", *(thousands(split.crowds) for split in splits)],
        *([name, *(thousands(split.objects.get(name, 0)) for split in splits)] for name in names),
    ]
    counts = table(["", *(split.name for split in splits)], rows, apart=(4,))
    digests = pairs({f"{split.name} (SHA-256 of pictures and labels)": split.digest for split in splits})
    notes = listed([f"{split.name}: {note}" for split in splits for note in split.notes])
    return f"{counts}{digests}{notes}"


def _shown(facts: ReportFacts) -> str:
    if not facts.operating:
        return ""
    what = "Categories from {} up are the answer." if facts.task == "classify" else "Detections from {} up are drawn."
    return what.format(f"the operating threshold, {_short(facts.operating['threshold'])},")


def duration(seconds: float) -> str:
    """A time to read, such as 45 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
