from __future__ import annotations

from pathlib import Path

from made_pictures import CALLED, MISSED, NOWHERE, made

from tracesight.report.mistakes import KINDS, box_overlap, worst


def test_each_kind_is_found_once_and_explained(tmp_path: Path) -> None:
    dataset, results = made(tmp_path)
    mistakes = worst(results, dataset, 0.5, 20)
    assert [mistake.kind for mistake in mistakes] == list(KINDS)
    false, missed, poor, wrong, double = mistakes
    assert (false.image_id, false.path.name, false.box) == (8, "b.png", NOWHERE.box)
    assert false.sentence == "Reports a washer (score 0.88) where none is labelled."
    assert missed.box == MISSED.box
    assert missed.sentence.endswith("of 30 × 20 pixels; its best guess scores 0.20, under the threshold.")
    assert "overlaps the label by 0.30" in poor.sentence
    assert wrong.box == CALLED.box
    assert wrong.sentence == "Labelled bolt & <nut>, called washer (score 0.90)."
    assert "score 0.91 where 0.95" in double.sentence


def test_the_count_is_shared_between_kinds(tmp_path: Path) -> None:
    dataset, results = made(tmp_path)
    assert [mistake.kind for mistake in worst(results, dataset, 0.5, 2)] == ["false positive", "missed"]
    assert worst(results, dataset, 0.5, 0) == []


def test_nothing_shown_means_all_missed(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path)
    mistakes = worst({}, dataset, 0.5, 20)
    assert {mistake.kind for mistake in mistakes} == {"missed"}
    assert len(mistakes) == 5  # the crowd region is not missed
    assert mistakes[0].box == MISSED.box  # the largest first


def test_truth_makes_no_mistake(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path)
    truth = {
        record.id: [
            {
                "image_id": record.id,
                "category_id": a.category_id,
                "score": 1.0,
                "bbox": [a.box[0], a.box[1], a.box[2] - a.box[0], a.box[3] - a.box[1]],
            }
            for a in record.annotations
        ]
        for record in dataset
    }
    assert worst(truth, dataset, 0.5, 20) == []


def test_overlap_of_boxes() -> None:
    assert box_overlap((0, 0, 2, 2), (1, 0, 3, 2)) == 1 / 3
    assert box_overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert box_overlap((0, 0, 0, 0), (0, 0, 0, 0)) == 0
