"""Real labelled pictures: recognised as one format, read without a false error, converted without losing a mask."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tracesight.data.formats import FORMATS, read_dataset, read_sets, write_sets

pytestmark = pytest.mark.realdata


def folder(name: str) -> Path:
    path = Path(os.environ.get("TRACESIGHT_DATA", "nowhere")) / name
    if not path.exists():
        pytest.skip(f"TRACESIGHT_DATA names no folder that holds {name}")
    return path


@pytest.mark.parametrize(
    ("name", "format", "pictures", "objects"),
    [
        ("bccd", "voc", {"train": 205, "val": 87}, {"train": 2805, "val": 1138}),
        ("coco64", "yolo", {"train": 64, "val": 64}, {"train": 546, "val": 546}),
        ("nuclei", "coco", {"train": 397, "val": 98}, {"train": 17556, "val": 4672}),
    ],
)
def test_one_format_fits_and_all_is_read(
    name: str, format: str, pictures: dict[str, int], objects: dict[str, int]
) -> None:
    path = folder(name)
    holder = path / "train" if name == "nuclei" else path
    assert [known for known in FORMATS if FORMATS[known].fits(holder)] == [format]
    sets, findings = read_sets(path)
    assert [str(finding) for finding in findings if finding.kind.severity == "error"] == []
    assert {split: len(dataset) for split, dataset in sets.items()} == pictures
    assert {split: sum(len(r.annotations) for r in dataset) for split, dataset in sets.items()} == objects


def test_folders_of_categories(tmp_path: Path) -> None:
    with tarfile.open(folder("cifar10-jpeg.tar.xz")) as archive:
        members = (m for m in archive if m.name.startswith("train/") and m.name.endswith(("0000.jpg", "0001.jpg")))
        archive.extractall(tmp_path, members, filter="data")
    assert [known for known in FORMATS if FORMATS[known].fits(tmp_path / "train")] == ["imagefolder"]
    dataset = read_dataset(tmp_path)
    assert list(dataset.categories.values())[:3] == ["airplane", "automobile", "bird"]
    assert sorted(record.labels for record in dataset) == sorted([(i,) for i in range(1, 11)] * 2)


@pytest.mark.parametrize("second", ["yolo", "labelme", "masks"])
def test_nuclei_keep_every_mask(tmp_path: Path, second: str) -> None:
    dataset = read_dataset(folder("nuclei/val"))
    dataset = dataset.subset(range(0, len(dataset), 12))
    write_sets({"all": dataset}, tmp_path / "out", second)
    again = read_dataset(tmp_path / "out")
    for record, written in zip(dataset, again, strict=True):
        masks = [a.mask(record.height, record.width) for a in record.annotations]
        assert [a.mask(record.height, record.width) for a in written.annotations] == masks
