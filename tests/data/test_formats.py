"""Which folder is what, and where train and val are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_sets import write_json, write_set

from tracesight.data.formats import read_dataset, read_splits
from tracesight.errors import UserError

SIZES = [(20, 24)] * 5


def test_train_and_val_folders(tmp_path: Path) -> None:
    write_set(tmp_path / "train", SIZES)
    write_set(tmp_path / "val", SIZES[:2])
    train, val, notes = read_splits(tmp_path, 0)
    assert val is not None
    assert (len(train), len(val), notes) == (5, 2, [])
    assert {record.split for record in train} == {"train"}
    assert {record.split for record in val} == {"val"}
    given, given_val, _ = read_splits({"train": tmp_path / "val", "val": tmp_path / "train/instances.json"}, 0)
    assert given_val is not None
    assert (len(given), len(given_val)) == (2, 5)


def test_coco_layout(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for name, sizes in (("train", SIZES), ("val", SIZES[:2])):
        write_set(tmp_path / "made", sizes)
        shutil.move(tmp_path / "made/images", tmp_path / f"{name}2017")
        shutil.move(tmp_path / "made/instances.json", tmp_path / f"annotations/instances_{name}2017.json")
    train, val, _ = read_splits(tmp_path, 0)
    assert val is not None
    assert (len(train), len(val)) == (5, 2)
    assert val[0].path.parent == tmp_path / "val2017"
    with pytest.raises(UserError, match="holds train and val; give one of them"):
        read_dataset(tmp_path)


def test_without_val_a_fifth_is_held_out_by_the_seed(tmp_path: Path) -> None:
    write_set(tmp_path, [(20, 24)] * 10)
    train, val, notes = read_splits(tmp_path, 3)
    assert val is not None
    ids = [{record.id for record in dataset} for dataset in (train, val)]
    assert (len(ids[0]), len(ids[1])) == (8, 2)
    assert not ids[0] & ids[1]
    assert any("2 of 10 pictures held out by seed 3" in note for note in notes)
    again = read_splits(tmp_path / "instances.json", 3)[1]
    assert again is not None
    assert {record.id for record in again} == ids[1]
    others = [read_splits(tmp_path, seed)[1] for seed in range(5)]
    assert len({tuple(record.id for record in other) for other in others if other is not None}) > 1


def test_one_picture_trains_with_a_note(tmp_path: Path) -> None:
    write_set(tmp_path, SIZES[:1])
    train, val, notes = read_splits(tmp_path, 0)
    assert (len(train), val) == (1, None)
    assert any("one picture only" in note for note in notes)


def test_a_class_absent_from_val_is_a_note(tmp_path: Path) -> None:
    write_set(tmp_path / "train", SIZES, categories=((1, "cell"), (2, "dust")))
    data = write_set(tmp_path / "val", SIZES, categories=((1, "cell"), (2, "dust")))
    data["annotations"] = [row for row in data["annotations"] if row["category_id"] == 1]
    data["categories"] = data["categories"][:1]
    write_json(tmp_path / "val", data)
    train, val, notes = read_splits(tmp_path, 0)
    assert val is not None
    assert notes == ["val holds no example of dust"]
    assert val.categories == train.categories == {1: "cell", 2: "dust"}


@pytest.mark.parametrize(
    ("categories", "words"), [(((1, "dust"),), "category 1 is 'dust', but 'cell'"), (((2, "cell"),), "category 2")]
)
def test_val_must_speak_of_the_same_categories(
    tmp_path: Path, categories: tuple[tuple[int, str], ...], words: str
) -> None:
    write_set(tmp_path / "train", SIZES)
    write_set(tmp_path / "val", SIZES, categories=categories)
    with pytest.raises(UserError, match=words):
        read_splits(tmp_path, 0)


def test_no_objects_at_all(tmp_path: Path) -> None:
    data = write_set(tmp_path, SIZES, objects=0)
    with pytest.raises(UserError, match=r"instances\.json: no objects at all"):
        read_splits(tmp_path, 0)
    assert data["annotations"] == []
    assert len(read_dataset(tmp_path)) == 5


def test_what_cannot_be_recognised_names_the_folder(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, words in ((empty, "empty"), (tmp_path / "missing", "no such file or folder")):
        with pytest.raises(UserError, match=words) as caught:
            read_splits(path, 0)
        assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="the folder is empty"):
        read_dataset(empty)
    write_set(tmp_path / "val", SIZES)
    with pytest.raises(UserError, match="holds val but no train"):
        read_splits(tmp_path, 0)
    with pytest.raises(UserError, match="'kitti' is not known"):
        read_dataset(tmp_path / "val", format="kitti")
    (tmp_path / "x.xml").write_text("<a/>")
    with pytest.raises(UserError, match=r"x\.xml: not labels of a known format"):
        read_dataset(tmp_path / "x.xml")


def test_of_several_files_the_one_that_is_coco_is_taken_or_the_user_asked(tmp_path: Path) -> None:
    write_set(tmp_path, SIZES)
    (tmp_path / "notes.json").write_text("{}")
    assert len(read_dataset(tmp_path)) == 5
    shutil.copy(tmp_path / "instances.json", tmp_path / "other.json")
    with pytest.raises(UserError, match=r"3 label files \(instances\.json, notes\.json, other\.json\)"):
        read_dataset(tmp_path)
