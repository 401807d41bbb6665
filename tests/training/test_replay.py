from __future__ import annotations

import math

import pytest
import torch
from small_step import PICTURES, batch, network

from tracesight.errors import UserError
from tracesight.training import replay as module
from tracesight.training.precision import autocast, repeatable
from tracesight.training.replay import describe_replay, replay, save_replay

CPU = torch.device("cpu")
CONFIG = {"precision": "fp32", "device": "cpu", "scales": (0.8, 1.2)}


def overflowing():
    model = network()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.fill_(3e38)
    return model


def saved(path, model, loaded=None, precision="fp32", **changed):
    """The step as a run computes and saves it."""
    loaded = loaded or batch()
    with repeatable(CPU, 1):
        with autocast(CPU, torch.bfloat16 if precision == "bf16" else None):
            losses = {name: float(loss.detach()) for name, loss in model(loaded.batch, loaded.targets).items()}
        about = {"step": 7, "losses": losses, "found": "output of somewhere", "config": CONFIG, "spec": model.spec,
                 "model_state": model.state_dict(), "loaded": loaded, "pictures": PICTURES}  # fmt: skip
        assert save_replay(path, **{**about, **changed})
    return losses


def rewritten(path, **changed):
    held = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in {**held, **changed}.items() if value is not ...}, path)


def test_a_step_is_the_same_bit_for_bit(tmp_path):
    path, said = tmp_path / "run" / "bad.pt", []
    losses = saved(path, overflowing())
    assert not math.isfinite(losses["loss_classifier"]) and math.isfinite(losses["loss_objectness"])
    random = torch.get_rng_state()
    again = replay(path, "cpu", said.append)
    assert again.reproduced and again.step == 7 and again.pictures == PICTURES
    assert again.then.keys() == losses.keys() == again.now.keys()
    assert all(again.now[name] == value or math.isnan(value) for name, value in losses.items())
    assert again.found.startswith("output of roi_heads.box_predictor.cls_score: ")
    assert said == ["step 7 again: 2 pictures through mask_rcnn_resnet18_fpn in fp32 on cpu"]
    assert torch.equal(torch.get_rng_state(), random) and not list(path.parent.glob("*.tmp"))
    lines = describe_replay(again).splitlines()
    assert lines[0] == "step 7 on a.png, b.png" and lines[-1] == "reproduced, bit for bit"
    assert lines[-3:-1] == ["found then: output of somewhere", f"found now:  {again.found}"]
    assert [line.split()[0] for line in lines[1:-3]] == list(losses)


def test_the_number_format_of_the_run_is_used_even_where_it_is_slow(tmp_path, monkeypatch):
    path = tmp_path / "bad.pt"
    monkeypatch.setattr(module, "autocast_dtype", lambda asked, device: torch.bfloat16)
    saved(path, overflowing(), precision="bf16", config={"precision": "auto"})
    monkeypatch.undo()
    again = replay(path, "cpu", lambda line: None)
    assert again.reproduced and describe_replay(again).endswith("bit for bit")
    rewritten(path, precision="fp32")
    assert describe_replay(replay(path, "cpu", lambda line: None)).splitlines()[-1] != "reproduced, bit for bit"


def test_a_picture_is_named_and_pieces_are_written_without_the_rest(tmp_path):
    loaded = batch()
    loaded.batch.images[1, 0, 0, 0] = math.nan
    part = loaded._replace(
        batch=type(loaded.batch)(*(tensor[1:] for tensor in loaded.batch[:3])),
        targets=type(loaded.targets)(*(tensor[1:] for tensor in loaded.targets[:-1]), loaded.targets.mask_pixels),
        indices=[2],
        original_sizes=[(50, 70)],
    )
    saved(tmp_path / "bad.pt", network(), part, pictures=["b.png"])
    held = torch.load(tmp_path / "bad.pt", weights_only=True)
    assert held["batch"]["images"].untyped_storage().nbytes() == held["batch"]["images"].nbytes
    assert held["indices"] == [2] and held["format"] == 2 and held["threads"] == 1
    again = replay(tmp_path / "bad.pt", "cpu", lambda line: None)
    assert again.found.startswith("images of b.png: 1 of 18432 values") and again.reproduced


def test_a_mended_cause_is_not_reproduced(tmp_path):
    path = tmp_path / "bad.pt"
    losses = saved(path, overflowing())
    rewritten(path, model=network().state_dict())
    again = replay(path, "cpu", lambda line: None)
    assert not again.reproduced and again.found is None
    text = describe_replay(again)
    assert "not reproduced" in text and "found now:  nothing" in text
    # Losses that were finite all along, and a gradient that was not: nothing is found now.
    saved(path, network())
    assert not replay(path, "cpu", lambda line: None).reproduced
    assert not math.isfinite(losses["loss_classifier"])


def test_losses_agree_to_rounding_and_of_several_ranks_in_kind():
    agree = module._agree
    assert agree({"a": 1.0, "b": math.nan}, {"a": 1.04, "b": math.inf}, 1)
    assert not agree({"a": 1.0, "b": math.nan}, {"a": 1.1, "b": math.nan}, 1)
    assert agree({"a": 1.0, "b": math.nan}, {"a": 1.1, "b": math.nan}, 2)
    assert not agree({"a": 1.0, "b": math.nan}, {"a": 1.0, "b": 1.0}, 2)
    assert not agree({"a": 1.0}, {"b": 1.0}, 1)


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), RuntimeError("unexpected pos"), MemoryError()])
def test_no_room_is_no_exception(tmp_path, monkeypatch, failure):
    def full(held, file):
        file.write(b"half")
        raise failure

    monkeypatch.setattr(module.torch, "save", full)
    model = network()
    assert not save_replay(
        tmp_path / "bad.pt", step=0, losses={"loss": math.nan}, found="", config=CONFIG, spec=model.spec,
        model_state=model.state_dict(), loaded=batch(), pictures=PICTURES,
    )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_run_again(tmp_path):
    path, quiet = tmp_path / "bad.pt", lambda line: None
    with pytest.raises(UserError, match="no such file"):
        replay(path, "cpu", quiet)
    saved(path, network())
    whole = path.read_bytes()
    for content in (b"", b"not a file of torch", whole[:-500], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged") as caught:
            replay(path, "cpu", quiet)
        assert "\n" not in str(caught.value)
    for changed, said in (
        ({"format": 1, "model": ...}, "format 1, which holds no weights"),
        ({"format": 3}, "format 3, this version reads 2; update"),
        ({"batch": ...}, "not a step that a training saved"),
        ({"spec": ...}, r"cannot be run again \(KeyError: 'spec'\)"),
        ({"model": {}}, r"cannot be run again \(RuntimeError: Error\(s\) in loading"),
    ):
        path.write_bytes(whole)
        rewritten(path, **changed)
        with pytest.raises(UserError, match=said) as caught:
            replay(path, "cpu", quiet)
        assert "\n" not in str(caught.value)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="not a step"):
        replay(path, "cpu", quiet)


def test_code_in_the_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"format": 2, "batch": Evil()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="damaged, or not written by a training"):
        replay(tmp_path / "bad.pt", "cpu", lambda line: None)
