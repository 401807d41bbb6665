"""A disk without room left, at every kind of file that a training writes: nothing is lost, and the run goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import assert_same, before_update, checkpoints, reached, run, small, step_of

from tracesight.errors import PartialFailure, UserError
from tracesight.recipes import detect
from tracesight.training import validate

pytestmark = pytest.mark.usefixtures("quick")


def fill_disk(patch: pytest.MonkeyPatch, part: str) -> None:
    """Writing to files whose paths have `part` in them fails from now on, as on a disk that has no room left."""
    real = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = real(path, mode, *args, **options)
        return Full(file) if mode[0] in "wax" and part in path.as_posix() else file

    patch.setattr(Path, "open", opened)


class Full:
    """A file on it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, content: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *caught: object) -> None:
        self._file.close()


@pytest.mark.parametrize(
    ("step", "where", "culprit", "saved"),
    [
        (3, "/checkpoints/", r"cannot write the checkpoint of step 4: No space left on device; .*step 2 remains", 2),
        (3, "/history.csv", r"no space left on .*history\.csv.*step 3 was not written", 2),
        (2, "/.best.writing", r"no room to write .*; the state of step 3 is saved: go on with --resume; make room", 3),
        (6, "/.metrics.json", r"no room to write .*; the state of step 6 is saved: go on with --resume; make room", 6),
    ],
    ids=["checkpoint", "history", "best", "end"],
)  # fmt: skip
def test_a_full_disk_loses_nothing(undisturbed, trays, tmp_path, monkeypatch, step, where, culprit, saved):
    out, said = tmp_path / "run", []
    with monkeypatch.context() as patch:
        before_update(patch, step - 1, lambda _: fill_disk(patch, where))
        with pytest.raises(PartialFailure, match=culprit) as caught:
            detect.train(small(), trays, out, progress=said.append)
    told = " ".join([*said, str(caught.value)])
    assert (
        f"the one of step {saved} remains" if "checkpoint" in culprit else f"the state of step {saved} is saved"
    ) in told
    assert [step_of(path) for path in checkpoints(out)][-1] == saved
    _, said = run(small(), trays, out, resume=True)
    assert f"resuming at step {saved} of 6" in said
    assert_same(undisturbed, out)


def test_a_best_bundle_for_which_there_was_no_room_is_written_later(trays, tmp_path, monkeypatch):
    """Of three bundles the second is the best; there is one in its place already when it cannot be written."""
    real, outs, config = validate.evaluate, [tmp_path / "whole", tmp_path / "run"], small(validate_every=2)

    def highest_after_four(*args: Any, **options: Any) -> dict[str, Any]:
        metrics = real(*args, **options)
        metrics["bbox"]["AP@all"] = {2: 0.2, 4: 0.9, 6: 0.5}[reached(outs[0])]
        return metrics

    monkeypatch.setattr(validate, "evaluate", highest_after_four)
    run(config, trays, outs[0])
    outs.reverse()
    with monkeypatch.context() as patch, pytest.raises(PartialFailure, match="no room to write"):
        before_update(patch, 3, lambda _: fill_disk(patch, "/.best.writing"))
        run(config, trays, outs[0])
    run(config, trays, outs[0], resume=True)
    assert_same(*outs)


@pytest.mark.parametrize("where", ["/.config.yaml", "/.history.csv"])
def test_a_disk_that_is_full_at_once_is_said(trays, tmp_path, monkeypatch, where):
    fill_disk(monkeypatch, where)
    with pytest.raises(UserError, match=r"(?i)no space left on .*make room or choose another --out"):
        run(small(), trays, tmp_path / "run")


ON_A_SMALL_DISK = """
import json, subprocess, sys
from pathlib import Path
from tracesight.recipes import around, detect
from tracesight.models import resnet
around.write_run = lambda *args, **facts: None
resnet.DEPTHS[18] = (1, 1, 1, 1)
data, disk, keys = map(Path, sys.argv[1:])
config, said = detect.Config(**json.loads(keys.read_text())), []
def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
mount("size=90m")
try:
    detect.train(config, data, disk / "run", progress=said.append)
except Exception as error:
    said.append(f"{type(error).__name__}: {error}")
said.append(str(sorted(path.name[:13] for path in (disk / "run" / "checkpoints").iterdir())))
mount("remount,size=500m")
detect.train(config, data, disk / "run", resume=True, progress=said.append)
subprocess.run(["cp", "-r", str(disk / "run"), str(disk.parent / "copy")], check=True)
print(json.dumps(said))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("unshare") is None, reason="needs namespaces")
def test_a_disk_that_is_really_full_loses_nothing(undisturbed, trays, tmp_path):
    """A small file system of its own, on which the second checkpoint has no room; then it is made larger."""
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    disk, keys = tmp_path / "disk", tmp_path / "keys.json"
    disk.mkdir()
    if subprocess.run([*inside, "mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    keys.write_text(json.dumps(small().model_dump(mode="json")))
    arguments = [*inside, sys.executable, "-c", ON_A_SMALL_DISK, str(trays), str(disk), str(keys)]
    ended = subprocess.run(arguments, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert "cannot write the checkpoint of step 4" in " ".join(said) and "the one of step 2 remains" in " ".join(said)
    assert "['step-00000002']" in said and "resuming at step 2 of 6" in said
    assert_same(undisturbed, tmp_path / "copy")
