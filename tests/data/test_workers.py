"""Workers that are killed, ignored signals, left alone or short of shared memory: the batches are the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tracesight.data import workers
from tracesight.data.workers import in_workers
from tracesight.errors import PartialFailure, UserError

POSIX = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
LINUX = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
NEEDS_FORK = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")


METHODS = [name for name in multiprocessing.get_all_start_methods() if name != "spawn"]


@dataclass
class Squares:
    """Makes (step, a tensor, some of `table`), and can do harm at one step."""

    table: np.ndarray = field(default_factory=lambda: np.arange(200_000).reshape(2, -1))
    log: Path | None = None
    harm: str = ""
    at: int = -1

    def __call__(self, step: int) -> tuple[int, torch.Tensor, np.ndarray]:
        if self.log is not None:
            (self.log / str(step)).touch()
        if step == self.at:
            self.do_harm()
        return step, torch.full((3, 5), float(step)).T, self.table[:, step : step + 3]

    def do_harm(self) -> None:
        if self.harm == "raise":
            raise UserError("a.png: is green")
        if self.harm == "exit":
            os._exit(3)
        if self.harm == "once":
            assert self.log is not None
            try:
                (self.log / "died").touch(exist_ok=False)
            except FileExistsError:
                return
        os.kill(os.getpid(), signal.SIGKILL)

    def contents(self, step: int) -> str:
        return f"picture{step}.png"


def run(make: Squares, steps: range, count: int, say: Any = pytest.fail) -> Any:
    return in_workers(make, steps, count, "step", make.contents, say)


def equal(made: list[Any], make: Squares, steps: range) -> bool:
    wanted = [make(step) for step in steps]
    return len(made) == len(wanted) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) and a[1].stride() == b[1].stride() and np.array_equal(a[2], b[2])
        for a, b in zip(made, wanted)
    )


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def method(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def test_every_start_method_gives_the_steps_in_order(method: str) -> None:
    make = Squares()
    assert equal(list(run(make, range(4, 11), 2)), make, range(4, 11))
    assert not multiprocessing.active_children()


def test_there_may_be_more_workers_than_steps_and_no_steps() -> None:
    make = Squares()
    assert equal(list(run(make, range(1), 3)), make, range(1))
    assert list(run(make, range(0), 3)) == []


def test_no_more_is_made_ahead_than_agreed(tmp_path: Path) -> None:
    steps = range(30)
    for made in run(Squares(log=tmp_path), steps, 2):
        assert max(int(path.name) for path in tmp_path.iterdir()) <= made[0] + workers.AHEAD * 2
    assert len(list(tmp_path.iterdir())) == len(steps)


def test_an_error_is_raised_in_its_turn_and_says_where_it_was() -> None:
    source, seen = run(Squares(harm="raise", at=5), range(9), 2), []
    with pytest.raises(UserError, match=r"^a\.png: is green") as caught:
        seen += (made[0] for made in source)
    assert "do_harm" in caught.value.__notes__[0]
    assert not multiprocessing.active_children()


def test_what_cannot_be_pickled_is_still_told() -> None:
    class Local(Exception):
        pass

    def make(step: int) -> None:
        raise Local("odd")

    if multiprocessing.get_start_method() != "fork":
        pytest.skip("a local function reaches forked workers only")
    with pytest.raises(RuntimeError, match="odd"):
        list(in_workers(make, range(1), 1, "step", str, pytest.fail))


@POSIX
@pytest.mark.parametrize("method", METHODS, indirect=True)
def test_a_worker_that_is_killed_is_replaced_at_the_step_that_was_due(method: str) -> None:
    make, said = Squares(), []
    source = run(make, range(12), 2, said.append)
    made = [next(source) for _ in range(3)]
    victims = {child.pid for child in multiprocessing.active_children()}
    for victim in victims:
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
    made += source
    assert equal(made, make, range(12))
    assert said == [
        f"step {step}: a worker was killed by SIGKILL (out of memory?) and was started again; nothing is lost"
        for step in (3, 4)
    ]


@POSIX
def test_dying_once_at_a_step_changes_nothing(tmp_path: Path) -> None:
    make, said = Squares(log=tmp_path, harm="once", at=6), []
    made = list(run(make, range(12), 2, said.append))
    assert equal(made, make, range(12))
    assert len(said) in (1, 2)  # batch 4 may have been made, and not fetched, when its worker died of 6


@POSIX
@pytest.mark.parametrize(("harm", "how"), [("kill", r"was killed by SIGKILL \(out of memory\?\)"), ("exit", "ended w")])
def test_dying_twice_at_a_step_names_that_step_and_its_pictures(harm: str, how: str) -> None:
    source, seen = run(Squares(harm=harm, at=6), range(12), 2, lambda line: None), []
    with pytest.raises(PartialFailure, match=rf"^step 6: a worker {how}.* twice, on picture6\.png; .*workers=0.*--res"):
        for made in source:
            seen.append(made[0])
    assert seen == list(range(6))
    assert not multiprocessing.active_children()


def test_closing_ends_the_workers() -> None:
    source = run(Squares(), range(1000), 2)
    with closing(source):
        next(source)
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


@POSIX
def test_no_handler_of_sigchld_is_installed() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    with closing(run(Squares(), range(9), 1)) as source:
        next(source)
        assert signal.getsignal(signal.SIGCHLD) is before
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGINT}


def no_room(*_: Any) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file: No space left on device (28)")


@NEEDS_FORK
def test_without_room_in_shared_memory_batches_go_through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    if multiprocessing.get_start_method() != "fork":
        pytest.skip("the patch reaches forked workers only")
    monkeypatch.setattr(torch.Tensor, "share_memory_", no_room)
    make = Squares()
    assert equal(list(run(make, range(5), 2)), make, range(5))


def test_large_arrays_travel_by_handle_and_others_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", partial(multiprocessing.get_context, "spawn"))
    rng = np.random.default_rng(0)
    large = rng.random((300, 400))
    held = {"a": large, "b": [large, large.T], "c": np.arange(7), "d": large[:, ::2], "e": np.array([None] * 20_000)}
    parcel = workers._parcel(held)
    assert large.nbytes > 20 * len(parcel.pickled)
    assert len(parcel.arrays) == 3  # `large` once, and its two views
    opened = parcel.open()
    assert opened["a"] is opened["b"][0]
    assert all(np.array_equal(opened[key], held[key]) for key in "acde")
    assert np.array_equal(opened["b"][1], large.T)
    monkeypatch.setattr(torch.Tensor, "share_memory_", no_room)
    plain = workers._parcel(held)
    assert not plain.arrays
    assert np.array_equal(plain.open()["b"][1], large.T)


SCRIPT = """
import json, multiprocessing, os, signal, sys, time
import torch
from tracesight.data.workers import in_workers

def slow(step):
    time.sleep(0.02)
    return step, os.getpid(), torch.full((99,), step)

def fail(line):
    raise AssertionError(line)

def main(how):
    source = in_workers(slow, range(10_000), 2, "step", str, fail)
    first = [next(source)[1] for _ in range(2)]
    print(json.dumps(first), flush=True)
    if how == "wait":
        time.sleep(60)
    if how == "group":
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
        signal.signal(signal.SIGINT, lambda *_: asked.append(1))
        os.killpg(0, signal.SIGTERM)
        os.killpg(0, signal.SIGINT)
        later = [next(source) for _ in range(30)]
        assert [step for step, _, _ in later] == list(range(2, 32)) and len(asked) == 2
        assert {pid for _, pid, _ in later} == set(first)
    if how == "error":
        kept.append(source)
        raise ValueError("on purpose")
    kept.append(source)  # nobody closes it

kept = []
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    main(sys.argv[1])
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of the program under test; tmp_path is too long a name for sockets in it."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def started(temporary: Path, how: str, method: str) -> tuple[subprocess.Popen[str], list[int]]:
    script = temporary / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, script, how, method], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def gone(pids: list[int], patience: float) -> bool:
    until = time.monotonic() + patience
    while any(alive(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # who adopts an orphan may be slow to bury it
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@POSIX
@pytest.mark.parametrize("name", METHODS)
def test_workers_do_not_outlive_a_killed_parent(temporary: Path, name: str) -> None:
    process, pids = started(temporary, "wait", name)
    assert all(alive(pid) for pid in pids)
    process.kill()
    process.communicate(timeout=10)
    assert gone(pids, 10)


@POSIX
@pytest.mark.parametrize("name", METHODS)
def test_signals_to_the_whole_group_leave_the_workers_at_work(temporary: Path, name: str) -> None:
    process, pids = started(temporary, "group", name)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert gone(pids, 5)


@POSIX
@pytest.mark.parametrize(("how", "status"), [("leave", 0), ("error", 1)])
def test_the_end_of_the_program_hangs_on_no_worker(temporary: Path, how: str, status: int) -> None:
    process, pids = started(temporary, how, multiprocessing.get_start_method())
    process.communicate(timeout=20)
    assert process.returncode == status
    assert gone(pids, 5)
    assert [path.name for path in temporary.iterdir()] == ["script.py"]


@LINUX
def test_shared_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(Path("/dev/shm").glob("torch_*"))
    monkeypatch.setattr(multiprocessing, "get_context", partial(multiprocessing.get_context, "spawn"))
    parcel = workers._parcel(np.zeros(1 << 20))
    maps = Path("/proc/self/maps")
    assert maps.read_text().count("/torch_") >= 1
    shared = parcel.arrays[0][0].data_ptr()
    del parcel
    assert f"{shared:x}-" not in maps.read_text()
    assert set(Path("/dev/shm").glob("torch_*")) <= before
