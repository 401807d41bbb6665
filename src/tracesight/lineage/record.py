"""The run record: with which versions, from which data, with which seed a bundle was made; nothing about the host."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

FORMAT = 1
_OF_HOST = ("workers", "device", "proposals")
_PACKAGES = ("tracesight", "torch", "torchvision", "numpy", "pillow", "faster-coco-eval")


def run_record(
    *,
    recipe: str,
    config: Mapping[str, Any],
    data: Mapping[str, Mapping[str, Any]],
    init: str | None,
    steps: int,
    seconds: float,
    notes: tuple[str, ...] = (),
    proposals: str | None = None,
) -> dict[str, Any]:
    """A JSON-able record of one training run.

    It names no host, user or path: the same run on another machine differs in time and seconds only.

    Args:
        recipe: name of the recipe.
        config: the resolved configuration, the seed among it; `workers`, `device` and the path of
            `proposals` are the host's: left out.
        data: split → digest and counts, as `split_record` gives them.
        init: digest of the bundle that the weights came from, None for random weights.
        steps: updates made.
        seconds: time spent.
        proposals: digest of the file that the proposals came from; None where the model finds its own.
        notes: what was found and mended or decided while reading the data.
    """
    return {
        "format": FORMAT,
        "recipe": recipe,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "seed": config.get("seed"),
        "config": {key: value for key, value in config.items() if key not in _OF_HOST},
        "data": {name: dict(split) for name, split in data.items()},
        "init": init,
        **({} if proposals is None else {"proposals": proposals}),
        "steps": steps,
        "seconds": round(seconds, 1),
        "notes": list(notes),
    }


def split_record(
    digest: str,
    pictures: int,
    annotations: int,
    pictures_of_category: Mapping[int, int] | None = None,
    roots: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What the record keeps of one split: digest over labels and pictures, and how many of both.

    pictures_of_category: category id → number of pictures with an object of it, with ids as text, as JSON has them.
    roots: the Merkle roots of pictures and labels that a manifest of the split has. Both are written where given.
    """
    row: dict[str, Any] = {"digest": digest, "pictures": pictures, "annotations": annotations}
    if roots is not None:
        row["roots"] = dict(roots)
    if pictures_of_category is not None:
        row["pictures_of_category"] = {str(i): int(pictures_of_category[i]) for i in sorted(pictures_of_category)}
    return row


def pictures_of_category(record: Mapping[str, Any], split: str = "train") -> dict[int, int] | None:
    """Category id → number of pictures of a split, out of a run record; None where it does not say, as older ones.

    Raises:
        ValueError: ids or numbers that are not whole.
    """
    row = record.get("data", {}).get(split, {}).get("pictures_of_category")
    return None if row is None else {int(category): int(pictures) for category, pictures in row.items()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a training computes."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
