from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracesight.errors import PartialFailure, UserError
from tracesight.training.history import History, columns_of, read_history


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


def test_a_file_cut_at_any_byte_gives_whole_rows_only(tmp_path):
    path, cut = tmp_path / "history.csv", tmp_path / "cut.csv"
    history = History(path, ["step", "loss"])
    for step, loss in ((1, 0.5), (2, 0.123), (13, 0.25)):
        history.add(step=step, loss=loss)
    content, rows = path.read_bytes(), read_history(path)
    assert len(rows) == 3
    for size in range(len(content) + 1):
        cut.write_bytes(content[:size])
        ends = content[:size].count(b"\n")
        # 0.1 of 0.123, or step 1 of 13, must not be taken for a value.
        assert read_history(cut) == rows[: max(0, ends - 1)], content[:size]


def test_what_a_power_cut_leaves_is_passed_over(tmp_path):
    path = tmp_path / "history.csv"
    path.write_bytes(b"step,loss\n1,0.5\n\0\0\0\0\0\n2,\xff\xfe\n3\n,7\n4,0.25\n")
    assert read_history(path) == [{"step": 1, "loss": 0.5}, {"step": 4, "loss": 0.25}]


def test_a_kill_during_the_cut_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "history.csv"
    history = History(path, ["step", "loss"])
    for step in range(1, 6):
        history.add(step=step, loss=step)
    before = path.read_bytes()

    def killed(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        History(path, ["step", "loss"], step=3)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    History(path, ["step", "loss"], step=3)
    assert [row["step"] for row in read_history(path)] == [1, 2, 3]


def test_resuming_twice_changes_no_value(tmp_path):
    path, columns = tmp_path / "history.csv", ["step", "lr", "loss"]
    history = History(path, columns)
    for step in range(1, 50):
        history.add(step=step, lr=1e-3 / step, loss=float("nan") if step == 7 else step**-0.3 * 1e7)
    before = repr(read_history(path))  # a nan differs from itself
    for _ in range(2):
        History(path, columns, step=49)
    assert repr(read_history(path)) == before and before.count("nan") == 1


def test_columns_that_an_older_file_lacks_are_filled_from_then_on(tmp_path):
    path = tmp_path / "history.csv"
    History(path, ["step", "loss"]).add(step=1, loss=0.5)
    History(path, ["step", "loss", "grad_norm"], step=1).add(step=2, loss=0.4, grad_norm=3)
    assert read_history(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4, "grad_norm": 3}]
    assert columns_of(read_history(path))["grad_norm"] == ([2], [3])


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files stands for a full disk: POSIX only")
def test_a_full_disk_is_one_line_and_leaves_no_torn_row(tmp_path):
    import resource

    path = tmp_path / "history.csv"
    history = History(path, ["step", "loss"])
    history.add(step=1, loss=0.5)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 4, hard))  # room for "2,0."
    try:
        with pytest.raises(PartialFailure) as raised:
            history.add(step=2, loss=0.123)
        after = path.read_bytes()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert after == before
    assert str(path) in str(raised.value) and "step 2" in str(raised.value) and "\n" not in str(raised.value)
    history.add(step=2, loss=0.123)
    assert read_history(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.123}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_no_space_is_named(tmp_path):
    path = tmp_path / "history.csv"
    history = History(path, ["step", "loss"])
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(PartialFailure, match=r"^no space left on .*history\.csv: its row of step 5 was not written"):
        history.add(step=5, loss=1)


def test_a_file_that_cannot_be_written_is_refused_at_the_beginning(tmp_path):
    path = tmp_path / "missing" / "history.csv"
    with pytest.raises(UserError, match=r"cannot write .*history\.csv"):
        History(path, ["step", "loss"])


def test_every_row_goes_to_the_board_too(tmp_path):
    class Noted:
        def __init__(self) -> None:
            self.rows: list[tuple[int, dict[str, float | None]]] = []

        def add(self, step: int, **values: float | None) -> None:
            self.rows.append((step, values))

    noted = Noted()
    history = History(tmp_path / "history.csv", ["step", "loss", "val_bbox_AP@all"], board=noted)  # type: ignore
    history.add(step=1, loss=0.5)
    history.add(step=1, **{"val_bbox_AP@all": None})
    assert noted.rows == [(1, {"loss": 0.5}), (1, {"val_bbox_AP@all": None})]
