"""Faults of every kind, planted in a clean set: all are found, nothing else is, and a corrected copy has no errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import planted
import planted_sets
import pytest

from tracesight.data.checks.everything import Report, check
from tracesight.data.dataset import Dataset
from tracesight.data.fix import write_fixed
from tracesight.data.formats import read_sets
from tracesight.errors import UserError


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, planted.Set]]:
    folder = tmp_path_factory.mktemp("planted") / "data"
    return folder, planted.plant(folder, 2)


@pytest.fixture(scope="module")
def report(faulty: tuple[Path, dict[str, planted.Set]]) -> Report:
    sets, found = read_sets(faulty[0])
    return check(sets, found, workers=0, mend_warnings=True)


def test_all_are_found_and_nothing_else(faulty: tuple[Path, dict[str, planted.Set]], report: Report) -> None:
    assert planted.judged(faulty[1], report.findings) == ([], [])


def test_the_copy_has_no_errors_and_lists_every_change(
    faulty: tuple[Path, dict[str, planted.Set]], report: Report, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in faulty[0].rglob("*") if path.is_file()}
    fixed = write_fixed(str(faulty[0]), report, tmp_path / "fixed")
    assert {path: path.read_bytes() for path in faulty[0].rglob("*") if path.is_file()} == before
    listed = json.loads((tmp_path / "fixed/changes.json").read_text())
    assert (fixed.format, listed["labels"], listed["source"]) == ("coco", "coco", str(faulty[0]))
    told = [finding for finding in report.findings if finding.kind.fix]
    assert len(listed["changes"]) == sum(listed["counts"].values()) == len(told)
    assert {row["code"] for row in listed["changes"]} == {finding.kind.code for finding in told}
    clipped = next(row for row in listed["changes"] if row["code"] == "box-outside")
    assert clipped["before"]["box"][2] > planted.WIDTH == clipped["after"]["box"][2]
    assert set(listed["left"]) >= {"box-size-odd", "polygon-crossing", "mask-missing"}
    sets, found = read_sets(tmp_path / "fixed")
    again = check(sets, found, workers=0)
    assert again.count("error") == 0
    mended = {kind.code for kind, _ in again.by_kind()}
    assert not mended & {"box-nearly-twice", "picture-twice", "picture-across-splits", "box-barely-outside"}
    with pytest.raises(UserError, match="not empty"):
        write_fixed(str(faulty[0]), report, tmp_path / "fixed")


def test_errors_alone_are_put_right_where_warnings_are_not_to_be(report: Report, faulty: tuple[Path, object]) -> None:
    sets, found = read_sets(faulty[0])
    some = check(sets, found, workers=0, notes=False)
    assert some.count("note") == 0
    assert {kind.code for kind, _ in some.by_kind()} == {k.code for k, _ in report.by_kind() if k.severity != "note"}
    count = {name: sum(len(record.annotations) for record in dataset) for name, dataset in some.sets.items()}
    fewer = {name: sum(len(record.annotations) for record in dataset) for name, dataset in report.sets.items()}
    assert count["train"] > fewer["train"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = planted.clean_set(tmp_path_factory.mktemp("clean") / "train", 44, 5)
    made.write()
    sets, found = read_sets(made.folder)
    assert not found
    return sets["all"]


def test_nothing_is_found_on_a_clean_set(clean: Dataset) -> None:
    report = check({"train": clean}, workers=0)
    assert report.findings == ()
    assert report.sets["train"] is clean


@pytest.mark.parametrize("code", planted_sets.SET_FAULTS)
def test_faults_of_a_set_as_a_whole(code: str, clean: Dataset) -> None:
    faulty = planted_sets.SET_FAULTS[code](clean, np.random.default_rng(0))
    findings = check({"train": faulty}, workers=0).findings
    assert code in {finding.kind.code for finding in findings}


def test_a_set_that_is_part_of_another_is_told_once(clean: Dataset) -> None:
    some = clean.subset(range(40))
    for sets in ({"train": clean, "val": some}, {"train": clean, "val": clean}):
        told = check(sets, workers=0).findings
        assert [finding.kind.code for finding in told] == ["splits-same"]
        assert f"all {len(sets['val'])} pictures of val are also in train" in told[0].message
