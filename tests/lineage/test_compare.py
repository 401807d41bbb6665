"""What became of pictures and categories."""

from __future__ import annotations

from tracesight.lineage.compare import Change, Place, category_changes, pairs_of, picture_changes, renames


def places(*rows: str) -> list[Place]:
    """split/name=content"""
    found = []
    for row in rows:
        where, _, content = row.partition("=")
        split, _, name = where.rpartition("/")
        found.append(Place(split or None, name, content))
    return found


def told(before: list[Place], after: list[Place]) -> list[tuple[str, str]]:
    return [(change.how, change.name) for change in picture_changes(before, after, pairs_of(before, after))]


def test_nothing_changes_when_the_order_does() -> None:
    before = places("train/a=1", "train/b=2", "val/c=3")
    assert told(before, before[::-1]) == []
    assert pairs_of(before, before[::-1]) == [(0, 2), (1, 1), (2, 0)]


def test_every_way_to_change() -> None:
    before = places("train/a=1", "train/b=2", "train/c=3", "train/d=4", "train/e=5")
    after = places("train/a=1", "val/b=2", "train/x=3", "train/d=44", "train/f=6")
    assert told(before, after) == [
        ("moved", "val/b"), ("renamed", "train/x"), ("replaced", "train/d"), ("removed", "train/e"),
        ("added", "train/f"),
    ]  # fmt: skip


def test_copies_are_told_apart_by_their_places() -> None:
    before = places("train/a=1", "train/b=1", "val/c=1")
    assert told(before, places("val/c=1", "train/b=1")) == [("removed", "train/a")]
    assert told(before, places("train/a=1", "train/b=1", "val/c=1", "val/d=1")) == [("added", "val/d")]
    assert told(before, places("train/b=1", "val/a=1", "val/c=1")) == [("moved", "val/a")]


def test_names_that_swap_their_contents_are_renamed_not_replaced() -> None:
    before, after = places("a=1", "b=2"), places("a=2", "b=1")
    assert told(before, after) == [("renamed", "b"), ("renamed", "a")]


def test_categories() -> None:
    before, after = {1: "bolt", 2: "nut", 3: "washer", 4: "pin"}, {1: "bolt", 2: "hex nut", 5: "washer", 6: "clip"}
    assert renames(before, after) == {2: "hex nut"}
    assert [(change.how, change.name) for change in category_changes(before, after)] == [
        ("renamed", "hex nut"), ("added", "clip"), ("removed", "pin"),
    ]  # fmt: skip
    assert renames({1: "a", 2: "b"}, {1: "b", 2: "a"}) == {}  # numbers that were dealt out anew
    assert list(category_changes({1: "a", 2: "b"}, {1: "b", 2: "a"})) == []


def test_a_change_in_a_line_and_as_json() -> None:
    change = Change("object", "removed", "a.png", "nut 3", "Jo", "2024")
    assert str(change) == "object removed: a.png: nut 3, by Jo, 2024"
    assert str(Change("picture", "added", "b.png")) == "picture added: b.png"
    assert Change("picture", "added", "b.png").to_json() == {"what": "picture", "how": "added", "name": "b.png"}
