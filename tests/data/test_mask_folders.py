"""Folders of masks: one file an object, maps of numbers, and what is wrong with some of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import FORMATS, read_dataset, read_sets, write_sets
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

W, H = 30, 20


def picture(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (W, H)) if pixels is None else Image.fromarray(pixels)
    image.save(path)
    return path


def block(top: int, left: int, height: int, width: int, value: int = 255) -> np.ndarray:
    pixels = np.zeros((H, W), np.uint8)
    pixels[top : top + height, left : left + width] = value
    return pixels


def found(folder: Path) -> list[tuple[str, str, str]]:
    return [(finding.kind.severity, finding.kind.code, str(finding)) for finding in read_sets(folder)[1]]


def boxes(folder: Path) -> list[tuple[float, ...]]:
    return [a.box for a in read_dataset(folder)[0].annotations]


def test_a_file_an_object_may_overlap_and_fall_apart(tmp_path: Path) -> None:
    picture(tmp_path / "x1/images/x1.png")
    picture(tmp_path / "x1/masks/b.png", block(0, 0, 5, 5) | block(10, 20, 5, 5))
    picture(tmp_path / "x1/masks/a.png", block(2, 2, 6, 6, 1))
    picture(tmp_path / "x2/images/other.jpg")
    (tmp_path / "x2/masks").mkdir()
    dataset = read_dataset(tmp_path)
    first, second = dataset
    assert ([record.name for record in dataset], dataset.categories) == (["x1.png", "x2.jpg"], {1: "object"})
    assert [a.box for a in first.annotations] == [(2, 2, 8, 8), (0, 0, 25, 15)]
    apart = first.annotations[1].mask(H, W)
    assert apart is not None
    assert apart.area == 50
    assert second.annotations == ()
    assert first.label_file is None


def test_folders_in_masks_are_categories(tmp_path: Path) -> None:
    picture(tmp_path / "deep/x1/images/x1.png")
    picture(tmp_path / "deep/x1/masks/dust/1.png", block(0, 0, 5, 5))
    picture(tmp_path / "deep/x1/masks/cell/1.png", block(6, 0, 5, 5))
    dataset = read_dataset(tmp_path, "masks")
    assert dataset.categories == {1: "cell", 2: "dust"}
    assert sorted((a.category_id, a.box) for a in dataset[0].annotations) == [(1, (0, 6, 5, 11)), (2, (0, 0, 5, 5))]
    picture(tmp_path / "maps/images/x.png")
    picture(tmp_path / "maps/masks/cell/x.png", block(0, 0, 5, 5, 1))
    picture(tmp_path / "maps/masks/dust/x_mask.tif", block(9, 9, 5, 5, 2))
    dataset = read_dataset(tmp_path / "maps")
    assert dataset.categories == {1: "cell", 2: "dust"}
    assert len(dataset[0].annotations) == 2


@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "32 bit", "palette", "grey as RGB", "tif"])
def test_maps_of_every_kind(tmp_path: Path, kind: str) -> None:
    picture(tmp_path / "images/x.png")
    numbers = (block(0, 0, 5, 5, 1) + block(10, 10, 3, 4, 200)).astype(np.uint16)
    if "bit" in kind and kind != "8 bit":
        numbers[10:13, 10:14] = 4000
    file = tmp_path / "masks" / ("x.tif" if kind in ("tif", "32 bit") else "x.png")
    image = Image.fromarray(numbers.astype({"32 bit": np.int32, "16 bit": np.uint16}.get(kind, np.uint8)))
    if kind == "palette":
        image.putpalette([value for number in range(256) for value in (number, 0, 255 - number)])
    file.parent.mkdir()
    (image.convert("RGB") if "RGB" in kind else image).save(file)
    assert boxes(tmp_path) == [(0, 0, 5, 5), (10, 10, 14, 13)]
    assert read_dataset(tmp_path)[0].label_file == file


def test_maps_beside_pictures(tmp_path: Path) -> None:
    for name in ("000_img", "b"):
        picture(tmp_path / f"{name}.png")
    picture(tmp_path / "000_masks.png", block(0, 0, 5, 5, 7))
    picture(tmp_path / "b_masks.tif", block(0, 0, 5, 6, 7))
    picture(tmp_path / "gone_masks.png", block(0, 0, 5, 6, 7))
    picture(tmp_path / "c.png")
    assert [code for _, code, _ in found(tmp_path)] == ["annotation-without-picture", "picture-unlabelled"]
    dataset = read_dataset(tmp_path, allow=["annotation-without-picture"])
    assert [(record.name, record.annotations[0].box) for record in dataset] == [
        ("000_img.png", (0, 0, 5, 5)), ("b.png", (0, 0, 6, 5)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        (b"no picture", "label-unreadable", "cannot identify image file"),
        (np.stack([block(0, 0, 5, 5), block(1, 1, 5, 5), block(0, 0, 1, 1)], -1), "label-unreadable", "colours"),
        (block(0, 0, 5, 5)[:10], "mask-size", "its mask is of size [10, 30], the picture of [20, 30]"),
    ],
)
def test_maps_that_cannot_be_read(tmp_path: Path, wrong: np.ndarray | bytes, code: str, words: str) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"images/{name}.png")
        picture(tmp_path / f"masks/{name}.png", block(0, 0, 5, 5, 1))
    file = tmp_path / "masks/a.png"
    if isinstance(wrong, bytes):
        file.write_bytes(wrong)
    else:
        picture(file, wrong)
    with pytest.raises(UserError) as caught:
        read_dataset(tmp_path)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    dataset = read_dataset(tmp_path, allow=[code])
    assert len(dataset[1].annotations) == 1


def test_black_and_white_and_empty_masks(tmp_path: Path) -> None:
    picture(tmp_path / "maps/images/a.png")
    picture(tmp_path / "maps/masks/a.png", block(0, 0, 5, 5) | block(9, 9, 2, 2))
    assert [(severity, code) for severity, code, _ in found(tmp_path / "maps")] == [("warning", "mask-black-and-white")]
    assert boxes(tmp_path / "maps") == [(0, 0, 11, 11)]
    picture(tmp_path / "one/x/images/x.png")
    picture(tmp_path / "one/x/masks/1.png", block(0, 0, 0, 0))
    assert "it has no pixel of an object" in found(tmp_path / "one")[0][2]


def test_pictures_without_masks_and_masks_without_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"images/{name}.png")
    picture(tmp_path / "masks/a.png", block(0, 0, 5, 5, 1))
    picture(tmp_path / "masks/gone.png", block(0, 0, 5, 5, 1))
    assert [(severity, code) for severity, code, _ in found(tmp_path)] == [
        ("error", "annotation-without-picture"), ("warning", "picture-unlabelled"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="no masks in it"):
        read_dataset(tmp_path / "images", "masks")


def test_links_in_a_loop_end(tmp_path: Path) -> None:
    picture(tmp_path / "x1/images/x1.png")
    picture(tmp_path / "x1/masks/1.png", block(0, 0, 5, 5))
    (tmp_path / "x1/masks/loop").symlink_to(tmp_path / "x1")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    dataset, findings = read_sets(tmp_path, "masks")
    assert findings == [] or {finding.kind.severity for finding in findings} == {"error"}
    assert dataset["all"][0].annotations[0].box == (0, 0, 5, 5)


def test_what_is_written(tmp_path: Path) -> None:
    path = picture(tmp_path / "p.png")
    mask, other = Mask.from_array(block(2, 3, 4, 5)), Mask.from_array(block(2, 3, 5, 5))
    objects = (
        Annotation(1, 1, (3, 2, 8, 6), mask), Annotation(2, 1, (0, 0, W, H), other),
        Annotation(3, 2, (0, 0, 5, 5)), Annotation(4, 2, (0, 0, 5, 5), mask, crowd=True),
    )  # fmt: skip
    records = [Record(1, path, W, H, objects, name="a/b.png"), Record(2, path, W, H, name="a/b.jpg")]
    lost = write_sets({"all": Dataset.of(records, {1: "cell/round", 2: "dust"})}, tmp_path / "out", "masks")
    assert lost == [
        "masks has no place for objects without a mask: 1 left out",
        "masks has no place for crowds and difficult objects: 1 objects left out",
        "masks has no boxes of their own: 1 became those around their masks",
        "names of pictures that are taken, or that some systems refuse: 1 changed (a/b.jpg is a/b~2.jpg)",
    ]
    assert [name for name in FORMATS if FORMATS[name].fits(tmp_path / "out/a")] == ["masks"]
    dataset = read_dataset(tmp_path / "out", "masks")
    assert dataset.categories == {1: "cell/round"}
    assert [record.name for record in dataset] == ["a/b.png", "a/b~2.png"]
    assert [a.segmentation for a in dataset[0].annotations] == [mask, other]
