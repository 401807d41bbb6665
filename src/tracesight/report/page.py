"""The parts that every page here is made of: its frame, tables, lists, pictures. One HTML file that needs nothing else.

Every text from outside (names, paths, values, notes) is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from tracesight.evaluation.table import figure
from tracesight.report.gallery import Shot
from tracesight.report.style import STYLE
from tracesight.scene.values import write_whole

QUALITY = 82  # of JPEG: lines of the overlays stay clean


def write_page(
    path: str | Path,
    *,
    title: str,
    heading: str,
    lead: str,
    top: str,
    sections: Iterable[tuple[str, str, str]],
    foot: str,
) -> None:
    """Write a page; the file is there whole or not at all.

    Args:
        path: its folder must exist.
        lead: one sentence below the heading.
        top: HTML between them and the sections.
        sections: (identifier, title, HTML); those without HTML are left out.
        foot: one line at the end.
    """
    parts = [part for part in sections if part[2]]
    links = "".join(f'<a href="#{identifier}">{escape(name)}</a>' for identifier, name, _ in parts)
    page = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f'<header><div><div class="brand">TRACESIGHT</div><h1>{escape(heading)}</h1>',
        f'<p class="lead">{escape(lead)}</p><nav>{links}</nav></div></header><main>',
        top,
        *(f'<section id="{i}"><h2>{escape(t)}</h2>{body}</section>' for i, t, body in parts),
        f"<footer>{escape(foot)}</footer></main></body></html>\n",
    ]
    write_whole(path, "\n".join(page))


def tiles_of(tiles: Sequence[tuple[str, str]]) -> str:
    """Figures in boxes, (value, label); the first one stands out."""
    boxes = [
        f'<div class="tile{" first" if place == 0 else ""}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for place, (value, label) in enumerate(tiles)
    ]
    return f'<div class="tiles">{"".join(boxes)}</div>' if boxes else ""


def shots(shots: Sequence[Shot], hint: str, layout: str = "") -> str:
    """Pictures with captions below a sentence; layout " pairs" puts as many beside each other as there is room for."""
    figures = []
    for shot in shots:
        kind = f'<span class="kind">{escape(shot.title)}</span>' if shot.title else ""
        size = f'width="{shot.image.width}" height="{shot.image.height}"'
        picture = f'<img src="{jpeg(shot.image)}" {size} alt="{escape(shot.caption)}" loading="lazy">'
        figures.append(f"<figure>{picture}<figcaption>{kind}{escape(shot.caption)}</figcaption></figure>")
    return f'<p class="soft">{escape(hint)}</p><div class="shots{layout}">{"".join(figures)}</div>' if figures else ""


def pairs(values: Mapping[str, Any]) -> str:
    """A table of names and values."""
    rows = "".join(
        f'<tr><td>{escape(str(key))}</td><td class="text"><code>{escape(text(value))}</code></td></tr>'
        for key, value in values.items()
    )
    return f'<div class="wide"><table class="keys"><tbody>{rows}</tbody></table></div>' if rows else ""


def listed(sentences: Iterable[str]) -> str:
    """Sentences that the reader must not miss."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="notes">{items}</ul>' if items else ""


def table(
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


def jpeg(image: Image.Image) -> str:
    """A picture as a data URI."""
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return data_uri(out.getvalue(), "jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """A file of image/`kind` inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def made_with(versions: Mapping[str, Any]) -> str:
    """The line at the end."""
    version = versions.get("tracesight")
    return f"Written by tracesight {version}." if version else "Written by tracesight."


def thousands(value: int) -> str:
    """With commas."""
    return f"{value:,}"


def text(value: Any) -> str:
    """A value as one reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text(item) for item in value) + "]"
    return str(value)
