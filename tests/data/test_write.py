"""Sets written and read again: what is kept, what is said to be lost, where pictures go."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from made_sets import make_set

from tracesight.data.formats import read_dataset, write_sets
from tracesight.data.formats.placing import free_name
from tracesight.errors import UserError

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
    taken: set[str] = set()
    got = [free_name(name, taken) for name in names]
    assert got == placed
    stems = [str(PurePosixPath(name).with_suffix("")).casefold() for name in got]
    assert len(set(stems)) == len(names)


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
