"""Large JSON read row by row: the same values as from json.loads, wherever a piece ends; mistakes are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracesight.data.formats import coco_rows, json_rows
from tracesight.data.formats.coco_columns import POLYGONS, Texts
from tracesight.data.formats.coco_rows import Rows, rows_of
from tracesight.data.formats.polygon_text import polygons_only
from tracesight.errors import UserError

DATA = {
    "info": {"text": 'quotes " and \\ and "segmentation": [[1, 2, 3, 4, 5, 6]]', "n": -1.5e-3},
    "annotations": [{"id": 1, "x": [1.25, -2, 3e5], "name": "ü 漢 😀 \u2028"}, 12, -0.5, "text", None, True, [[]], {}],
    "empty": [],
    "images": [{"id": 2}],
    "other": [[1, 2], 3],
    "last": 123456,
}


def scanned(path: Path, **options: Any) -> tuple[dict[str, list[Any]], set[str]]:
    found: dict[str, list[Any]] = {"annotations": [], "images": [], "empty": []}
    return found, json_rows.scan_rows(path, {key: rows.extend for key, rows in found.items()}, **options)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "ascii"])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_same_wherever_a_piece_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, indent: int | None
) -> None:
    text = json.dumps(DATA, indent=indent, ensure_ascii=encoding == "ascii")
    (tmp_path / "a.json").write_text(text, encoding)
    for chunk in (2, 3, 7, 50, 1 << 22):
        monkeypatch.setattr(json_rows, "_CHUNK", chunk)
        found, keys = scanned(tmp_path / "a.json")
        assert found == {key: DATA[key] for key in found}
        assert keys == set(DATA)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not an object"),
        ("[1]", "not an object"),
        ("{", "Expecting value at character 1"),
        ('{"images": [1, 2', "Expecting ','"),
        ('{"images": [1 2]}', "Expecting ',' at character 14"),
        ('{"images": [1,]}', "Expecting value at character 14"),
        ('{"images": [1] "x": 2}', "Expecting ','"),
        ('{"images" [1]}', "Expecting ':'"),
        ("{1: 2}", "property name"),
        ('{"images": 7}', "'images' must be a list, not 7"),
        ('{"images": ["x}', "Unterminated string"),
        ('{"images": []} {}', "Extra data at character 15"),
        ('{"images": [{"a": nan}' + "x" * 200, "Expecting value at character 18"),
    ],
)
def test_mistakes_are_found_and_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    (tmp_path / "a.json").write_text(text)
    for chunk in (3, 1 << 22):
        monkeypatch.setattr(json_rows, "_CHUNK", chunk)
        with pytest.raises(ValueError, match=r"at character|must be|not an object") as caught:
            scanned(tmp_path / "a.json")
        assert words in str(caught.value)


def test_a_mistake_at_the_beginning_does_not_read_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_CHUNK", 100)
    pieces: list[str] = []
    (tmp_path / "a.json").write_text('{"images": [{"a": b}' + "1" * 10_000)
    with pytest.raises(ValueError, match="character 18"):
        scanned(tmp_path / "a.json", prepare=lambda text: pieces.append(text) or text)
    assert len(pieces) <= 3


@pytest.mark.parametrize(
    "polygons",
    ["[[1,2,3,4,5,6]]", "[ [1, 2.5, -3, 0.25, 5, 6, 10, 0] , [0,0,1,0,1,1]\n]", "[[1,2,3,4,5,6],\n[0,0,1,0,1,1]]"],
)
def test_sound_polygons_stay_text(polygons: str) -> None:
    texts = Texts()
    for number in (0, 1):
        row = json.loads(texts.keep(f'{{"segmentation" : {polygons}, "id": 3}}'))
        assert row == {POLYGONS: number, "id": 3}
        assert json.loads(texts[number]) == json.loads(polygons)


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["0", "00", "7", "-1", "-", ".", "1.5", "2.", ",", ", ", " ", "[", "]"]))))
@example([list("[[0,0,1,0,1,1]]"), list("[[0,0,1,0,1,1],[-1,0.5,10,0,1,1]]")])
@example([list("[[0,0,1,0,1,01]]")])
@example([list("[[0,0,1,0,1,1.0.0]]")])
@example([list("[[0,0,1,0,1]]")])
@example([list("[[0,0,1,0,1,1]]]")])
@example([list("[[0,0,1,0,1,1][0,0,1,0,1,1]]")])
def test_what_is_told_from_characters_is_so(pieces: list[list[str]]) -> None:
    """Whatever is taken for polygons is; and the sound ones of the examples are taken for it."""
    texts = ["".join(piece) for piece in pieces]
    if polygons_only(";".join(texts).encode()):
        parts = [part for text in texts for part in json.loads(text)]
        assert all(len(part) >= 6 and len(part) % 2 == 0 and set(map(type, part)) <= {int, float} for part in parts)
    else:
        assert "[[0,0,1,0,1,1],[-1,0.5,10,0,1,1]]" not in texts


@pytest.mark.parametrize("indent", [None, 0, 1, "\t"])
def test_labels_in_one_line_or_many(tmp_path: Path, indent: int | str | None) -> None:
    polygons = [[[0, 0, 5, 0, 5.5, i], [-1, 0.25, 3, 3, 10, 0]] for i in range(40)]
    rows = [{"id": i, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5]} for i in range(40)]
    rows = [row | {"segmentation": some} for row, some in zip(rows, polygons)]
    data = {"annotations": rows, "categories": [{"id": 1, "name": "a"}], "images": [{"id": 7}]}
    (tmp_path / "a.json").write_text(json.dumps(data, indent=indent))
    ((usual, others),) = rows_of(tmp_path / "a.json").objects([7])
    assert [coco_rows.whole(values).segmentation for values in usual] == polygons
    assert not others


ROWS = [{"id": i, "parts": [{"id": -i}, {"id": "}, {"}], "text": 'a "quoted" {"id": 3}, {"id'} for i in range(30)]


@pytest.mark.parametrize("size", [1, 40, 100, 1000, 1 << 15])
@pytest.mark.parametrize("indent", [None, 1])
def test_the_same_however_many_rows_are_parsed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, indent: int | None
) -> None:
    rows = [*ROWS, {"x": float("inf")}, {"id": 1e400}, *ROWS]
    (tmp_path / "a.json").write_text(json.dumps({"images": rows, "annotations": ROWS[:1]}, indent=indent))
    monkeypatch.setattr(json_rows, "_BLOCK", size)
    found, _ = scanned(tmp_path / "a.json")
    assert found["images"] == rows
    assert found["annotations"] == ROWS[:1]
    (tmp_path / "a.json").write_text(json.dumps({"images": ROWS}).replace('"id": 20,', '"id": 20 20,'))
    with pytest.raises(ValueError, match="Expecting ',' delimiter at character"):
        scanned(tmp_path / "a.json")


@pytest.mark.parametrize(
    "value",
    [
        "[]", "[[]]", "[[1,2,3,4]]", "[[1,2,3,4,5,6,7]]", "[[1,2,3,4,5,6],[1,2]]", "[[1,2,3,4,5,6],]",
        "[[1,2,3,4,5,1e9]]",
        "[[1,2,3,4,5,NaN]]", "[[01,2,3,4,5,6]]", "[[1.,2,3,4,5,6]]", "[[1,2,3,4,5,--6]]", "[1,2,3,4,5,6]", "null",
        "[[[1,2,3,4,5,6]]]", '{"counts": [1,2,3,4,5,6], "size": [1, 2]}', "[[1,2,3,4,5,6]",
    ],
)  # fmt: skip
def test_all_else_is_parsed(value: str) -> None:
    text = f'{{"segmentation": {value}, "id": 3}}'
    assert Texts().keep(text) == text


def test_rows_of_coco_in_any_order_of_keys(tmp_path: Path) -> None:
    rows = [{"id": i, "image_id": 7 - i % 2, "segmentation": [[0, 0, 5, 0, 5, 5]]} for i in range(5)]
    data = {"annotations": rows, "categories": [{"id": 1, "name": "a"}], "images": [{"id": 7}, {"id": 6}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    read = rows_of(tmp_path / "a.json")
    assert [[item.id for item in others] for _, others in read.objects([7, 6])] == [[0, 2, 4], [1, 3]]
    assert read.pictures() == {7, 6}
    assert read.images == data["images"]
    (tmp_path / "a.json").write_text('{"images": [1], "annotations": []}')
    with pytest.raises(UserError, match="not COCO instances: 'images' must be a list of objects"):
        rows_of(tmp_path / "a.json")


def test_usual_rows_are_read_together_as_each_would_be_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outline = [[0, 0, 5, 0, 5.5, 5], [-1, 0.25, 3, 3, 10, 0]]
    usual = {"category_id": 1, "bbox": [1, 2.5, 3, 4], "segmentation": outline, "iscrowd": 0, "area": 7}
    rows = [{"id": i, "image_id": 5 + i % 3} | usual for i in range(300)]
    odd: dict[int, dict[str, Any]] = {
        20: {"segmentation": {"size": [20, 30], "counts": [600]}, "iscrowd": 1}, 21: {"segmentation": [[1, 2]]},
        50: {"annotator": "Ann"}, 51: {"bbox": [1, 2, "3", 4]}, 52: {"bbox": [1, 2, 1e400, 4]}, 53: {"area": None},
        54: {"id": 10**30}, 55: {"id": "text"}, 56: {"id": 3}, 57: {"id": None}, 58: {"image_id": 10**30},
        59: {"image_id": "7"}, 60: {"area": 10**400}, 61: {"category_id": True}, 90: {"id": 91}, 200: {"bbox": None},
        220: {"category_id": 10**30}, 221: {POLYGONS: 0}, 222: {"segmentation": [], POLYGONS: 10**6},
    }  # fmt: skip
    rows = [row | odd.get(i, {}) for i, row in enumerate(rows)]
    boxes = [{"id": 1000 + i, "image_id": 5 + i % 3, "category_id": 1, "bbox": [0, i, 3, 4]} for i in range(100)]
    rows += [*boxes, *({**row, "id": row["id"] + 100, "segmentation": []} for row in boxes)]
    data = {"annotations": rows, "categories": [{"id": 1, "name": "a"}], "images": [{"id": 5}, {"id": 6}, {"id": 7}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    monkeypatch.setattr(json_rows, "_BLOCK", 1500)
    alone, together = read_as(tmp_path / "a.json", 0, monkeypatch), read_as(tmp_path / "a.json", 1, monkeypatch)
    assert together == alone
    assert len(alone[0]) == 500 - 3  # two of other pictures, and one without an id


def read_as(path: Path, usual: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any], set[Any]]:
    """The objects, faults and boxless of a file; usual: whether many rows may be read together."""
    with monkeypatch.context() as patch:
        taken: list[int] = []
        columns_of = coco_rows.columns_of

        def seen(*given: Any) -> Any:
            columns = columns_of(*given)
            taken.append(columns is not None)
            return columns if usual else None

        patch.setattr(coco_rows, "columns_of", seen)
        rows: Rows = rows_of(path)
        assert any(taken)
        assert not all(taken)
        found = []
        for plain, others in rows.objects([5, 6, 7]):
            found += [*map(coco_rows.whole, plain), *others]
        return found, rows.faults, rows.boxless
