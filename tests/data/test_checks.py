"""Pictures and their labels are looked at before a training: what is missing, damaged, of another size or without
masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sets import make_set, write_json, write_set
from picture_files import png
from PIL import Image

from tracesight.data.checks.everything import check
from tracesight.data.checks.mask_missing import with_masks
from tracesight.data.finding import refuse
from tracesight.data.formats import read_dataset, read_sets
from tracesight.data.kinds import check_codes, every_kind
from tracesight.errors import UserError

SIZES = [(40, 60), (50, 50), (80, 60)]


def test_progress_is_told_and_sets_without_errors_come_back_as_they_are(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, SIZES, suffix=".jpg", objects=1)
    seen: list[tuple[str, int, int]] = []
    report = check({"train": dataset}, workers=0, notes=False, progress=lambda *told: seen.append(told), fresh=True)
    assert seen == [("pictures", 1, 3), ("pictures", 2, 3), ("pictures", 3, 3), ("labels", 3, 3)]
    assert report.sets["train"] is dataset
    assert report.count("error") == 0


def test_the_first_culprit_is_named_and_the_others_counted(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, SIZES, suffix=".jpg")
    truncated = tmp_path / "images/picture1.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    (tmp_path / "images/picture2.jpg").unlink()
    report = check({"train": dataset}, workers=0)
    with pytest.raises(UserError, match=r"picture1\.jpg: cannot be decoded .*truncated.*\(and 1 more error") as caught:
        refuse(report.findings)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"picture2\.jpg: no such picture file; restore it"):
        refuse(report.findings, ["picture-unreadable"])
    refuse(report.findings, ["picture-unreadable", "picture-missing"])
    assert [record.name for record in report.sets["train"]] == ["picture0.jpg"]


def test_a_picture_that_would_fill_the_memory(tmp_path: Path) -> None:
    data = write_set(tmp_path, SIZES, objects=0)
    png(tmp_path / "images/picture1.png", None, size=(30_000, 30_000))
    data["images"][1].update(width=30_000, height=30_000)
    write_json(tmp_path, data)
    with pytest.raises(UserError, match=r"picture1\.png: 900000000 pixels, and more than 178956970 could exhaust"):
        refuse(check({"train": read_dataset(tmp_path)}, workers=0).findings)


def test_a_picture_of_another_size_than_its_labels(tmp_path: Path) -> None:
    write_set(tmp_path, SIZES)
    Image.new("RGB", (45, 40)).save(tmp_path / "images/picture0.png")
    report = check({"train": read_dataset(tmp_path)}, workers=0)
    with pytest.raises(UserError, match=r"picture0\.png: the picture is 45 × 40 pixels .* its labels say 60 × 40"):
        refuse(report.findings)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, upright it is as large as its labels say
    Image.new("RGB", (40, 60)).save(tmp_path / "images/picture0.png", exif=exif)
    assert check({"train": read_dataset(tmp_path)}, workers=0).count("error") == 0


def test_channels_that_the_network_does_not_take(tmp_path: Path) -> None:
    write_set(tmp_path, SIZES)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 60, 4), np.uint8), "RGBA").save(tmp_path / "images/picture0.png")
    Image.fromarray(rng.integers(0, 256, (50, 50), np.uint8)).save(tmp_path / "images/picture1.png")
    dataset = read_dataset(tmp_path)
    for channels, wrong in ((None, 0), (1, 0), (3, 0), (4, 2), (5, 3)):
        findings = check({"train": dataset}, workers=0, channels=channels).findings
        assert [f.kind.code for f in findings if f.kind.severity == "error"] == ["picture-channels"] * wrong


def test_objects_without_a_mask(tmp_path: Path) -> None:
    data = write_set(tmp_path, SIZES)
    dataset = read_dataset(tmp_path)
    assert with_masks(dataset) is dataset
    data["annotations"][1]["segmentation"] = None
    data["annotations"][2].update(segmentation=None, iscrowd=1)
    write_json(tmp_path, data)
    dataset = read_dataset(tmp_path)
    with pytest.raises(UserError, match=r"annotation 1 on picture0\.png has no mask; add masks"):
        with_masks(dataset)
    left = with_masks(dataset, ["mask-missing"])
    assert [a.id for a in left[0].annotations] == [0, 2]
    assert "1 objects without a mask, left out" in left.notes[-1]
    found = [f for f in check({"train": dataset}, workers=0).findings if f.kind.code == "mask-missing"]
    assert [(f.annotation, f.kind.severity) for f in found] == [(1, "warning")]


def test_many_records_are_shared_among_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_set(tmp_path, [(40, 60)] * 12)
    for row in data["annotations"][::5]:
        row["bbox"][0] += 30
    write_json(tmp_path, data)
    sets, found = read_sets(tmp_path)
    alone = check(sets, found, workers=0, mend_warnings=True)
    monkeypatch.setattr("tracesight.data.checks.everything._FEW", 1)
    monkeypatch.setattr("tracesight.data.checks.everything._CHUNK", 2)
    shared = check(sets, found, workers=2, mend_warnings=True)
    assert shared.findings == alone.findings
    assert list(shared.sets["all"]) == list(alone.sets["all"])


def test_every_kind_has_what_it_needs() -> None:
    kinds = every_kind()
    assert len(kinds) > 40
    for code, kind in kinds.items():
        assert code == kind.code
        assert kind.fix is not None or kind.severity != "error"  # a corrected copy has no errors
        assert not kind.title.endswith(".")
        assert not kind.remedy.endswith(".")
    check_codes(["box-outside", "mask-missing"])
    with pytest.raises(UserError, match=r"--allow box-outsid: there is no such code; did you mean box-outside\?"):
        check_codes(["box-empty", "box-outsid"])
    with pytest.raises(UserError, match="there is no such code; did you mean"):
        check_codes(["?"])


def test_the_page_about_checks_has_every_kind_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs/check.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count(" | ") == 3]
    told = {
        kind.code: f"| `{kind.code}` | {kind.title} | {kind.remedy} | {kind.fix or '–'} |"
        for kind in every_kind().values()
    }
    sections = page.split("\n## ")
    for severity in ("error", "warning", "note"):
        (section,) = (text for text in sections if text.startswith(f"{severity.title()}s\n"))
        listed = [line for line in section.splitlines() if line in rows]
        assert listed == [told[code] for code, kind in every_kind().items() if kind.severity == severity]
