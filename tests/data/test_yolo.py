"""YOLO: where pictures and names are, what lines say, and what is wrong with some of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_formats import PICTURES, make_yolo
from made_sets import blob
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset, read_sets, write_sets
from tracesight.data.formats.outlines import one_polygon, outline
from tracesight.data.points import Keypoints
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

W, H = 40, 20
# Lists of lists of lists …: nothing while they are shared, 10^9 words when they are written out.
BOMB = "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 20)}]\n" for a, b in zip("abcdefg", "bcdefgh"))


def write(
    folder: Path, lines: str | bytes | None, names: str = "names: [cell, dust]\n", picture: str = "images/a.png"
) -> Path:
    (folder / picture).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H)).save(folder / picture)
    label = (folder / picture.replace("images", "labels")).with_suffix(".txt")
    label.parent.mkdir(parents=True, exist_ok=True)
    if lines is not None:
        label.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    (folder / "data.yaml").write_text(f"nc: 2\n{names}", encoding="utf-8")
    return label


def found(folder: Path) -> list[tuple[str, str, str]]:
    """Severity, code and text of all that is wrong with labels."""
    return [(finding.kind.severity, finding.kind.code, str(finding)) for finding in read_sets(folder)[1]]


def test_lines_are_fractions_of_the_picture(tmp_path: Path) -> None:
    write(tmp_path, "1 0.5 0.5 0.25 0.5\n\n0.0 0 0 0.5 0 0.5 1\r\n")
    record = read_dataset(tmp_path)[0]
    box, polygon = record.annotations
    assert (box.category_id, box.box, box.segmentation) == (1, (15, 5, 25, 15), None)
    assert (polygon.category_id, polygon.box, polygon.segmentation) == (0, (0, 0, 20, 20), [[0, 0, 20, 0, 20, 20]])
    assert [a.id for a in record.annotations] == [1, 3]
    assert (record.width, record.height, record.name) == (W, H, "a.png")


def test_the_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    write(tmp_path, "0 0.5 0.5 1 1")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (H, W)).save(tmp_path / "images/a.png", exif=exif)
    record = read_dataset(tmp_path)[0]
    assert (record.width, record.height, record.annotations[0].box) == (W, H, (0, 0, W, H))


def test_keypoints_where_the_yaml_says_so(tmp_path: Path) -> None:
    write(tmp_path, "0 0.5 0.5 0.25 0.5 0.5 0.5 2 0 0 0\n0 0.5 0.5 1 1 0.5", "kpt_shape: [2, 3]\nnames: [man, x]\n")
    dataset = read_dataset(tmp_path, allow=["label-unreadable"])
    assert [a.keypoints for a in dataset[0].annotations] == [((20, 10, 2), (0, 0, 0))]
    assert dataset[0].annotations[0].box == (15, 5, 25, 15)


def test_keypoints_are_written_where_all_objects_have_as_many(tmp_path: Path) -> None:
    write(tmp_path / "in", None)
    square = [[0.0, 0.0, 9.0, 0.0, 9.0, 9.0]]
    objects = (
        Annotation(1, 5, (2, 2, 12, 12), square, keypoints=((4.5, 4, 2), (0, 0, 0))), Annotation(2, 7, (0, 0, 8, 8)),
    )  # fmt: skip
    record = Record(1, tmp_path / "in/images/a.png", W, H, objects, name="a.png")
    points = Keypoints(("head", "tail"), ((0, 1),))
    dataset = Dataset.of([record], {5: "mouse", 7: "cheese"}, keypoints={5: points})
    assert write_sets({"train": dataset, "val": dataset}, tmp_path / "out", "yolo") == [
        "yolo has no place for masks of objects: 2 left out",
        "yolo has no place for the skeleton of keypoints: 2 left out",
        "yolo has keypoints for every object: 2 without have them as not labelled",
    ]
    assert (tmp_path / "out/labels/val/a.txt").read_text().splitlines()[0] == "0 0.175 0.35 0.25 0.5 0.1125 0.2 2 0 0 0"
    again = read_sets(tmp_path / "out")[0]["val"]
    assert again.keypoints == {5: Keypoints(("head", "tail"))}
    assert [(a.category_id, a.box, a.keypoints) for a in again[0].annotations] == [
        (5, (2, 2, 12, 12), ((4.5, 4, 2), (0, 0, 0))), (7, (0, 0, 8, 8), ((0, 0, 0), (0, 0, 0))),
    ]  # fmt: skip
    table = (tmp_path / "out/data.yaml").read_text()
    (tmp_path / "out/data.yaml").write_text(table.replace("- tail", ""))
    with pytest.raises(UserError, match=r"kpt_names: 0 must be a class with a list of 2 names"):
        read_sets(tmp_path / "out")


def test_a_set_that_is_not_divided_has_what_other_programs_ask_for(tmp_path: Path) -> None:
    write(tmp_path / "in", "0 0.5 0.5 0.25 0.5")
    write_sets(read_sets(tmp_path / "in")[0], tmp_path / "out", "yolo")
    table = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert (table["train"], table["val"]) == ("images", "images")
    assert list(read_sets(tmp_path / "out")[0]) == ["all"]
    assert (tmp_path / "out/data.yaml").read_text().startswith("# One set: train and val are the same pictures")


def test_ids_need_not_be_contiguous_and_survive(tmp_path: Path) -> None:
    write(tmp_path, "7 0.5 0.5 0.25 0.5", "names: {7: cell, '3': dust}\n")
    dataset = read_dataset(tmp_path)
    assert dataset.categories == {3: "dust", 7: "cell"}
    assert write_sets({"train": dataset, "val": dataset}, tmp_path / "out", "yolo") == []
    table = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert table == {
        "path": ".", "train": "images/train", "val": "images/val", "names": {0: "dust", 1: "cell"},
        "category_ids": [3, 7],
    }  # fmt: skip
    assert (tmp_path / "out/labels/train/a.txt").read_text() == "1 0.5 0.5 0.25 0.5\n"
    again = read_sets(tmp_path / "out")[0]["val"]
    assert (again.categories, again[0].annotations) == (dataset.categories, dataset[0].annotations)


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("path: .\ntrain: images/one\nval: images/two\n", {"train": ["a.png", "b.png"], "val": ["c.png"]}),
        ("train: [images/one, images/two]\n", {"train": ["one/a.png", "one/b.png", "two/c.png"]}),
        ("train: list.txt\nvalid: images/two\n", {"train": ["one/b.png", "two/c.png"], "val": ["c.png"]}),
        ("path: images\ntrain: one\ntest: two\n", {"train": ["a.png", "b.png"], "test": ["c.png"]}),
        ("train: ../images/one\nval: ..\\images\\two\n", {"train": ["a.png", "b.png"], "val": ["c.png"]}),
        ("path: ../datasets/x\ntrain: images/one\n", {"train": ["a.png", "b.png"]}),
        ("", {"all": ["one/a.png", "one/b.png", "two/c.png"]}),
    ],
)
def test_where_pictures_are(tmp_path: Path, table: str, parts: dict[str, list[str]]) -> None:
    for picture in ("one/a", "one/b", "two/c"):
        write(tmp_path, "0 0.5 0.5 0.25 0.5", f"{table}names: [cell, dust]\n", f"images/{picture}.png")
    (tmp_path / "list.txt").write_text("./images/one/b.png\n\nimages\\two\\c.png\nimages/one/b.png\n")
    for path in (tmp_path, tmp_path / "data.yaml"):
        sets, findings = read_sets(path)
        assert {name: [record.name for record in dataset] for name, dataset in sets.items()} == parts
        assert {finding.kind.severity for finding in findings} <= {"warning"}
        assert (findings != []) == (".." in table)
        assert all(len(record.annotations) == 1 for dataset in sets.values() for record in dataset)


def test_folders_with_classes_txt(tmp_path: Path) -> None:
    make_yolo(tmp_path / "made")
    (tmp_path / "made/data.yaml").unlink()
    with pytest.raises(
        UserError, match=r"made: nothing names the classes of its labels; add data\.yaml or classes\.txt"
    ):
        read_dataset(tmp_path / "made")
    (tmp_path / "made/classes.txt").write_text("none\nbolt\nnut\n")
    dataset = read_dataset(tmp_path / "made")
    assert dataset.categories == {0: "none", 1: "bolt", 2: "nut"}
    assert [record.name for record in dataset] == sorted(picture.name for picture in PICTURES)
    for split in ("train", "val"):
        for place in ("images", "labels"):
            shutil.copytree(tmp_path / "made" / place, tmp_path / "parted" / place / split)
    shutil.copy(tmp_path / "made/classes.txt", tmp_path / "parted")
    assert {name: len(part) for name, part in read_sets(tmp_path / "parted")[0].items()} == {"train": 5, "val": 5}
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (tmp_path / "made/images/a.png", tmp_path / "made/labels/a.txt", tmp_path / "made/classes.txt"):
        shutil.copy(file, flat)
    assert len(read_dataset(flat)[0].annotations) == 3


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0 0.5 0.5 0.25", "line 1: a line must be a class and x, y, width, height, or x, y of three or more points"),
        ("0 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.25 0.5 0.9", "line 2: a line must be a class and x, y, width, height"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.3", "line 1: a line must be"),
        ("0 0.5 0.5 nan 0.5", "line 1: a line must be a whole number and finite ones"),
        ("0 0.5 0.5 1e999 0.5", "line 1: a line must be a whole number and finite ones"),
        ("0 0.5 0.5 1e308 0.5", "line 1: a line must be a whole number and finite ones"),
        ("0.5 0.5 0.5 0.25 0.5", "line 1: a line must be a whole number"),
        ("inf 0.5 0.5 0.25 0.5", "line 1: a line must be a whole number"),
        ("cell 0.5 0.5 0.25 0.5", "line 1: a line must be numbers, not 'cell 0.5 0.5 0.25 0.5'"),
        ("9 0.5 0.5 0.25 0.5", "there is no category with id 9"),
        ("0 0.5 0.5 0 0.5", "has no area"),
        ("0 0.5 0.5 20 0.5", "reaches 380 px outside the picture of 40 × 20"),
        ("0 0.5 0.5 0.25 0.5 \xff".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(tmp_path: Path, lines: str | bytes, words: str) -> None:
    label = write(tmp_path, lines)
    with pytest.raises(UserError) as caught:
        read_dataset(tmp_path)
    assert str(caught.value).startswith(str(label))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        write(tmp_path, "0 0.5 0.5 0.25 0.5".encode(encoding))
        assert len(read_dataset(tmp_path)[0].annotations) == 1


def test_labels_without_pictures_and_pictures_without_labels(tmp_path: Path) -> None:
    write(tmp_path, "0 0.5 0.5 0.25 0.5")
    (tmp_path / "labels/gone.txt").write_text("0 0.5 0.5 0.25 0.5")
    (tmp_path / "labels/notes.txt").write_text("as drawn by us")
    Image.new("RGB", (W, H)).save(tmp_path / "images/b.png")
    (tmp_path / "images/c.png").write_bytes(b"no picture")
    kinds = [
        ("error", "annotation-without-picture"),
        ("warning", "label-file-missing"),
        ("error", "picture-unreadable"),
    ]
    assert [(severity, code) for severity, code, _ in found(tmp_path)] == kinds
    assert "gone.txt" in found(tmp_path)[0][2]
    dataset = read_dataset(tmp_path, allow=[code for _, code in kinds])
    assert [(record.name, len(record.annotations)) for record in dataset] == [("a.png", 1), ("b.png", 0)]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("names: !!python/object/apply:os.system ['touch hacked']\n", "not plain YAML"),
        ("names: !!python/name:os.system\n", "not plain YAML"),
        ("names: [a\n", "not plain YAML"),
        ("a" * 3, "names no classes"),
        ("names: []\n", "'names' must be a list"),
        ("names: {a: b}\n", "names: 'a' must be a whole number"),
        ("names: [cell, no]\n", "names: 1 is called False; put its name in quotes"),
        ("names: [cell, [dust]]\n", "names: 1 is called ['dust']"),
        ("names: [cell, dust]\ntrain: 7\n", "train must be a folder"),
        ("names: [cell, dust]\ntrain: /etc\n", "train: /etc leads out of the folder"),
        ("names: [cell, dust]\ntrain: ../../other\n", "train: ../../other leads out of the folder"),
        ("names: [cell, dust]\ntrain: C:\\pictures\n", "train: C:\\pictures leads out of the folder"),
        ("names: [cell, dust]\ntrain: images/none\n", "images/none is not there"),
        ("names: [cell, dust]\ncategory_ids: [1]\n", "'category_ids' must be 2 different whole numbers"),
        ("names: [cell, dust]\ncategory_ids: [1, 1]\n", "'category_ids' must be 2 different whole numbers"),
        ("[" * 1500, "not plain YAML"),
        (BOMB + "names: *h\n", "names: 0 is called [["),
        (BOMB + "names: [cell, dust]\ntrain: *h\n", "train must be a folder"),
        (BOMB + "names: [cell, dust]\npath: *h\n", "path must be a folder"),
        (BOMB + "names: [cell, dust]\nkpt_shape: [1, 3]\nkpt_names: {x: *h}\n", "kpt_names: 'x' must be a class"),
    ],
)
def test_yaml_that_is_not_plain_or_leads_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    write(tmp_path / "data", "0 0.5 0.5 0.25 0.5")
    (tmp_path / "data/data.yaml").write_text(table)
    with pytest.raises(UserError) as caught:
        read_sets(tmp_path / "data")
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "data/data.yaml"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_a_count_of_classes_that_is_wrong_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "0 0.5 0.5 0.25 0.5", "names: [cell, dust, more]\n")
    assert [(severity, code) for severity, code, _ in found(tmp_path)] == [("warning", "class-count")]


def test_lists_of_pictures_that_lead_out_or_nowhere(tmp_path: Path) -> None:
    write(tmp_path, "0 0.5 0.5 0.25 0.5", "train: list.txt\nnames: [cell, dust]\n")
    (tmp_path / "list.txt").write_text(f"../a.png\n/etc/a.png\nimages/none.png\n{tmp_path}/images/a.png\n")
    assert [code for _, code, _ in found(tmp_path)] == [
        "picture-outside-folder", "picture-outside-folder", "picture-missing",
    ]  # fmt: skip
    assert len(read_sets(tmp_path)[0]["train"]) == 1


def test_any_mask_becomes_one_polygon_that_fills_to_the_same_pixels() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        height, width = random.integers(1, 15, 2)
        pixels = random.random((height, width)) < random.random()
        mask = Mask.from_array(pixels)
        polygon = outline(mask)
        assert (polygon is None) == (mask.area == 0)
        if polygon is not None:
            assert Annotation(0, 0, (0, 0, 1, 1), [polygon]).mask(height, width) == mask
    parts = [[1, 1, 9, 1, 9, 9, 1, 9], [5, 5, 14, 5, 14, 14, 5, 14], [16, 2, 19, 2, 19, 5]]
    overlapping = Annotation(0, 0, (0, 0, 1, 1), [[float(v) for v in part] for part in parts])
    apart = Annotation(0, 0, (0, 0, 1, 1), [[float(v) for v in part] for part in (parts[0], parts[2])])
    for annotation in (overlapping, apart):
        polygon = one_polygon(annotation, 20, 20)
        assert polygon is not None
        assert Annotation(0, 0, (0, 0, 1, 1), [polygon]).mask(20, 20) == annotation.mask(20, 20)


def test_what_has_no_place_is_said(tmp_path: Path) -> None:
    write(tmp_path / "in", None)
    mask = Mask.from_array(blob(H, W, np.random.default_rng(1)))
    objects = (
        Annotation(1, 5, (0, 0, 9, 9), crowd=True), Annotation(2, 5, (0, 0, W, H), mask, truncated=True,
                                                              keypoints=((1, 1, 2), (2, 2, 2))),
        Annotation(3, 5, (0, 0, 3, 3), annotator="p1", keypoints=((1, 1, 2),)),
    )  # fmt: skip
    record = Record(1, tmp_path / "in/images/a.png", W, H, objects, licence="CC0", group="g")
    lost = write_sets({"all": Dataset.of([record], {5: "cell"})}, tmp_path / "out", "yolo")
    assert lost == [
        "yolo has no place for the mark of truncated objects: 1 left out",
        "yolo has no place for keypoints of objects: 2 left out",
        "yolo has no place for who drew an object, with what and when: 1 left out",
        "yolo has no place for the licence of a picture: 1 left out",
        "yolo has no place for the group of a picture: 1 left out",
        "yolo has no place for crowds and difficult objects: 1 objects left out",
        "yolo has polygons or boxes: 1 boxes became those around their polygons",
    ]
    masked, boxed = read_dataset(tmp_path / "out")[0].annotations
    assert (masked.mask(H, W), boxed.box) == (mask, (0, 0, 3, 3))
