"""A report as one HTML file that needs nothing else: no script, no network, pictures inside it.

Every text from outside (names, paths, config values, notes) is escaped.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from tracesight.evaluation.table import CLASS_FIGURES, FIGURES, NAMES, figure
from tracesight.report.curves import curves_png
from tracesight.report.facts import ReportFacts, SplitFacts, TrainingFacts
from tracesight.report.gallery import Shot
from tracesight.report.style import STYLE

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
TASKS = {"segment": "Instance segmentation", "detect": "Object detection"}
QUALITY = 82  # of JPEG: lines of the overlays stay clean


def write_report(path: str | Path, facts: ReportFacts) -> None:
    """Write the page; the file is there whole or not at all.

    Args:
        path: the HTML file to write; its folder must exist.
        facts: what to say.
    """
    path = Path(path)
    parts = [(identifier, title, body) for identifier, title, body in _sections(facts) if body]
    links = "".join(f'<a href="#{identifier}">{escape(title)}</a>' for identifier, title, _ in parts)
    title = escape(f"{facts.name}: {TASKS.get(facts.task, facts.task).lower()}")
    page = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f'<header><div><div class="brand">TRACESIGHT</div><h1>{escape(facts.name)}</h1>',
        f'<p class="lead">{escape(_summary(facts))}</p><nav>{links}</nav></div></header><main>',
        _tiles(facts),
        *(f'<section id="{i}"><h2>{escape(t)}</h2>{body}</section>' for i, t, body in parts),
        f"<footer>{escape(_made_with(facts.versions))}</footer></main></body></html>\n",
    ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text("\n".join(page), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sections(facts: ReportFacts) -> list[tuple[str, str, str]]:
    config = facts.training.config if facts.training else {}
    sides = "The label is on the left, the prediction on the right."
    return [
        ("notes", "Please note", _list(facts.notes)),
        ("next", "Use it next", _commands(facts.commands)),
        ("figures", f"Figures on {facts.evaluated_on}", _figures(facts.metrics)),
        ("curves", "Curves", _curves(facts.training)),
        ("classes", "By class", _classes(facts.metrics)),
        ("samples", "Samples", _shots(facts.samples, f"{sides} {_shown(facts)}")),
        ("mistakes", "Worst mistakes", _shots(facts.mistakes, f"{sides} Brackets mark each one.", " pairs")),
        ("data", "The data", _data(facts.splits)),
        ("config", "Config", _pairs(config)),
        ("versions", "Versions", _pairs(facts.versions)),
    ]


def _summary(facts: ReportFacts) -> str:
    task, training = TASKS.get(facts.task, facts.task), facts.training
    if training is None:
        return f"{task}, evaluated on {facts.evaluated_on}."
    pictures = f" on {_thousands(facts.splits[0].pictures)} pictures" if facts.splits else ""
    return (
        f"{task} with {training.model} ({training.parameters / 1e6:.1f} million parameters), trained{pictures} from "
        f"{training.start}: {_thousands(training.steps)} steps of {training.batch_size} in "
        f"{duration(training.seconds)} on {training.hardware}."
    )


def _tiles(facts: ReportFacts) -> str:
    tiles: list[tuple[str, str]] = []
    metrics = facts.metrics or {}
    for kind in [kind for kind in ("segm", "bbox") if kind in metrics]:
        name = {"bbox": "box", "segm": "mask"}[kind]
        tiles.append((figure(metrics[kind]["AP50@all"]), f"{name} AP50@all"))
        tiles.append((figure(metrics[kind]["AP@all"]), f"{name} AP@all"))
    if facts.operating:
        tiles.append((_short(facts.operating["threshold"]), "threshold"))
        tiles.append((_percent(facts.operating["precision"]), "precision at threshold"))
        tiles.append((_percent(facts.operating["recall"]), "recall at threshold"))
    boxes = [
        f'<div class="tile{" first" if place == 0 else ""}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for place, (value, label) in enumerate(tiles)
    ]
    return f'<div class="tiles">{"".join(boxes)}</div>' if boxes else ""


def _figures(metrics: Mapping[str, Any] | None) -> str:
    if not metrics:
        return ""
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
    table = _table(head, rows, text=(len(head) - 1,), apart=(len(FIGURES),))
    return f'<p class="soft">{hint}</p>{table}{_list(metrics.get("warnings", ()))}'


def _classes(metrics: Mapping[str, Any] | None) -> str:
    parts = []
    for kind in ("segm", "bbox"):
        if metrics and kind in metrics:
            head = ["class", "objects", *CLASS_FIGURES]
            rows = [
                [name, _thousands(row["objects"]), *(row[key] for key in CLASS_FIGURES)]
                for name, row in metrics[kind]["per_class"].items()
            ]
            parts.append(f"<h3>{NAMES[kind].capitalize()}</h3>" + _table(head, rows))
    hint = '<p class="soft">Recall: share of the objects found at IoU 0.50, whatever the score.</p>'
    return "".join(parts) + hint if parts else ""


def _curves(training: TrainingFacts | None) -> str:
    if training is None or not training.history:
        return ""
    light, dark = (_data_uri(curves_png(training.history, dark=dark), "png") for dark in (False, True))
    return (
        f'<div class="wide"><picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="Losses, figures and learning rate against the step"></picture></div>'
    )


def _commands(commands: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<p>{escape(purpose)}</p><pre>{escape(command)}</pre>" for purpose, command in commands)


def _shots(shots: Sequence[Shot], hint: str, layout: str = "") -> str:
    figures = []
    for shot in shots:
        kind = f'<span class="kind">{escape(shot.title)}</span>' if shot.title else ""
        size = f'width="{shot.image.width}" height="{shot.image.height}"'
        picture = f'<img src="{_jpeg(shot.image)}" {size} alt="{escape(shot.caption)}" loading="lazy">'
        figures.append(f"<figure>{picture}<figcaption>{kind}{escape(shot.caption)}</figcaption></figure>")
    return f'<p class="soft">{escape(hint)}</p><div class="shots{layout}">{"".join(figures)}</div>' if figures else ""


def _data(splits: Sequence[SplitFacts]) -> str:
    if not splits:
        return ""
    names = list(dict.fromkeys(name for split in splits for name in split.objects))
    rows: list[list[Any]] = [
        ["pictures", *(_thousands(split.pictures) for split in splits)],
        ["of these without objects", *(_thousands(split.empty) for split in splits)],
        ["objects", *(_thousands(sum(split.objects.values())) for split in splits)],
        ["crowd regions", *(_thousands(split.crowds) for split in splits)],
        *([name, *(_thousands(split.objects.get(name, 0)) for split in splits)] for name in names),
    ]
    counts = _table(["", *(split.name for split in splits)], rows, apart=(4,))
    digests = _pairs({f"{split.name} (SHA-256 of pictures and labels)": split.digest for split in splits})
    notes = _list([f"{split.name}: {note}" for split in splits for note in split.notes])
    return f"{counts}{digests}{notes}"


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{escape(str(key))}</td><td class="text"><code>{escape(_text(value))}</code></td></tr>'
        for key, value in values.items()
    )
    return f'<div class="wide"><table class="keys"><tbody>{rows}</tbody></table></div>' if rows else ""


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], *, text: Sequence[int] = (), apart: Sequence[int] = ()
) -> str:
    """Rows of strings, or of figures (float or None), which get a bar; `text` columns wrap, `apart` rows get a line."""

    def cell(place: int, value: Any) -> str:
        if place in text:
            return f'<td class="text">{escape(value)}</td>'
        if isinstance(value, str):
            return f"<td>{escape(value)}</td>"
        share = 0.0 if value is None else min(max(value, 0.0), 1.0)
        return f'<td class="bar" style="--share:{share:.3f}">{figure(value)}</td>'

    titles = "".join(f"<th{' class=text' if place in text else ''}>{escape(t)}</th>" for place, t in enumerate(head))
    lines = "".join(
        f"<tr{' class=apart' if place in apart else ''}>{''.join(cell(i, value) for i, value in enumerate(row))}</tr>"
        for place, row in enumerate(rows)
    )
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'


def _jpeg(image: Image.Image) -> str:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return _data_uri(out.getvalue(), "jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _shown(facts: ReportFacts) -> str:
    if not facts.operating:
        return ""
    return f"Detections from the operating threshold, {_short(facts.operating['threshold'])}, up are drawn."


def _made_with(versions: Mapping[str, Any]) -> str:
    version = versions.get("tracesight")
    return f"Written by tracesight {version}." if version else "Written by tracesight."


def duration(seconds: float) -> str:
    """A time to read, such as 45 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value)


def _thousands(value: int) -> str:
    return f"{value:,}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
