from __future__ import annotations

import pytest

from tracesight.training.history import History, read_history


def test_resume_cuts_what_came_after_and_survives_a_torn_line(tmp_path):
    path = tmp_path / "history.csv"
    history = History(path, ["step", "loss", "val_segm_AP@all"])
    for step in range(1, 6):
        history.add(step=step, loss=1 / step)
        if step == 3:
            history.add(step=step, **{"val_segm_AP@all": 0.25})
    with path.open("a") as file:
        file.write("6,0.")
    resumed = History(path, ["step", "loss", "val_segm_AP@all"], step=3)
    resumed.add(step=4, loss=9)
    rows = read_history(path)
    assert [row["step"] for row in rows] == [1, 2, 3, 3, 4]
    assert rows[3] == {"step": 3, "val_segm_AP@all": 0.25} and rows[4]["loss"] == 9
    with pytest.raises(KeyError, match="other"):
        resumed.add(step=5, other=1)


def test_a_new_run_begins_a_new_file(tmp_path):
    path = tmp_path / "history.csv"
    History(path, ["step", "loss"]).add(step=1, loss=2)
    History(path, ["step", "loss"])
    assert read_history(path) == []
