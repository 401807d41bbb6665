"""What a training survives: kills, signals, too little memory, dying workers, damaged files, odd clocks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kills
import pytest
import torch
from small_runs import (
    assert_same,
    before_update,
    checkpoints,
    command,
    course,
    killed,
    python,
    reached,
    run,
    small,
    step_of,
)

from tracesight.cli import _status as main_status
from tracesight.errors import Interrupted, PartialFailure, UserError
from tracesight.models import resnet
from tracesight.recipes import detect
from tracesight.training import validate
from tracesight.training.checkpoint import load_checkpoint, save_checkpoint
from tracesight.training.history import read_history
from tracesight.training.schedules import learning_rate

pytestmark = pytest.mark.usefixtures("quick")
posix = pytest.mark.skipif(os.name == "nt", reason="os.kill ends a process on Windows")


@posix
def test_kill_nine_loses_nothing(tmp_path):
    """With accumulation, averaged weights and two workers; the second kill hits while a checkpoint is written."""
    trial = kills.trial(tmp_path, workers=2, kills=2, steps=12, seed=142)
    assert trial.held and trial.kills == 2, trial


# What is found on --resume


def test_a_checkpoint_of_another_model_is_refused(undisturbed, trays, tmp_path, capsys):
    out = killed(undisturbed, tmp_path / "run", 4)
    state = load_checkpoint(checkpoints(out)[-1])
    wider = small(model_args={**small().model_args, "box_channels": 48})
    other = detect.build_detector(
        wider.model, {"norm": "group", **wider.model_args}, categories={1: "a", 2: "b", 3: "c"}, max_objects=10,
        seed=0, begun=None,
    )  # fmt: skip
    held = {key: value for key, value in state.items() if key not in ("format", "step")}
    save_checkpoint(out / "checkpoints", 5, {**held, "model": other.state_dict()}, keep=3)
    before = content(out)
    assert main_status([*command(small(), trays, out, tmp_path / "keys.yaml"), "--resume"]) == 2
    said = capsys.readouterr().err
    assert "error: the checkpoint of step 5 is of another model: " in said and "roi_heads.box_head" in said
    assert content(out) == before


def test_another_seed_is_another_run(undisturbed, trays):
    with pytest.raises(UserError, match=r"--resume with another seed \(0 → 1\)"):
        run(small(seed=1), trays, undisturbed, resume=True)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(undisturbed, trays, tmp_path):
    out = killed(undisturbed, tmp_path / "run", 4)
    cut_short(checkpoints(out)[-1])
    _, said = run(small(), trays, out, resume=True)
    assert any("damaged checkpoint" in line and "step-00000004" in line for line in said)
    assert "resuming at step 2 of 6" in said
    assert_same(undisturbed, out)


def test_where_all_checkpoints_are_damaged_it_starts_afresh_and_keeps_new_ones(
    undisturbed, trays, tmp_path, monkeypatch
):
    out, said = killed(undisturbed, tmp_path / "run", 2), []
    cut_short(checkpoints(out)[0])
    for step in (4, 5, 6):
        (out / "checkpoints" / f"step-{step:08d}-0123456789abcdef.pt").write_bytes(b"PK")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        before_update(patch, 3, die)
        detect.train(small(), trays, out, resume=True, progress=said.append)
    assert sum("damaged checkpoint" in line for line in said) == 4 and any("starting afresh" in line for line in said)
    _, said = run(small(), trays, out, resume=True)
    assert "resuming at step 2 of 6" in said
    assert_same(undisturbed, out)


# Others on the same machine


def test_two_runs_do_not_write_into_one_folder(undisturbed, trays, tmp_path, monkeypatch):
    """The folder is held by another process, and then by a training from which others are kept away."""
    hold = "import sys; from pathlib import Path; from tracesight.training.lock import held\n"
    hold += "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    out = killed(undisturbed, tmp_path / "run", 4)
    before = content(out)
    arguments = [sys.executable, "-c", hold, str(out)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"is being written by process {other.pid} on host"):
            run(small(), trays, out, resume=True)
        other.communicate()
    assert content(out) == before
    refused = []
    before_update(
        monkeypatch, 5, lambda _: refused.append(subprocess.run(arguments, input="", capture_output=True, text=True))
    )
    run(small(), trays, out, resume=True)
    assert refused[0].returncode == 1 and f"written by process {os.getpid()} on host" in refused[0].stderr
    assert_same(undisturbed, out)


@posix
def test_a_worker_that_dies_is_replaced(undisturbed, trays, tmp_path, monkeypatch):
    others = multiprocessing.active_children()

    def murder(_: Any) -> None:
        [worker] = [process for process in multiprocessing.active_children() if process not in others]
        os.kill(worker.pid or 0, signal.SIGKILL)

    before_update(monkeypatch, 1, murder)
    _, said = run(small(workers=1), trays, tmp_path / "run")
    assert any("a worker was killed by SIGKILL" in line and "nothing is lost" in line for line in said)
    assert_same(undisturbed, tmp_path / "run", but=("workers",))


def test_a_clock_that_jumps_back_changes_nothing(undisturbed, trays, tmp_path, monkeypatch):
    year, real = 365 * 86400, time.time

    class Past(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(real() - year, tz)

    def jump(_: Any) -> None:
        monkeypatch.setattr(time, "time", lambda: real() - year)
        for module in [module for name, module in sys.modules.items() if name.startswith("tracesight.")]:
            if getattr(module, "datetime", None) is datetime:
                monkeypatch.setattr(module, "datetime", Past)

    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        before_update(patch, 1, jump)
        before_update(patch, 5, die)
        run(small(), trays, out)
    os.utime(checkpoints(out)[0], (real() + year, real() + year))  # the older one looks newer
    assert (datetime.now(UTC).timestamp() - time.time()) > year / 2
    _, said = run(small(), trays, out, resume=True)
    assert "resuming at step 4 of 6" in said
    assert_same(undisturbed, out)
    seconds = [row["seconds"] for row in read_history(out / "history.csv")]
    assert seconds == sorted(seconds) and seconds[0] > 0 and seconds[-1] < 600


# Signals


@posix
def test_signals_save_the_step_and_resume_goes_on_from_it(trays, tmp_path, monkeypatch):
    """SIGTERM and SIGINT, each to a process of its own, and at last an end."""
    monkeypatch.setitem(resnet.DEPTHS, 18, (2, 2, 2, 2))  # as it is in other processes
    config, out = small(max_steps=10, validate_every=0, checkpoint_every=0), tmp_path / "run"
    run(config, trays, tmp_path / "whole")
    arguments = python("tracesight", *command(config, trays, out, tmp_path / "keys.yaml"), "--resume")
    at = 0
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        returned, said = signalled(arguments, out, at + 2, number)
        assert returned == status, said
        at = step_of(checkpoints(out)[-1])
        ending = f"stopped at step {at} of 10 by {number.name}; the state of step {at} is saved: go on with"
        assert f"error: {ending} --resume" in said.splitlines()[-1]
        assert "Traceback" not in said
    _, said = run(config, trays, out, resume=True)
    assert f"resuming at step {at} of 10" in said and 4 <= at < 10
    assert_same(tmp_path / "whole", out)


@posix
@pytest.mark.parametrize("instant", ["figures", "told", "kept"])
def test_a_signal_during_validation_leaves_it_to_be_done_once(undisturbed, trays, tmp_path, monkeypatch, instant):
    """While figures are computed, once they have been told, and while the best bundle is written."""
    sent: list[int] = []

    def ask() -> None:
        if not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)

    def say(line: str) -> None:
        if instant == "told" and line.startswith("step 3/6"):
            ask()

    def then(function: Callable[..., Any]) -> Callable[..., Any]:
        def both(*args: Any, **options: Any) -> Any:
            done = function(*args, **options)
            ask()
            return done

        return both

    if instant == "figures":
        monkeypatch.setattr(detect, "validate", then(detect.validate))
    if instant == "kept":
        monkeypatch.setattr(detect.Bundle, "save", then(detect.Bundle.save))
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="stopped at step 3 of 6 by SIGTERM; the state of step 3 is saved") as caught:
        detect.train(small(), trays, out, progress=say)
    assert caught.value.number == signal.SIGTERM and len(sent) == 1
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        before_update(patch, 3, die)  # it is measured now, which no checkpoint holds yet
        run(small(), trays, out, resume=True)
    run(small(), trays, out, resume=True)
    assert_same(undisturbed, out)


# Memory


def test_too_little_memory_says_what_would_fit(undisturbed, trays, tmp_path, monkeypatch):
    """From step 3 on there is room for one picture only: with the suggested number of parts the run goes on."""
    real, steps = detect.build_detector, []

    def built(*args: Any, **options: Any) -> torch.nn.Module:
        model = real(*args, **options)

        def full(_: torch.nn.Module, inputs: tuple) -> None:
            if model.training and steps[-1] == 3 and inputs[0].images.shape[0] > 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

        model.register_forward_pre_hook(full)
        return model

    def counted(config: Any, total: int, step: int) -> float:
        steps.append(step)
        return learning_rate(step, total, lr=config.lr, warmup_steps=2)

    monkeypatch.setattr(detect, "build_detector", built)
    monkeypatch.setattr(detect, "rate_of", counted)
    with pytest.raises(PartialFailure) as caught:
        run(small(), trays, tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("step 3: out of memory; the state of step 3 is saved: go on with --resume; ")
    assert "--resume accumulate=2 cuts each batch into 2 parts of one picture" in message
    _, said = run(small(accumulate=2), trays, tmp_path / "run", resume=True)
    assert "going on with accumulate=2, before it was 1" in said and "resuming at step 3 of 6" in said
    assert [row["step"] for row in course(tmp_path / "run")] == [row["step"] for row in course(undisturbed)]


# Early stopping, accumulation and what else a checkpoint must hold


def test_early_stopping_counts_on_after_a_kill(trays, tmp_path, monkeypatch):
    """The figure is best at first; two validations without a better one end the run, one before the kill, one after."""
    real, out = validate.evaluate, tmp_path / "run"

    def never_better(*args: Any, **options: Any) -> dict[str, Any]:
        metrics = real(*args, **options)
        metrics["bbox"]["AP@all"] = 0.5
        return metrics

    monkeypatch.setattr(validate, "evaluate", never_better)
    config = small(max_steps=20, patience=2, validate_every=1, checkpoint_every=2, val_loss_pictures=0)
    metrics, said = run(config, trays, tmp_path / "whole")
    assert metrics["steps"] == 3 and any("no better figure for 2 validations" in line for line in said)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        before_update(patch, 2, die)
        run(config, trays, out)
    resumed, said = run(config, trays, out, resume=True)
    assert "resuming at step 2 of 20" in said and resumed["steps"] == 3
    assert_same(tmp_path / "whole", out)


@pytest.mark.parametrize(
    "changed",
    [
        {"accumulate": 2, "sampling": "repeat_factor", "repeat_threshold": 1.0, "jitter": "large_scale"},
        {"sampling": "class_balanced", "precision": "fp16", "optimiser": "adamw", "lr": 1e-3, "ema": 0.9},
    ],
    ids=["parts", "half"],
)
def test_resume_is_exact_whatever_is_switched_on(trays, tmp_path, changed):
    config = small(**{"max_steps": 2, "validate_every": 0, "checkpoint_every": 1, **changed})
    peace = tmp_path / "peace"
    run(config, trays, peace)
    state = load_checkpoint(checkpoints(peace)[-1])
    assert (state["scaler"] is not None) == (config.precision == "fp16")
    _, said = run(config, trays, killed(peace, tmp_path / "run", 1), resume=True)
    assert "resuming at step 1 of 2" in said
    assert_same(peace, tmp_path / "run")


def test_more_parts_than_pictures_are_refused(trays, tmp_path):
    with pytest.raises(UserError, match=r"accumulate=3: a batch of 2 .* use accumulate=2 or less"):
        run(small(accumulate=3), trays, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_curves_for_tensorboard_are_written(trays, tmp_path):
    pytest.importorskip("tensorboard")
    run(small(max_steps=1, tensorboard=True), trays, tmp_path / "run")
    [events] = (tmp_path / "run" / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents.") and b"loss/total" in events.read_bytes()


def test_tensorboard_that_is_missing_is_said_before_anything_is_written(trays, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=r"pip install 'tracesight\[log\]'"):
        run(small(tensorboard=True), trays, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def die(_: Any) -> None:
    """The process ends here, as by kill -9: nothing is saved."""
    raise KeyboardInterrupt


def content(out: Path) -> dict[str, bytes]:
    """The files of a run, but for the lock, which says who holds it now."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != ".lock"}


def cut_short(path: Path) -> None:
    """Leave half of a file, as a copy that was broken off does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def signalled(arguments: list[str], out: Path, step: int, number: signal.Signals) -> tuple[int, str]:
    """Start a training, send it a signal once its history has `step`, and wait: its exit status and what it said."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who ignores it passes that on to children
    try:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        while process.poll() is None and reached(out) < step:
            time.sleep(0.005)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    return process.returncode, said
