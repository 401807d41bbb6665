"""The page of `tracesight data check`: what was found, kind by kind, with pictures of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from tracesight.data.channels import as_rgb
from tracesight.data.pictures import open_any
from tracesight.errors import UserError
from tracesight.report.gallery import Shot
from tracesight.report.page import listed, made_with, shots, thousands, tiles_of, write_page

if TYPE_CHECKING:
    from tracesight.data.checks.everything import Report
    from tracesight.data.dataset import Dataset
    from tracesight.data.finding import Finding, Kind
    from tracesight.data.record import Annotation, Box, Record

SHOTS = 12  # pictures of a kind, spread evenly over what was found
LINES = 200  # findings of a kind that are written out
SIDE = 300  # pixels, long side of a thumbnail
ROOM = 1.6  # a close look is so many times as long as what it is about, and
LEAST_WINDOW = 40  # pixels at least
BEYOND = 0.25  # how far it may reach out of the picture, as a share of its sides
Window = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels of the picture

_CODE, _CODE_TAG = re.compile("`([^`]*)`"), r"<code>\1</code>"
_MARK, _OTHERS, _MASK = (255, 59, 48), (64, 224, 255), (64, 176, 255)


def write_check_page(path: Path, facts: Mapping[str, Any], sets: Mapping[str, Dataset], report: Report) -> None:
    """Write the page; the file is there whole or not at all.

    Args:
        path: its folder must exist.
        facts: as `findings.json` has them.
        sets: as they were read, so that what is shown is what was found.
        report: the findings.
    """
    kinds = report.by_kind()
    chosen = {kind.code: _spread([f for f in findings if f.picture is not None]) for kind, findings in kinds}
    paths = {finding.picture for some in chosen.values() for finding in some}
    records = {record.path: record for dataset in sets.values() for record in dataset if record.path in paths}
    data = facts["data"]
    name = data if isinstance(data, str) else ", ".join(data.values())
    pictures = sum(counts["pictures"] for counts in facts["sets"].values())
    objects = sum(counts["objects"] for counts in facts["sets"].values())
    tiles = [(thousands(facts[key]), key) for key in ("errors", "warnings", "notes")]
    tiles += [(thousands(pictures), "pictures"), (thousands(objects), "objects")]
    sections = [("overview", "Overview", _overview(kinds) + _fixed(facts))]
    sections += [
        (kind.code, f"{kind.title[0].upper()}{kind.title[1:]}", _section(kind, findings, chosen[kind.code], records))
        for kind, findings in kinds
    ]
    write_page(
        path,
        title=f"{Path(name).name}: data check",
        heading=Path(name).name or name,
        lead=_summary(facts, pictures),
        top=tiles_of(tiles),
        sections=sections,
        foot=made_with({}),
    )


def _summary(facts: Mapping[str, Any], pictures: int) -> str:
    sets = [f"{name} ({thousands(counts['pictures'])})" for name, counts in facts["sets"].items()]
    found = "Nothing was found to be wrong." if not facts["kinds"] else "What was found, and what to do about it."
    return f"Data check of {thousands(pictures)} pictures: {', '.join(sets)}. {found}"


def _overview(kinds: Sequence[tuple[Kind, Sequence[Finding]]]) -> str:
    if not kinds:
        return "<p>Every picture could be decoded and every label fits.</p>"
    rows = "".join(
        f'<tr><td>{_chip(kind.severity)}</td><td class="text"><a href="#{kind.code}">{kind.code}</a></td>'
        f'<td>{thousands(len(findings))}</td><td class="text">{escape(kind.title)}</td>'
        f'<td class="text">{escape(kind.fix or "–")}</td></tr>'
        for kind, findings in kinds
    )
    head = '<th></th><th class="text">code</th><th>count</th><th class="text">what</th><th class="text">by --fix</th>'
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _fixed(facts: Mapping[str, Any]) -> str:
    if "fixed" not in facts:
        return ""
    fixed = facts["fixed"]
    lines = [f"A corrected copy is in {fixed['folder']} ({fixed['format']}): "
             f"{thousands(sum(fixed['changes'].values()))} changes, listed in its changes.json."]  # fmt: skip
    if fixed["left"]:
        left = ", ".join(f"{count} {code}" for code, count in fixed["left"].items())
        lines.append(f"Left to a person: {left}.")
    return listed([*lines, *(f"Lost: {line}" for line in fixed["lost"])])


def _section(kind: Kind, findings: Sequence[Finding], chosen: Sequence[Finding], records: Mapping[Path, Record]) -> str:
    fix = f" <code>--fix</code>: {escape(kind.fix)}." if kind.fix else ""
    what = f"<p>{_chip(kind.severity)}<code>{kind.code}</code> {thousands(len(findings))}</p>"
    remedy = f"<p>What to do: {_CODE.sub(_CODE_TAG, escape(kind.remedy))}.{fix}</p>"
    thumbs = [shot for finding in chosen if (shot := thumbnail(finding, records)) is not None]
    lines = "".join(f"<li>{escape(f'{finding.where}: {finding.message}')}</li>" for finding in findings[:LINES])
    more = f" of {thousands(len(findings))}; findings.json has all" if len(findings) > LINES else ""
    shown = min(len(findings), LINES)
    listing = f"<details{' open' if shown <= 5 else ''}><summary>{thousands(shown)} listed{more}</summary>"
    gallery = shots(thumbs, "", " thumbs")
    return f'{what}{remedy}{gallery}{listing}<ul class="lines">{lines}</ul></details>'


def thumbnail(finding: Finding, records: Mapping[Path, Record]) -> Shot | None:
    """A close look at what was found, or the whole picture; None where there is nothing to be seen of it.

    The object's box is red and its mask blue, the other objects' boxes are light blue, and what is beyond the picture
    is black. A picture that it is compared with is on its right.
    """
    if finding.picture is None:
        return None
    try:
        pixels = as_rgb(open_any(finding.picture))
        other = None if finding.other is None else as_rgb(open_any(finding.other))
    except UserError:
        return None
    caption = f"{finding.picture.name}: {finding.message}"
    if other is not None:
        return Shot(_beside(pixels, other), caption)
    record = records.get(finding.picture)
    objects = record.annotations if record is not None else ()
    image = Image.fromarray(pixels)
    if finding.box is None:
        window = (0, 0, image.width, image.height)
    else:
        window = _window(finding.box, image.width, image.height)
        image = _with_mask(pixels, record, next((a for a in objects if a.id == finding.annotation), None))
    scale = SIDE / max(window[2] - window[0], window[3] - window[1])
    size = max(1, round((window[2] - window[0]) * scale)), max(1, round((window[3] - window[1]) * scale))
    smooth = Image.Resampling.BICUBIC if scale < 4 else Image.Resampling.NEAREST
    drawn = image.crop(window).resize(size, smooth)
    for annotation in objects:
        if annotation.id != finding.annotation:
            _outline(drawn, annotation.box, window, scale, _OTHERS)
    if finding.box is not None:
        _outline(drawn, finding.box, window, scale, _MARK)
    return Shot(drawn, caption)


def _window(box: Box, width: int, height: int) -> Window:
    """A square with room around the box, which may reach a little out of the picture."""
    x1, x2 = (min(max(v, -BEYOND * width), (1 + BEYOND) * width) for v in sorted((box[0], box[2])))
    y1, y2 = (min(max(v, -BEYOND * height), (1 + BEYOND) * height) for v in sorted((box[1], box[3])))
    half = max(LEAST_WINDOW, ROOM * max(x2 - x1, y2 - y1)) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return round(x - half), round(y - half), round(x + half), round(y + half)


def _outline(image: Image.Image, box: Box, window: Window, scale: float, colour: tuple[int, int, int]) -> None:
    far = 4.0 * SIDE  # what lies further away is not seen, and may be too far to be drawn
    x1, x2 = (min(max((v - window[0]) * scale, -far), far) for v in sorted((box[0], box[2])))
    y1, y2 = (min(max((v - window[1]) * scale, -far), far) for v in sorted((box[1], box[3])))
    ImageDraw.Draw(image).rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=colour, width=2)


def _with_mask(pixels: np.ndarray, record: Record | None, annotation: Annotation | None) -> Image.Image:
    """The picture with the object's mask laid over it, where it has one that can be drawn."""
    if record is not None and annotation is not None and annotation.segmentation is not None:
        try:
            mask = annotation.mask(*pixels.shape[:2])
        except ValueError:
            mask = None
        crop, (top, left) = mask.to_crop() if mask is not None else (np.zeros((0, 0), np.bool_), (0, 0))
        region = pixels[top : top + crop.shape[0], left : left + crop.shape[1]]
        region[crop] = (0.5 * region[crop] + 0.5 * np.array(_MASK)).astype(np.uint8)
    return Image.fromarray(pixels)


def _beside(left: np.ndarray, right: np.ndarray) -> Image.Image:
    """Two whole pictures beside each other, of one height."""
    height = SIDE // 2
    images = [Image.fromarray(pixels) for pixels in (left, right)]
    sizes = [(min(2 * SIDE, max(1, round(image.width * height / image.height))), height) for image in images]
    both = Image.new("RGB", (sizes[0][0] + sizes[1][0] + 4, height), (255, 255, 255))
    both.paste(images[0].resize(sizes[0], Image.Resampling.BICUBIC), (0, 0))
    both.paste(images[1].resize(sizes[1], Image.Resampling.BICUBIC), (sizes[0][0] + 4, 0))
    return both


def _chip(severity: str) -> str:
    return f'<span class="kind {severity}">{severity}</span>'


def _spread(findings: Sequence[Finding]) -> list[Finding]:
    if len(findings) <= SHOTS:
        return list(findings)
    return [findings[place * len(findings) // SHOTS] for place in range(SHOTS)]
