"""Pascal VOC: what its files say, and what is wrong with some of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_formats import MAKERS, PICTURES, make_voc
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset, read_sets, read_splits, write_sets
from tracesight.errors import UserError

OBJECT = "<object><name>{name}</name>{flags}<bndbox>{box}</bndbox></object>"
BOX = "<xmin>3</xmin><ymin>4</ymin><xmax>10</xmax><ymax>12</ymax>"


def write(folder: Path, objects: str, name: str = "a", size: tuple[int, int] = (30, 20), extra: str = "") -> Path:
    for place in ("JPEGImages", "Annotations"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20)).save(folder / "JPEGImages" / f"{name}.jpg")
    file = folder / "Annotations" / f"{name}.xml"
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    file.write_text(f"<annotation><filename>{name}.jpg</filename>{sides}{extra}{objects}</annotation>")
    return file


def item(name: str = "cell", box: str = BOX, flags: str = "") -> str:
    return OBJECT.format(name=name, box=box, flags=flags)


def found(folder: Path) -> list[tuple[str, str, str]]:
    """Severity, code and text of all that is wrong with labels."""
    return [(finding.kind.severity, finding.kind.code, str(finding)) for finding in read_sets(folder)[1]]


def test_boxes_count_from_one_and_marks_are_kept(tmp_path: Path) -> None:
    flags = "<difficult>1</difficult><truncated>1</truncated>"
    part = f"<part><name>head</name><bndbox>{BOX}</bndbox></part>"
    half = BOX.replace("<xmin>3<", "<xmin>3.25<")
    write(tmp_path, item() + item("dust", half, flags + part), extra="<source><database>lab 7</database></source>")
    record = read_dataset(tmp_path)[0]
    plain, hard = record.annotations
    assert (plain.box, plain.difficult, plain.truncated, plain.ignored) == ((2, 3, 10, 12), False, False, False)
    assert (hard.box, hard.difficult, hard.truncated, hard.ignored) == ((2.25, 3, 10, 12), True, True, True)
    assert (record.source, record.label_file) == ("lab 7", tmp_path / "Annotations/a.xml")
    assert read_dataset(tmp_path).categories == {1: "cell", 2: "dust"}
    write_sets({"all": read_dataset(tmp_path)}, tmp_path / "out", "voc")
    again = read_dataset(tmp_path / "out")[0]
    assert [(a.box, a.difficult, a.truncated) for a in again.annotations] == [
        (a.box, a.difficult, a.truncated) for a in record.annotations
    ]
    assert again.source == "lab 7"


@pytest.mark.parametrize("where", ["ImageSets/Main", "ImageSets"])
def test_lists_of_sets(tmp_path: Path, where: str) -> None:
    make_voc(tmp_path)
    (tmp_path / where).mkdir(parents=True)
    (tmp_path / where / "train.txt").write_text("a\nb 2  1\nd/e.png\n\n", encoding="utf-8")
    (tmp_path / where / "val.txt").write_text("ü\r\nf\r\n", encoding="utf-8")
    train, val, _ = read_splits(tmp_path, 0)
    assert val is not None
    assert [[record.name for record in dataset] for dataset in (train, val)] == [
        ["a.png", "b 2.png", "d/e.png"],
        ["f.png", "ü.png"],
    ]
    assert train.categories == val.categories == {1: "bolt", 2: "nut"}
    with pytest.raises(UserError, match="holds train and val"):
        read_dataset(tmp_path)
    (tmp_path / where / "val.txt").write_text("gone\n../../a\n/etc/passwd\nf\n")
    assert [(code, text.split(": ")[1:3]) for _, code, text in found(tmp_path)] == [
        ("label-missing", ["line 1", "there is no label file gone.xml; restore it or take the picture off the list"]),
        ("picture-outside-folder", ["line 2", "../../a lies outside the folder; make the path relative, inside it"]),
        (
            "picture-outside-folder",
            ["line 3", "/etc/passwd lies outside the folder; make the path relative, inside it"],
        ),
    ]


def test_a_flat_folder_of_files_beside_pictures(tmp_path: Path) -> None:
    make_voc(tmp_path / "made")
    for place in ("JPEGImages", "Annotations"):
        for file in sorted((tmp_path / "made" / place).rglob("*.*")):
            target = tmp_path / "flat" / file.relative_to(tmp_path / "made" / place)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
    dataset = read_dataset(tmp_path / "flat")
    assert [record.name for record in dataset] == sorted(picture.name for picture in PICTURES)
    assert sum(len(record.annotations) for record in dataset) == 8


def test_the_picture_is_the_one_of_the_files_name_or_the_one_it_names(tmp_path: Path) -> None:
    file = write(tmp_path, item())
    renamed = file.with_name("other.xml")
    file.rename(renamed)
    assert read_dataset(tmp_path)[0].name == "a.jpg"
    Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages/other.png")
    dataset = read_dataset(tmp_path)
    assert [record.name for record in dataset] == ["other.png"]
    assert "1 pictures that no label file speaks of, left out (picture-unlabelled)" in dataset.notes[0]


@pytest.mark.parametrize("size", [(0, 0), (-3, 20)])
def test_sizes_that_are_not_given_come_from_the_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path, item(), size=size)
    record = read_dataset(tmp_path)[0]
    assert (record.width, record.height) == (30, 20)
    assert [(severity, code) for severity, code, _ in found(tmp_path)] == [("warning", "size-missing")]


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        (item(""), "object 1: it has no name"),
        (item(box=""), "object 1: bndbox must be four numbers"),
        (
            item() + item(box=BOX.replace("12", "nan")),
            "object 2: bndbox must be four numbers xmin, ymin, xmax, ymax, not 3",
        ),
        (item(box=BOX.replace("12", "1e999")), "object 1: bndbox"),
        ("<object/>", "object 1: it has no name"),
    ],
)
def test_objects_that_cannot_be_read_are_left_out_and_named(tmp_path: Path, objects: str, words: str) -> None:
    file = write(tmp_path, objects + item("last"))
    with pytest.raises(UserError, match=r"a\.xml: object") as caught:
        read_dataset(tmp_path)
    assert str(caught.value).startswith(f"{file}: {words}")
    dataset = read_dataset(tmp_path, allow=["label-unreadable"])
    assert dataset[0].annotations[-1].box == (2, 3, 10, 12)


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotation><filename>&b;</filename></annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not XML"),
        (b"<annotation><object>", "not XML"),
        (LAUGHS.encode(), "document type"),
        (OUTSIDE.encode(), "document type"),
        (LAUGHS.encode("utf-16"), "document type"),
        (
            "<annotation><filename>ü</filename></annotation>".encode("latin-1"),
            "not UTF-8 text (byte 22); save it as UTF-8, or",
        ),
        (b'<?xml version="1.0" encoding="martian"?><annotation/>', "not XML"),
        (b"<html><annotation/></html>", "its root is <html>"),
        (b"<annotation>" + b"<a>" * 50_000, "not XML"),
    ],
)
def test_one_file_that_cannot_be_read_does_not_end_it(tmp_path: Path, content: bytes, words: str) -> None:
    write(tmp_path, item(), "good")
    write(tmp_path, item(), "bad").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.xml") as caught:
        read_dataset(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    dataset = read_dataset(tmp_path, allow=["label-unreadable"])
    assert [record.name for record in dataset] == ["good.jpg"]


def test_xml_in_other_encodings_that_it_names(tmp_path: Path) -> None:
    text = f"<annotation><filename>a.jpg</filename>{item('Zölle')}</annotation>"
    for encoding in ("latin-1", "utf-16"):
        write(tmp_path, "").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
        assert read_dataset(tmp_path).categories == {1: "Zölle"}


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "C:\\secret.jpg", "..\\secret.jpg"])
def test_pictures_outside_the_folder_are_not_looked_at(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "data", item())
    file.write_text(file.read_text().replace("a.jpg", name))
    (tmp_path / "data/JPEGImages/a.jpg").rename(tmp_path / "secret.jpg")
    with pytest.raises(UserError, match="lies outside the folder"):
        read_dataset(tmp_path / "data")
    file.write_text(file.read_text().replace(name, "sub\\gone.jpg"))
    with pytest.raises(UserError, match=r"its picture sub/gone\.jpg is not there"):
        read_dataset(tmp_path / "data")


def test_masks_by_number_of_the_object(tmp_path: Path) -> None:
    write(tmp_path, item() + item("dust"))
    numbers = np.zeros((20, 30), np.uint8)
    numbers[4:8, 3:9], numbers[10:12, :5], numbers[0] = 1, 2, 255
    (tmp_path / "SegmentationObject").mkdir()
    image = Image.fromarray(numbers)
    image.putpalette([7] * 768)
    image.save(tmp_path / "SegmentationObject/a.png")
    first, second = (a.mask(20, 30) for a in read_dataset(tmp_path)[0].annotations)
    assert first is not None
    assert second is not None
    assert (first.area, second.area) == (24, 10)
    assert first.box == (3, 4, 9, 8)
    Image.new("RGB", (30, 20), (9, 3, 1)).save(tmp_path / "SegmentationObject/a.png")
    assert "its pixels are colours (RGB), not numbers of objects" in found(tmp_path)[0][2]
    Image.fromarray(numbers[:11]).save(tmp_path / "SegmentationObject/a.png")
    assert [code for _, code, _ in found(tmp_path)] == ["mask-size", "mask-size"]


def test_many_and_overlapping_masks(tmp_path: Path) -> None:
    MAKERS["coco"](tmp_path / "made")
    record = read_dataset(tmp_path / "made")[0]
    first = record.annotations[0]
    # No two in one place: they would count as one labelled twice.
    boxes = [(i % 20, i // 20, i % 20 + 4, i // 20 + 3) for i in range(300)]
    many = [
        replace(first, id=i, box=box, segmentation=first.segmentation if i in (0, 299) else None)
        for i, box in enumerate(boxes)
    ]
    dataset = Dataset.of([replace(record, annotations=tuple(many))], {1: "bolt", 2: "nut"})
    lost = write_sets({"all": dataset}, tmp_path / "out", "voc")
    assert lost[-2:] == [
        "masks do not overlap in voc: 1 lost the pixels that a later object has too",
        "voc's masks are of up to 254 objects: 1 with more are of 16 bits, which few others read",
    ]
    again = read_dataset(tmp_path / "out")[0].annotations
    assert [a.segmentation is not None for a in again] == [False] * 299 + [True]
    assert again[299].mask(record.height, record.width) == many[0].mask(record.height, record.width)
