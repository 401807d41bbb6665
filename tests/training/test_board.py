from __future__ import annotations

import builtins
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from tracesight.errors import PartialFailure, UserError
from tracesight.training import board as board_module
from tracesight.training.board import open_board, require_tensorboard, tag_of
from tracesight.training.history import History, read_history

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="TensorBoard is not installed: pip install 'tracesight[log]'",
)


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points that TensorBoard shows, by curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@needs_tensorboard
def test_rows_become_points_and_what_is_no_number_is_left_out(tmp_path):
    board = open_board(tmp_path, 0)
    board.add(1, loss=2.0, loss_mask=0.5, lr=0.25)
    board.add(2, loss=float("nan"), loss_mask=float("inf"), lr=None)
    board.add(2, val_loss=3.0, **{"val_segm_AP@all": 0.75})
    # Read before it is closed: what a killed process has added is there.
    assert shown(tmp_path) == {
        "loss/total": [(1, 2.0)],
        "loss/mask": [(1, 0.5)],
        "lr": [(1, 0.25)],
        "val/loss": [(2, 3.0)],
        "val/segm_AP_all": [(2, 0.75)],
    }
    board.close()


@needs_tensorboard
def test_on_resume_what_came_after_the_checkpoint_vanishes(tmp_path):
    board = open_board(tmp_path, 0)
    for step in range(1, 8):
        board.add(step, loss=step)
    board.add(3, val_loss=0.5)
    board.add(6, val_loss=0.25)
    board.close()
    board = open_board(tmp_path, 4)
    board.close()
    assert shown(tmp_path) == {"loss/total": [(s, s) for s in range(1, 5)], "val/loss": [(3, 0.5)]}
    board = open_board(tmp_path, 2)
    board.add(3, loss=30)
    board.close()
    assert shown(tmp_path)["loss/total"] == [(1, 1), (2, 2), (3, 30)]


@needs_tensorboard
def test_a_kill_within_an_event_and_a_clock_that_went_back_lose_nothing(tmp_path, monkeypatch):
    board = open_board(tmp_path, 0)
    for step in range(1, 6):
        board.add(step, loss=step)
    board.close()
    content = board.path.read_bytes()
    board.path.write_bytes(content[:-5])
    monkeypatch.setattr(board_module.time, "time", lambda: 1e9)  # the year 2001
    again = open_board(tmp_path, 4)
    again.add(5, loss=50)
    again.close()
    assert sorted(tmp_path.iterdir()) == [board.path, again.path]
    assert shown(tmp_path)["loss/total"] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]


@needs_tensorboard
def test_the_board_shows_what_the_history_holds(tmp_path):
    path, columns = tmp_path / "history.csv", ["step", "loss"]
    for begin, end in ((0, 6), (3, 5), (5, 9)):
        board = open_board(tmp_path / "board", begin)
        history = History(path, columns, begin, board)
        for step in range(begin + 1, end + 1):
            history.add(step=step, loss=100 * begin + step)
        board.close()
    rows = [(row["step"], row["loss"]) for row in read_history(path)]
    assert rows == [(1, 1), (2, 2), (3, 3), (4, 304), (5, 305), (6, 506), (7, 507), (8, 508), (9, 509)]
    assert shown(tmp_path / "board") == {"loss/total": rows}


@needs_tensorboard
@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files stands for a full disk: POSIX only")
def test_a_full_disk_is_one_line(tmp_path):
    import resource

    board = open_board(tmp_path, 0)
    board.add(1, loss=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (board.path.stat().st_size + 4, hard))
    try:
        with pytest.raises(PartialFailure) as raised:
            board.add(2, loss=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(board.path) in str(raised.value) and "step 2" in str(raised.value) and "\n" not in str(raised.value)
    assert shown(tmp_path) == {"loss/total": [(1, 1)]}
    board.close()


@needs_tensorboard
def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        open_board(tmp_path / "file" / "board", 0)


def test_without_tensorboard_one_line_names_the_remedy_and_nothing_is_written(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'tracesight\[log\]'"):
        require_tensorboard()
    with pytest.raises(UserError, match=r"pip install 'tracesight\[log\]'"):
        open_board(tmp_path / "board", 0)
    assert not (tmp_path / "board").exists()


def test_curves_are_grouped_by_what_they_are():
    columns = ["loss", "loss_rpn_box_reg", "val_loss", "val_bbox_AP50@all", "lr", "grad_norm", "seconds"]
    tags = ["loss/total", "loss/rpn_box_reg", "val/loss", "val/bbox_AP50_all", "lr", "grad_norm", "seconds"]
    assert [tag_of(column) for column in columns] == tags
