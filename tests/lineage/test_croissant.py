"""Croissant that its own library validates and reads, with the files it names beside it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tracesight.lineage.croissant import croissant, missing
from tracesight.lineage.digest import file_digest
from tracesight.lineage.manifest import (
    Annotator,
    Category,
    Count,
    FileRow,
    Manifest,
    PictureRow,
    Sensor,
    SplitCount,
    count_licences,
    count_sensors,
    roots_of,
    split_roots,
)

mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed (pip install '.[test]')")

COCO = {
    "images": [{"id": 1, "file_name": "1.png", "width": 8, "height": 8}],
    "annotations": [{"id": 3, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}],
    "categories": [{"id": 7, "name": "nut"}],
}


def manifest(folder: Path, splits: tuple[str | None, ...] = ("train", "val"), **said: Any) -> Manifest:
    """Two pictures in each split, and a label file that lies in `folder`."""
    labels = folder / "data" / "labels.json"
    labels.parent.mkdir()
    labels.write_text(json.dumps(COCO))
    pictures = tuple(
        PictureRow(
            name=f"{split or 'all'}/{n}.{suffix}", sha256=f"{n}" * 64, bytes=9, split=split, labels="f" * 64, objects=n,
            sensor=Sensor(make="Maker", model="M1"), captured_at="2024-05-06T07:08:09", licence="CC BY 4.0",
            annotators=("annotator-1",),
        )
        for split in splits for n, suffix in ((0, "png"), (1, "jpg"))
    )  # fmt: skip
    files = (FileRow(name="labels.json", sha256=file_digest(labels), bytes=labels.stat().st_size),)
    categories = (Category(id=7, name="nut"),)
    counts = SplitCount(
        pictures=2, objects=1, categories={7: Count(pictures=1, objects=1)}, roots=split_roots(pictures, categories)
    )  # fmt: skip
    return Manifest(
        made_by="test", roots=roots_of(pictures, files, categories), splits={s or "all": counts for s in splits},
        categories=categories, licences=count_licences(pictures), sensors=count_sensors(pictures), tools={"pen": 2},
        annotators=(Annotator(id="annotator-1", objects=2, pictures=2),), label_files=files, pictures=pictures, **said,
    )  # fmt: skip


def written(made: Manifest, folder: Path, **options: Any) -> Path:
    (folder / "manifest.json").write_text(made.dump())
    digest = file_digest(folder / "manifest.json")
    found = croissant(made, url="manifest.json", sha256=digest, prefix="data/", **options)
    (folder / "croissant.json").write_text(json.dumps(found))
    return folder / "croissant.json"


def records(dataset: Any, name: str) -> list[dict[str, Any]]:
    rows = [dict(row) for row in dataset.records(name)]
    return [
        {key.removeprefix(f"{name}/"): v.decode() if isinstance(v, bytes) else v for key, v in row.items()}
        for row in rows
    ]


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.WARNING)
    return caplog.messages


def test_it_validates_and_its_records_are_those_of_the_manifest(tmp_path: Path, complaints: list[str]) -> None:
    made = manifest(tmp_path, title="Nuts", controller="Acme", licence="CC0-1.0", source="https://example.org/nuts")
    dataset = mlcroissant.Dataset(written(made, tmp_path, coco=True, published="2024-07-01"))
    assert not dataset.metadata.ctx.issues.errors
    assert [line for line in dataset.metadata.ctx.issues.warnings if "citeAs" not in line] == []
    assert not [line for line in complaints if "not standard" in line]
    assert records(dataset, "pictures") == [
        {"name": row.name, "sha256": row.sha256, "split": row.split} for row in made.pictures
    ]
    assert [row["objects"] for row in records(dataset, "annotations")] == [0, 1, 0, 1]
    assert [row["name"] for row in records(dataset, "splits")] == ["train", "val"]
    assert records(dataset, "categories") == [{"id": 7, "name": "nut"}]
    (row,) = records(dataset, "objects/labels.json")
    assert list(row.values())[1:] == [1, 7, [1.0, 2.0, 3.0, 4.0]]


def test_what_is_known_of_people_and_sensors_is_said(tmp_path: Path) -> None:
    made = manifest(tmp_path, controller="Acme", licence="CC0-1.0", source="https://example.org/nuts")
    found = json.loads(written(made, tmp_path, published="2024-07-01").read_text())
    assert found["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    assert (found["url"], found["creator"]["name"], found["datePublished"], found["license"]) == (
        "https://example.org/nuts", "Acme", "2024-07-01", ["CC0-1.0"],
    )  # fmt: skip
    assert found["rai:dataCollection"] == "Sensors: Maker M1: 4 pictures."
    assert found["rai:dataCollectionTimeFrame"] == ["2024-05-06", "2024-05-06"]
    assert "annotator-1: 2 objects on 2 pictures" in found["rai:dataAnnotationProtocol"]
    assert found["rai:dataAnnotationPlatform"] == ["pen"]
    manifest_file, labels, pictures = found["distribution"]
    assert manifest_file["sha256"] == file_digest(tmp_path / "manifest.json")
    assert labels["contentUrl"] == "data/labels.json"
    assert labels["prov:wasAttributedTo"][0] == {"@type": "prov:Person", "prov:label": "annotator-1"}
    assert pictures["includes"] == ["data/train/*.jpg", "data/train/*.png", "data/val/*.jpg", "data/val/*.png"]
    assert missing(made, "2024-07-01") == ["--title"]


def test_data_that_is_not_divided_and_of_which_nothing_is_known(tmp_path: Path) -> None:
    made = manifest(tmp_path, (None,))
    made = made.model_copy(update={"licences": {}, "sensors": (), "annotators": (), "tools": {}})
    dataset = mlcroissant.Dataset(written(made, tmp_path))
    assert not dataset.metadata.ctx.issues.errors
    assert [row["name"] for row in records(dataset, "pictures")] == ["all/0.png", "all/1.jpg"]
    assert missing(made, None) == ["--title", "--licence", "--controller", "--published"]


def test_many_label_files_and_folders_are_sets(tmp_path: Path) -> None:
    made = manifest(tmp_path)
    files = tuple(FileRow(name=f"labels/{n}.xml", sha256="0" * 64, bytes=1) for n in range(80))
    pictures = tuple(row.model_copy(update={"name": f"{n}/a.png"}) for n in range(80) for row in made.pictures[:1])
    found = croissant(
        made.model_copy(update={"label_files": files, "pictures": pictures}), url="m.json", sha256="0" * 64
    )
    _, labels, images = found["distribution"]
    assert (labels["@type"], labels["includes"], labels["encodingFormat"]) == (
        "cr:FileSet", ["labels/*.xml"], [labels["encodingFormat"][0]],
    )  # fmt: skip
    assert images["includes"] == ["**/*.png"]
    (tmp_path / "many.json").write_text(json.dumps(found))
    assert not mlcroissant.Dataset(tmp_path / "many.json").metadata.ctx.issues.errors
