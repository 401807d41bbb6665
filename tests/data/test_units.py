"""What belongs together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracesight.data.record import Record
from tracesight.data.units import groups_of, units_of
from tracesight.errors import UserError


def records(*names: str, group: str | None = None) -> list[Record]:
    return [Record(n, Path("/data") / name, 1, 1, name=name, group=group) for n, name in enumerate(names)]


def test_chains_of_keys_and_pairs_are_one() -> None:
    groups = ["a", None, "b", "a", None, None]
    digests = ["1", "2", "2", "3", "4", "5"]
    assert units_of(6, [groups, digests]).tolist() == [0, 1, 1, 0, 4, 5]
    assert units_of(6, [groups, digests], [(3, 4), (4, 2)]).tolist() == [0, 0, 0, 0, 0, 5]
    assert units_of(3, [[None] * 3]).tolist() == [0, 1, 2]
    assert units_of(0, []).tolist() == []


def test_groups_of_labels_folders_and_expressions() -> None:
    assert groups_of(records("a.png", group="p1"), None) == ["p1"]
    some = records("p1/a.png", "p1/b.png", "c.png")
    assert groups_of(some, "folder") == ["p1", "p1", "."]
    some = records("case-12_left.png", "case-12_right.png", "case-7_left.png", "other.png")
    assert groups_of(some, r"case-\d+") == ["case-12", "case-12", "case-7", None]
    assert groups_of(some, r"case-(\d+)_(left|right)") == ["12/left", "12/right", "7/left", None]


def test_groups_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "groups.CSV"
    table.write_text("file,other,group\nsub\\a.png,x,p1\nb.png,x,p2\nc.png,x,\n", "utf-8")
    assert groups_of(records("sub/a.png", "deep/b.png", "c.png", "d.png"), str(table)) == ["p1", "p2", None, None]


def test_rules_that_say_nothing_are_told(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    for content, message in (("a,b\n1,2\n", "needs the columns name and group"), ("", "needs the columns")):
        table.write_text(content)
        with pytest.raises(UserError, match=message):
            groups_of(records("a.png"), str(table))
    for rule, message in (("(", "not a regular expression"), ("x+", "fits no picture; they are called like a.png"),
                          (str(tmp_path / "none.csv"), "cannot be read")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            groups_of(records("a.png"), rule)
