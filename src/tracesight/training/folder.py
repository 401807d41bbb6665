"""The folder of a run: what may be in it before a run begins, goes on, or has ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tracesight.errors import UserError
from tracesight.scene.values import write_whole
from tracesight.training.config import changed_key, config_yaml, read_config
from tracesight.training.lock import LOCK_NAME

# Where and how the work is done does not change what is learned, but for rounding (and see docs/resume.md for
# `accumulate`), nor does how often it is saved.
FREE_KEYS = (
    "workers", "device", "threads", "accumulate", "distributed", "compile", "tensorboard", "checkpoint_every",
    "keep_checkpoints", "proposals",
)  # fmt: skip


def check_run_folder(out: Path, config: BaseModel, *, resume: bool, allow: Sequence[str] = ()) -> dict[str, Any] | None:
    """Whether a run with `config` may use `out`; writes nothing.

    Args:
        allow: names that may lie in the folder of a new run.

    Returns:
        The metrics, if the run in `out` is finished and shall be resumed: there is nothing to do.

    Raises:
        UserError: the folder is not empty and `resume` is False, or a key differs from the run that is there.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out names a folder")
    if not resume:
        # A run that was killed before it wrote anything leaves its lock behind.
        if out.is_dir() and any(entry.name not in (*allow, LOCK_NAME) for entry in out.iterdir()):
            raise UserError(f"{out} is not empty: choose another --out, or go on with the run in it by --resume")
        return None
    finished, checkpoints = out / "metrics.json", out / "checkpoints"
    if not finished.exists() and not (checkpoints.is_dir() and any(checkpoints.iterdir())):
        return None
    if (out / "config.yaml").exists():
        new = config.model_dump(mode="json")
        old = _completed(read_config(out / "config.yaml"), type(config))
        if changed := changed_key(old, new, FREE_KEYS):
            raise UserError(
                f"{out}: --resume with another {changed}; give the keys it had (--config {out / 'config.yaml'}), "
                "or begin a new run in another --out"
            )
    if not finished.exists():
        return None
    try:
        return json.loads(finished.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{finished}: not JSON; delete it and --resume to make it anew") from None


def write_config(out: Path, config: BaseModel) -> None:
    """Make the folder and write the resolved configuration into it. Raises UserError if it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "config.yaml", config_yaml(config))
    except OSError as error:
        raise UserError(f"{error.strerror} for {out / 'config.yaml'}; make room or choose another --out") from None


def write_metrics(out: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json, the last file of a run: where it is, the run is finished."""
    write_whole(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")


def compare_identity(old: dict[str, Any], new: dict[str, Any], kind: type[BaseModel], out: Path) -> list[str]:
    """One line about each key that is another than in the checkpoint and may be.

    Raises UserError if the checkpoint was made from other data, another bundle or another configuration.
    """
    config = _completed(old["config"], kind)
    if changed := changed_key(config, new["config"], FREE_KEYS):
        raise UserError(
            f"{out}: --resume with another {changed}; give the keys it had (--config {out / 'config.yaml'}), "
            "or begin a new run in another --out"
        )
    for split in ("train", "val"):
        if (old["data"].get(split) or {}).get("digest") != (new["data"].get(split) or {}).get("digest"):
            raise UserError(f"{out}: --resume with other data: pictures or labels of {split} are not the ones it had")
    if old.get("proposals") != new.get("proposals"):
        raise UserError(f"{out}: --resume with other proposals than it had")
    if old["init"] != new["init"]:
        raise UserError(f"{out}: --resume with another --init than it began from")
    moved = [key for key in FREE_KEYS if config.get(key) != new["config"].get(key)]
    return [f"going on with {key}={new['config'][key]}, before it was {config[key]}" for key in moved]


def _completed(old: dict[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """A configuration that an earlier version wrote, with the keys that came later at their defaults."""
    try:
        return kind(**old).model_dump(mode="json")
    except ValidationError:  # a key that is no more, say: the comparison will name it
        return old
