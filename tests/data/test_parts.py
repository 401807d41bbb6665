"""A set divided: reproducible, alike in its parts, and nothing in two of them that belongs together."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_formats import MAKERS
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_sets
from tracesight.data.parts import Split, description, merged, split_dataset, write_split
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError

CLASSES = {1: "bolt", 5: "nut", 9: "washer"}
SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """60 pictures of blots, no two alike."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(60):
        blots = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(blots).resize((80, 60), Image.Resampling.NEAREST).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


def labelled(paths: list[Path], **more: Any) -> Dataset:
    """A bolt on each picture, nuts on each second, a washer on each tenth."""
    records = []
    for number, path in enumerate(paths):
        numbers = [1] + [5] * (number % 2 * (1 + number % 5)) + [9] * (number % 10 == 0)
        objects = tuple(Annotation(n, category, (1, 1, 9, 9)) for n, category in enumerate(numbers))
        records.append(Record(number, path, 80, 60, objects, **more))
    return Dataset.of(records, CLASSES, paths[0].parent)


def names(split: Split) -> dict[str, set[str]]:
    return {name: {record.path.name for record in part} for name, part in split.sets().items()}


def shown(dataset: Dataset) -> Counter[int]:
    return Counter(i for record in dataset for i in {a.category_id for a in record.annotations})


def test_parts_have_their_share_of_each_class(pictures: list[Path]) -> None:
    dataset = labelled(pictures)
    split = split_dataset(dataset, SHARES)
    sets = split.sets()
    assert [len(part) for part in sets.values()] == [42, 12, 6]
    assert set().union(*names(split).values()) == {path.name for path in pictures}
    for name, part in sets.items():
        for number, count in shown(dataset).items():
            assert abs(shown(part)[number] - SHARES[name] * count) <= 1
        objects = sum(len(record.annotations) for record in part)
        total = sum(len(record.annotations) for record in dataset)
        assert objects == pytest.approx(SHARES[name] * total, rel=0.06)
    assert split.notes == ()


def test_the_same_seed_gives_the_same_parts_whatever_order_and_name(pictures: list[Path], tmp_path: Path) -> None:
    split = split_dataset(labelled(pictures), SHARES)
    dataset = labelled(pictures)
    assert names(split_dataset(dataset.subset(range(59, -1, -1)), SHARES)) == names(split)
    assert names(split_dataset(dataset, SHARES, 1)) != names(split)
    elsewhere = [Path(shutil.copy(path, tmp_path / f"z{99 - number}.png")) for number, path in enumerate(pictures)]
    renamed = split_dataset(labelled(elsewhere), SHARES)
    assert (renamed.part == split.part).all()


def test_groups_copies_and_lookalikes_stay_together(pictures: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(pictures[0], tmp_path / "copy.png"))]
    for number in range(1, 6):
        small = Image.open(pictures[number]).resize((56, 42))
        small.save(tmp_path / f"{number}.jpg", quality=70)
        copies.append(tmp_path / f"{number}.jpg")
    dataset = labelled([*pictures, *copies])
    grouped = [replace(r, group=f"g{n // 4}" if 20 <= n < 40 else None) for n, r in enumerate(dataset)]
    for seed in range(4):
        split = split_dataset(Dataset.of(grouped, CLASSES), SHARES, seed)
        part = split.part.tolist()
        assert part[60:] == part[:6]
        assert all(len(set(part[start : start + 4])) == 1 for start in range(20, 40, 4))
        assert len(set(split.unit.tolist())) == 66 - 6 - 15
    apart = split_dataset(Dataset.of(grouped, CLASSES), SHARES, near=None)
    assert len(set(apart.unit.tolist())) == 66 - 1 - 15  # the byte for byte copy is still one
    by_name = split_dataset(labelled(pictures), SHARES, group_by=r"^[0-5]").part.tolist()
    assert all(len(set(by_name[ten : ten + 10])) == 1 for ten in range(0, 60, 10))


def test_pictures_that_the_check_has_decoded_are_not_decoded_again(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACESIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr("tracesight.data.cache._RACY_NS", 0)
    dataset = labelled(pictures[:20])
    before = split_dataset(dataset, SHARES)
    for module in ("facts", "digests"):
        monkeypatch.setattr(f"tracesight.data.{module}.hashlib", None)  # whoever reads a file fails
    after = split_dataset(dataset, SHARES)
    assert (after.part == before.part).all() and after.digests == before.digests


def test_pictures_that_cannot_be_compared_are_told(pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(pictures[0].read_bytes()[:200])
    split = split_dataset(labelled([*pictures[:20], tmp_path / "broken.png"]), {"train": 0.8, "val": 0.2})
    assert split.notes[0] == "1 pictures cannot be decoded, so that nothing tells what looks like them"


def test_folds_hold_each_picture_out_once(pictures: list[Path]) -> None:
    dataset = labelled(pictures)
    split = split_dataset(dataset, {f"fold{k}": 0.2 for k in range(1, 6)})
    folds = split.folds()
    held = [{record.path.name for record in fold["val"]} for fold in folds]
    assert sorted(name for fold in held for name in fold) == sorted(path.name for path in pictures)
    assert [len(fold) for fold in held] == [12] * 5
    for fold, names_of_val in zip(folds, held):
        assert {record.path.name for record in fold["train"]} == {path.name for path in pictures} - names_of_val
        assert abs(shown(fold["val"])[9] - 6 / 5) < 1 and shown(fold["val"])[5] in (5, 6, 7)


def test_what_cannot_be_kept_is_told(pictures: list[Path]) -> None:
    split = split_dataset(labelled(pictures[:21]), SHARES)
    assert "test has no washer: 3 pictures show one" in split.notes
    with pytest.raises(UserError, match="2 pictures, which 3 parts cannot share"):
        split_dataset(labelled(pictures[:2]), SHARES)
    with pytest.raises(UserError, match="1 groups of pictures that belong together, which 2 parts"):
        split_dataset(labelled(pictures[:9], group="one"), {"train": 0.8, "val": 0.2})
    grouped = split_dataset(labelled(pictures), {"train": 0.8, "val": 0.2}, group_by="^[0-4]")
    assert grouped.notes == ("10 of 60 pictures belong together, which leaves little to choose",)
    with pytest.raises(UserError, match=r"away\.png: cannot be read"):
        split_dataset(Dataset.of([Record(1, Path("away.png"), 1, 1), *labelled(pictures[:3])], CLASSES), SHARES)


def test_sets_are_joined_before(pictures: list[Path]) -> None:
    train, val = labelled(pictures[:5]), labelled(pictures[4:8])
    both = merged({"train": train, "val": val}, Path("data"))
    assert [record.path for record in both] == pictures[:8]
    assert [record.id for record in both] == list(range(1, 9))
    assert both.notes == ("1 pictures stand in two sets; each is taken once, with the labels of the first",)
    assert [record.id for record in merged({"all": train}, Path("data"))] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="category 1 is 'screw', but 'bolt' elsewhere"):
        merged({"train": train, "val": val.with_categories({1: "screw"})}, Path("data"))


def written(split: Split, folder: Path, format: str | None, folds: bool = False) -> Mapping[str, Any]:
    write_split(split, folder, description(split, 0, SHARES, 40), format, folds)
    return json.loads((folder / "split.json").read_text("utf-8"))


@pytest.mark.parametrize("format", list(MAKERS))
def test_what_is_written_can_be_read_and_has_the_same_pictures(format: str, tmp_path: Path) -> None:
    from tracesight.data.manifest import base_of, manifest_of

    MAKERS[format](tmp_path / "data")
    sets, _ = read_sets(tmp_path / "data")
    split = split_dataset(merged(sets, tmp_path / "data"), {"train": 0.6, "val": 0.4}, near=None)
    document = written(split, tmp_path / "out", format)
    again, findings = read_sets(tmp_path / "out", format)
    assert list(again) == ["train", "val"] and not [f for f in findings if f.kind.severity == "error"]
    assert {name: len(part) for name, part in again.items()} == {n: c["pictures"] for n, c in document["parts"].items()}
    roots = manifest_of(again, base_of(tmp_path / "out", again)).roots
    assert (roots.pictures, roots.split) == (document["roots"]["pictures"], document["roots"]["split"])


def test_lists_alone_and_folds(pictures: list[Path], tmp_path: Path) -> None:
    split = split_dataset(labelled(pictures[:20]), {"fold1": 0.5, "fold2": 0.5})
    document = written(split, tmp_path / "list", None)
    assert [path.name for path in (tmp_path / "list").iterdir()] == ["split.json"]
    assert Counter(row["part"] for row in document["pictures"]) == {"fold1": 10, "fold2": 10}
    written(split, tmp_path / "folds", "coco", folds=True)
    for fold in ("fold1", "fold2"):
        sets, _ = read_sets(tmp_path / "folds" / fold)
        assert {name: len(part) for name, part in sets.items()} == {"train": 10, "val": 10}
    with pytest.raises(UserError, match="not empty"):
        written(split, tmp_path / "list", None)
