from __future__ import annotations

from pathlib import Path

import pytest

from tracesight.errors import UserError
from tracesight.predict import find_pictures


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(inputs: list, **more: Path) -> list[str]:
    return [name for _, name in find_pictures(inputs, **more)]


def test_folders_are_searched_and_hidden_and_other_files_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "sub/deep/c.tif", "notes.txt", ".hidden.png", ".cache/d.png", "._a.png")
    assert names([tmp_path]) == ["a", "b", "sub/deep/c"]


def test_names_that_would_collide_keep_the_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "b.jpg", "sub/a.png", "C.png", "c.jpg")
    assert names([tmp_path]) == ["C.png", "a.jpg", "a.png", "b", "c.jpg", "sub/a"]
    touch(tmp_path, "a.png.png")
    assert sorted(set(names([tmp_path]))) == ["C.png", "a.jpg", "a.png", "a.png.png", "b", "c.jpg", "sub/a"]


def test_files_of_one_name_in_two_folders_keep_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png", "y/a.png", "y/b.png")
    assert names([tmp_path / "x/a.png", tmp_path / "y/a.png", tmp_path / "y/b.png"]) == ["b", "x/a.png", "y/a.png"]
    assert names([tmp_path / "x", tmp_path / "y"]) == ["b", "x/a.png", "y/a.png"]


def test_globs_are_relative_to_what_stands_before_the_wildcard(tmp_path: Path) -> None:
    touch(tmp_path, "x/1/a.png", "x/2/a.png", "x/2/b.txt", "odd[1].png")
    assert names([str(tmp_path / "x" / "*" / "*")]) == ["1/a", "2/a"]
    assert names([str(tmp_path / "x" / "**" / "*.png")]) == ["1/a", "2/a"]
    assert names([tmp_path / "odd[1].png"]) == ["odd[1]"], "the name of a file comes before the glob"


def test_a_file_counts_once_and_outputs_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "out/overlays/a.png")
    monkeypatch.chdir(tmp_path)
    assert names(["a.png", "./a.png", tmp_path / "a.png"]) == ["a"]
    assert names(["."], exclude=Path("out")) == ["a"]


def test_nothing_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given in (tmp_path / "empty", str(tmp_path / "*.png"), tmp_path / "folder"):
        with pytest.raises(UserError, match=r"no (such picture|pictures)"):
            find_pictures([given])
    assert names([tmp_path / "gone.png"]) == ["gone"], "reported when it is its turn, so that the rest goes on"
