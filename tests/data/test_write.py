"""Sets written and read again: what is kept, what is said to be lost, where pictures go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from made_sets import make_set
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset, read_sets, write_sets
from tracesight.data.formats.placing import Names, folder_names, free_name
from tracesight.data.points import Keypoints
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

SIZES = [(20, 24)] * 5


@pytest.mark.parametrize(
    ("names", "placed"),
    [
        (["a.png", "b/a.png", "A.jpg", "a.jpg"], ["a.png", "b/a.png", "A~2.jpg", "a~3.jpg"]),
        (["Zelle ü 1.png", "Zelle u\u0308 1.png"], ["Zelle ü 1.png", "Zelle u\u0308 1~2.png"]),
        (["/etc/a.png", "../../a.png", "x/../a.png"], ["etc/a.png", "a.png", "x/a.png"]),
        (["C:\\a\nb.png", "..", "a?.png", " .png"], ["C__a_b.png", "picture", "a_.png", ".png"]),
    ],
)
def test_pictures_get_names_that_no_two_share_and_that_stay_inside(names: list[str], placed: list[str]) -> None:
    taken: Names = {}
    got = [free_name(name, taken) for name in names]
    assert got == placed
    stems = [str(PurePosixPath(name).with_suffix("")).casefold() for name in got]
    assert len(set(stems)) == len(names)


def test_pictures_and_categories_with_other_names_are_told(tmp_path: Path) -> None:
    names = ["a.png", "a.jpg", "b/A.png", "c?.png"]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), (number, 0, 0)).save(tmp_path / "in" / name)
    records = [
        Record(k, tmp_path / "in" / name, 24, 20, (Annotation(1, 1, (0, 0, 9, 9)),), labels=(1,), name=name)
        for k, name in enumerate(names)
    ]
    dataset = Dataset.of(records, {1: "nut: M3"})
    said = (
        "names of pictures that are taken, or that some systems refuse: 2 changed (a.jpg is a~2.jpg, c?.png is c_.png)"
    )
    for format in ("coco", "voc", "yolo", "labelme", "masks", "pictures"):
        lost = write_sets({"all": dataset}, tmp_path / format, format)
        assert [line for line in lost if "names of pictures" in line] == [said]
        assert not [line for line in lost if "names of categories" in line] or format == "masks"
    lost = write_sets({"all": dataset}, tmp_path / "folders", "imagefolder")
    assert "names of categories that are taken, or that some systems refuse: 1 changed (nut: M3 is nut_ M3)" in lost
    assert folder_names({1: "a", 2: "A", 3: "a/b"}) == {1: "a", 2: "A~2", 3: "a/b"}


def test_nothing_is_left_of_what_failed_and_nothing_is_overwritten(tmp_path: Path) -> None:
    dataset = make_set(tmp_path / "in", SIZES)
    with pytest.raises(UserError, match="'kitti' is not known"):
        write_sets({"all": dataset}, tmp_path / "out", "kitti")
    with pytest.raises(UserError, match="the folder is not empty"):
        write_sets({"all": dataset}, tmp_path / "in", "coco")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a file is in its place"):
        write_sets({"all": dataset}, tmp_path / "file", "coco")
    with pytest.raises(UserError, match="cannot be written"):
        write_sets({"all": dataset}, tmp_path / "file/out", "coco")
    dataset[3].path.unlink()
    with pytest.raises(UserError, match=r"picture3\.png: no such picture file"):
        write_sets({"all": dataset}, tmp_path / "out", "coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]
    (tmp_path / "out").mkdir()
    write_sets({"all": dataset.subset([0, 1, 2])}, tmp_path / "out", "coco")
    assert len(read_dataset(tmp_path / "out")) == 3


def test_coco_keeps_all_that_a_set_can_say(tmp_path: Path) -> None:
    names = ["a.png", "sub dir/a.png", "ü/A.png"]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), (number, 0, 0)).save(tmp_path / "in" / name)
    dot = Mask.from_crop([[1, 1], [0, 1]], (3, 4), (20, 24))
    objects = (
        Annotation("one", -7, (4.25, 3.1, 6, 5), dot, annotator="p1", tool="pen", time="2020-01-01"),
        Annotation(2, 10**12, (0, 0, 24, 20), [[1.5, 2, 9, 2, 9, 8.25], [3, 2, 9, 8, 3, 8]], area=3.5, crowd=True),
        Annotation(3, -7, (1, 1, 2, 2), difficult=True, keypoints=((1.5, 1, 2), (0, 0, 0), (2, 2, 1))),
    )
    records = [
        Record(5, tmp_path / "in" / names[0], 24, 20, objects, licence="CC0", source="here", sensor="camera",
               captured_at="2020", group="p 1", name=names[0]),
        Record(0, tmp_path / "in" / names[1], 24, 20, absent=(-7,), not_exhaustive=(10**12,), name=names[1]),
        Record(9, tmp_path / "in" / names[2], 24, 20, labels=(-7,), name=names[2]),
    ]  # fmt: skip
    points = Keypoints(("head", "hip", "foot"), ((0, 1), (1, 2)))
    about = {"description": "Zellen ü", "year": "2020"}
    dataset = Dataset.of(
        records, {-7: "minus", 10**12: "far"}, keypoints={-7: points}, parents={-7: "figures"}, about=about
    )
    lost = write_sets({"train": dataset, "val": dataset.subset([1])}, tmp_path / "out", "coco")
    assert lost == ["coco has no place for categories of a picture as a whole: 1 left out"]
    sets, findings = read_sets(tmp_path / "out")
    assert (list(sets), findings) == (["train", "val"], [])
    again = sets["train"]
    assert (again.categories, again.keypoints, again.parents) == (dataset.categories, {-7: points}, {-7: "figures"})
    assert again.about == about
    for record, written in zip(records, again, strict=True):
        assert written.path.read_bytes() == record.path.read_bytes()
        areas = [a.area for a in written.annotations]
        expected = replace(
            record, path=written.path, split="train", labels=(), name=written.name,
            annotations=tuple(replace(a, area=area) for a, area in zip(record.annotations, areas)),
        )  # fmt: skip
        assert written == expected
    assert [record.name for record in again] == ["a.png", "sub dir/a.png", "ü/A.png"]
    assert [a.area for a in again[0].annotations] == [3, 3.5, 1]
