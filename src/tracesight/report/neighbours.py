"""What features hold, shown: a picture and those that lie nearest to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from tracesight.data.channels import as_rgb
from tracesight.data.dataset import Dataset
from tracesight.data.pictures import open_picture
from tracesight.evaluation.table import figure
from tracesight.report.gallery import Shot
from tracesight.training.nearest import Found

SIDE = 128  # pixels, side of the square that one picture gets
GAP = 8  # between the picture and its neighbours; half as much between those


def neighbour_shots(found: Found, count: int) -> list[Shot]:
    """`count` of the pictures asked about, spread evenly: each on the left, its neighbours on the right."""
    asked, bank = found.known.asked, found.known.bank
    total = len(asked.dataset)
    rows = [k * total // count for k in range(min(count, total))] if count else []
    return [_shot(asked.dataset, bank.dataset, row, found.near.indices[row].tolist(), found) for row in rows]


def knn_rows(knn: Mapping[str, Any]) -> list[list[str]]:
    """Figure, value and meaning of each line of a table."""
    how = f"{knn['k']} neighbours among {knn['bank']:,} labelled pictures, temperature {knn['temperature']:g}"
    rows = [["kNN top-1", figure(knn["top1"]), f"share of {knn['pictures']:,} pictures named rightly: {how}"]]
    if "top5" in knn:
        rows.append(["kNN top-5", figure(knn["top5"]), "the right name is among the five with most votes"])
    return rows


def _shot(asked: Dataset, bank: Dataset, row: int, places: list[int], found: Found) -> Shot:
    width = SIDE + GAP + len(places) * (SIDE + GAP // 2)
    strip = Image.new("RGB", (width, SIDE), "white")
    strip.paste(_square(asked, row), (0, 0))
    for number, place in enumerate(places):
        strip.paste(_square(bank, place), (SIDE + GAP + number * (SIDE + GAP // 2), 0))
    names = [bank.categories[bank.category_ids[found.known.bank.labels[place]]] for place in places]
    own = asked.categories[asked.category_ids[found.known.asked.labels[row]]]
    same = sum(name == own for name in names)
    return Shot(strip, f"{asked[row].name}: {own}; nearest: {', '.join(names)}", f"{same} of {len(names)}")


def _square(dataset: Dataset, row: int) -> Image.Image:
    """The middle of a picture."""
    picture = Image.fromarray(as_rgb(open_picture(dataset[row].path, 3)))
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    box = (left, top, left + short, top + short)
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)
