from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tracesight.errors import UserError
from tracesight.training import lock
from tracesight.training.lock import LOCK_NAME, held

HOLD = """
import sys
from pathlib import Path
from tracesight.training.lock import held
with held(Path(sys.argv[1])):
    print("holding", flush=True)
    sys.stdin.readline()
"""

HOLD_AND_FORK = """
import os, sys, time
from pathlib import Path
from tracesight.training.lock import held
with held(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""

MANY = """
import os, sys
from pathlib import Path
from tracesight.errors import UserError
from tracesight.training.lock import held
folder, times, inside = Path(sys.argv[1]), 0, Path(sys.argv[1] + ".inside")
while times < 30:
    try:
        with held(folder):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another one is inside too
            inside.unlink()
            times += 1
    except UserError:
        pass
"""


def start(script: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_told_who_holds_it(tmp_path):
    process = start(HOLD, tmp_path)
    try:
        assert first_line(process) == "holding"
        with (
            pytest.raises(
                UserError, match=rf"is being written by process {process.pid} on host .+ since \d{{4}}-"
            ) as e,
            held(tmp_path),
        ):
            pass
        assert str(e.value).endswith("UTC: wait, stop it, or choose another --out") and "\n" not in str(e.value)
        process.communicate("\n")
        with held(tmp_path):  # it has ended
            assert (tmp_path / LOCK_NAME).exists()
    finally:
        process.kill()
        process.wait()


def test_the_same_process_is_refused_too_and_keeps_its_lock(tmp_path):
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run"):
        with pytest.raises(UserError, match="this process"), held(tmp_path / "run" / ".." / "run"):
            pass
        process = start(HOLD, tmp_path / "run")
        assert process.communicate("\n")[0] == "" and process.returncode == 1
    with held(tmp_path / "run"):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_process_leaves_no_lock_though_its_children_live(tmp_path):
    process = start(HOLD_AND_FORK, tmp_path)
    child = int(first_line(process))
    try:
        with pytest.raises(UserError, match=str(process.pid)), held(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK_NAME).exists()
        with held(tmp_path):
            os.kill(child, 0)  # it lives, and has the file open
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
    assert not (tmp_path / LOCK_NAME).exists()


def test_never_two_at_once_while_the_file_comes_and_goes(tmp_path):
    processes = [start(MANY, tmp_path / "run") for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]


def test_leaves_what_it_found(tmp_path):
    with held(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run" / LOCK_NAME).exists()
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "old").mkdir()
    with held(tmp_path / "old"):
        pass
    assert list((tmp_path / "old").iterdir()) == []
    with pytest.raises(ValueError, match="inside"), held(tmp_path / "used"):
        (tmp_path / "used" / "config.yaml").write_text("a: 1")
        raise ValueError("inside")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["config.yaml"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for name in ("file", "file/run"):
        with pytest.raises(UserError, match="names a folder"), held(tmp_path / name):
            pass
    assert (tmp_path / "file").read_text() == "mine"
    with held(tmp_path):  # a refusal is no hold
        pass


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
def test_without_locks_it_warns_and_goes_on(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.warns(UserWarning, match="no locks"), held(tmp_path):
        pass


def test_threads_of_one_process_exclude_each_other(tmp_path):
    refused = []

    def attempt():
        try:
            with held(tmp_path):
                pass
        except UserError as error:
            refused.append(str(error))

    with held(tmp_path):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(refused) == 1 and not lock._held
