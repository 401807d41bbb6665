"""`tracesight data check`, and what train and evaluate refuse by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image
from planted import clean_set

from tracesight.data.formats import read_sets, write_sets


def dataset(folder: Path, pictures: int = 6, name: str = "train") -> Path:
    """A clean set in `folder`/NAME."""
    clean_set(folder / name, pictures, seed=len(name)).write()
    return folder / name


def break_box(folder: Path) -> None:
    """The first object reaches far out of its picture."""
    data = json.loads((folder / "instances.json").read_text())
    data["annotations"][0]["bbox"][2] += 500
    (folder / "instances.json").write_text(json.dumps(data))


def test_clean_data(tmp_path: Path, run: Run) -> None:
    status, out, err = run("data", "check", dataset(tmp_path))
    assert (status, err) == (0, "")
    assert out == "0 errors, 0 warnings, 0 notes in 6 pictures\n"
    status, out, _ = run("data", "check", tmp_path / "train", "--json", "--workers", "0", "--fresh")
    facts = json.loads(out)
    assert (status, facts["version"], facts["errors"], facts["findings"]) == (0, 1, 0, [])
    assert facts["sets"]["all"]["pictures"] == 6


def test_errors_exit_1_and_warnings_0(tmp_path: Path, run: Run) -> None:
    folder = dataset(tmp_path)
    data = json.loads((folder / "instances.json").read_text())
    data["categories"][0]["name"] = "Washer"
    (folder / "instances.json").write_text(json.dumps(data))
    status, out, _ = run("data", "check", folder)
    assert status == 0
    assert "warning  category-name-twice  1  categories that have the name of another" in out
    assert "→ merge or rename them" in out
    break_box(folder)
    status, out, _ = run("data", "check", folder)
    assert status == 1
    assert "error    box-outside          1  boxes that reach outside their picture" in out
    assert "train/instances.json: annotation 1 on train00001.png: the box" in out
    assert "→ correct it; --fix: clipped" in out
    assert "1 error, 2 warnings, 0 notes in 6 pictures" in out  # the mask does not fit that box either


def test_what_cannot_be_read_exits_2(tmp_path: Path, run: Run) -> None:
    folder = dataset(tmp_path)
    for arguments, message in (
        ([tmp_path / "nothing"], "no such file or folder"),
        ([folder, "--format", "excel"], "format 'excel' is not known"),
        ([folder, "lr=3"], "lr=3: neither a file or folder"),
        ([folder, "test=x"], "not both"),
        ([folder, "--fix", folder], "lies inside"),
        ([folder, "--fix", folder / "inside"], "lies inside"),
        ([folder, "--fix", tmp_path], "not an empty folder"),
        ([folder, "--workers", "-1"], "workers"),
    ):
        status, _, err = run("data", "check", *arguments)
        assert status == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1


def test_everything_is_in_the_folder_and_in_json(tmp_path: Path, run: Run) -> None:
    folder = dataset(tmp_path)
    break_box(folder)
    status, out, _ = run("data", "check", folder, "--out", tmp_path / "out", "--json")
    facts = json.loads(out)
    assert status == 1
    assert json.loads((tmp_path / "out/findings.json").read_text()) == facts
    (kind,), findings = [k for k in facts["kinds"] if k["severity"] == "error"], facts["findings"]
    assert (kind["code"], kind["count"], kind["fix"]) == ("box-outside", 1, "clipped")
    row = next(row for row in findings if row["code"] == "box-outside")
    assert (row["annotation"], row["box"][2] > 500) == (1, True)
    assert row["picture"].endswith("train00001.png")
    page = (tmp_path / "out/report.html").read_text()
    assert 'id="box-outside"' in page
    assert page.count("<img") >= 1
    assert "train00001.png" in page


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_a_corrected_copy_in_the_same_format(format: str, tmp_path: Path, run: Run) -> None:
    clean = dataset(tmp_path)
    write_sets({"train": read_sets(clean)[0]["all"]}, tmp_path / "data", format)
    (picture,) = (
        path for path in (tmp_path / "data").rglob("train00002.*g") if path.parent.name != "SegmentationObject"
    )
    picture.write_bytes(picture.read_bytes()[:500])
    status, out, _ = run("data", "check", tmp_path / "data")
    assert status == 1
    assert "picture-unreadable" in out
    status, out, _ = run("data", "check", tmp_path / "data", "--fix", tmp_path / "fixed")
    assert status == 0
    assert f"({format})" in out
    changes = json.loads((tmp_path / "fixed/changes.json").read_text())
    assert [row["code"] for row in changes["changes"]] == ["picture-unreadable"]
    assert picture.name in changes["changes"][0]["picture"]
    status, out, _ = run("data", "check", tmp_path / "fixed", "--json")
    facts = json.loads(out)
    assert (status, facts["errors"]) == (0, 0)
    assert sum(counts["pictures"] for counts in facts["sets"].values()) == 5


def test_the_same_folder_as_train_and_val_is_one_warning(tmp_path: Path, run: Run) -> None:
    folder = dataset(tmp_path)
    status, out, _ = run("data", "check", f"train={folder}", f"val={folder}")
    assert status == 0
    assert out.count("splits-same") == 1
    assert "0 errors, 1 warning, 0 notes in 12 pictures" in out


def test_training_refuses_errors_unless_they_are_allowed(tmp_path: Path, run: Run) -> None:
    folder = dataset(tmp_path)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(folder / "images/train00003.png")
    train = ("train", "--task", "detect", folder, "--preset", "cpu", "--out", tmp_path / "run")
    status, _, err = run(*train)
    assert status == 2
    assert "train00003.png: the picture is 20 × 20 pixels when upright, its labels say 128 × 96" in err
    status, _, err = run(*train, "--allow", "picture-sise")
    assert status == 2
    assert "--allow picture-sise: there is no such code; did you mean picture-size?" in err
    assert not (tmp_path / "run").exists()


def test_groups_come_from_a_table_too(tmp_path: Path, run: Run) -> None:
    dataset(tmp_path / "data")
    dataset(tmp_path / "data", 3, "val")
    table = tmp_path / "groups.csv"
    rows = [(record.name, f"p{record.id % 5}") for part in read_sets(tmp_path / "data")[0].values() for record in part]
    table.write_text("name,group\n" + "".join(f"{name},{group}\n" for name, group in rows))
    assert run("data", "check", tmp_path / "data", "--workers", "0")[0] == 0
    status, out, _ = run("data", "check", tmp_path / "data", "--workers", "0", "--group-by", table, "--json")
    found = [f["message"] for f in json.loads(out)["findings"] if f["severity"] == "error"]
    assert status == 1
    assert found == [
        "group 'p1': 2 pictures in train, 1 in val", "group 'p2': 1 pictures in train, 1 in val",
        "group 'p3': 1 pictures in train, 1 in val",
    ]  # fmt: skip
    status, _, err = run("data", "check", tmp_path / "data", "--group-by", "nothing")
    assert (status, err.count("\n")) == (2, 1) and "fits no picture" in err
