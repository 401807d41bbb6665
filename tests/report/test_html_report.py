from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_pictures import made

from tracesight.evaluation import evaluate, operating_threshold
from tracesight.report import ReportFacts, TrainingFacts, close_looks, samples, split_facts, worst, write_report
from tracesight.report.html import duration

EVIL = "<script>alert('x')</script> & \"y\""


class Page(HTMLParser):
    """Collects tags, addresses and text, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [str(values[key]) for key in ("src", "srcset", "href") if key in values]
        self.ids += [str(values["id"])] if "id" in values else []
        if tag not in ("meta", "img", "source", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if "style" not in self.open else ""


def facts(folder: Path) -> ReportFacts:
    dataset, results = made(folder)
    flat = [row for rows in results.values() for row in rows]
    metrics = evaluate(flat, dataset, max_objects=50)
    operating = operating_threshold(flat, dataset, kind="segm")
    mistakes = worst(results, dataset, 0.5, 6)
    history = [{"step": s, "loss": 1 / s, "lr": 0.1} for s in range(1, 9)]
    config = {"model": "mask_rcnn_resnet18_fpn", "name": EVIL, "scales": [0.8, 1.2], "model_args": {"norm": "group"}}
    training = TrainingFacts("mask_rcnn_resnet18_fpn", 1234567, EVIL, 8, 2, 75.2, "CPU", history, config)
    return ReportFacts(
        name=EVIL,
        task="segment",
        training=training,
        splits=(
            split_facts("train", dataset),
            split_facts("val", replace(dataset, categories={0: EVIL, 5: "w"}, notes=(EVIL,))),
        ),
        metrics=metrics,
        operating=operating,
        commands=(("Predict", f"tracesight predict {EVIL}"),),
        samples=tuple(samples(dataset, results, 0.5, 2)),
        mistakes=tuple(close_looks(mistakes, dataset, results, 0.5)),
        notes=(EVIL,),
        versions={"tracesight": "0.1.0", "torch": EVIL},
    )


def test_the_page_is_whole_self_contained_and_escaped(tmp_path: Path) -> None:
    given = facts(tmp_path)
    write_report(tmp_path / "report.html", given)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "alert('x')</script>" in page.words and "<script" not in text
    for address in page.addresses:
        assert address.startswith(("data:image/", "#"))
    assert {a[1:] for a in page.addresses if a.startswith("#")} == set(page.ids)
    assert not re.search(r"https?://|url\(|@import", text)
    assert page.tags.count("img") == 1 + len(given.samples) + len(given.mistakes)
    for section in (
        "notes",
        "next",
        "figures",
        "curves",
        "classes",
        "samples",
        "mistakes",
        "data",
        "config",
        "versions",
    ):
        assert section in page.ids
    assert "1 min 15 s" in page.words
    assert given.splits[0].digest in page.words
    assert f"{given.metrics['segm']['AP50@all']:.3f}" in page.words  # type: ignore[index]
    assert "norm: group" in page.words
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", ReportFacts(name="mine", task="detect"))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.ids == []
    assert "Object detection, evaluated on val." in page.words


def test_figures_that_could_not_be_computed_are_dashes(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path)
    metrics = evaluate([], dataset.subset([1]), max_objects=50, kinds=("bbox",))
    operating = operating_threshold([], dataset.subset([1]))
    write_report(tmp_path / "r.html", ReportFacts(name="x", task="detect", metrics=metrics, operating=operating))
    words = Page((tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert "None" not in words and "nan" not in words
    assert "no object to find" in words


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(target, ReportFacts(name="x", task="detect"))
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_counts_of_a_split(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path)
    split = split_facts("val", dataset)
    assert (split.pictures, split.empty, split.crowds) == (2, 1, 1)
    assert split.objects == {"bolt & <nut>": 5, "washer": 0}


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.4, "4 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_read_by_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words
