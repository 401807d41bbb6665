from __future__ import annotations

import pickle

import pytest
import torch

from tracesight.errors import PartialFailure, UserError
from tracesight.training import checkpoint
from tracesight.training.checkpoint import load_checkpoint, load_newest, save_checkpoint


def state(value: float) -> dict:
    return {"weights": torch.full((50,), value), "best": value}


def test_newest_is_read_back_and_the_number_is_bounded(tmp_path):
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, step, state(step), keep=2)
    assert len(list(tmp_path.iterdir())) == 2
    found = load_newest(tmp_path)
    assert found.state["step"] == 20 and found.state["best"] == 20 and not found.notes
    assert torch.equal(found.state["weights"], torch.full((50,), 20.0))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path, damage):
    save_checkpoint(tmp_path, 5, state(5), keep=3)
    path = save_checkpoint(tmp_path, 10, state(10), keep=3)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncate": content[:-100], "flip": content, "empty": b""}[damage])
    found = load_newest(tmp_path)
    assert found.state["step"] == 5
    assert len(found.notes) == 1 and path.name in found.notes[0] and "damaged" in found.notes[0]


def test_a_draft_left_by_a_kill_is_not_read_and_is_cleared_away(tmp_path):
    save_checkpoint(tmp_path, 5, state(5), keep=2)
    (tmp_path / "step-00000010.tmp").write_bytes(b"half")
    assert load_newest(tmp_path).state["step"] == 5
    save_checkpoint(tmp_path, 10, state(10), keep=2)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_full_disk_keeps_the_last_good_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 5, state(5), keep=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(PartialFailure, match=r"step 10: No space left on device; the one of step 5 remains"):
        save_checkpoint(tmp_path, 10, state(10), keep=1)
    assert load_newest(tmp_path).state["step"] == 5 and len(list(tmp_path.iterdir())) == 1


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "other.pt"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_later_format_is_refused(tmp_path):
    torch.save({"format": 99, "step": 1}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="format 99"):
        load_checkpoint(tmp_path / "a.pt")


def test_empty_folder():
    found = load_newest(checkpoint.Path("/nonexistent"))
    assert found.state is None and found.path is None
