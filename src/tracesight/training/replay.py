"""The step that stopped a run, kept in one file with everything it was computed from, and run once more.

The file holds tensors and plain values only and is read with `weights_only=True`. Random numbers belong to the keys in
the batch, so the step draws the same ones again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tracesight.data.batch import Batch, ImageTargets, Loaded, Targets, moved
from tracesight.data.view_batch import Views
from tracesight.errors import UserError
from tracesight.models.build import CATALOGUE, build
from tracesight.models.methods import build_method
from tracesight.models.pixels import pixel_statistics, remember_pixels
from tracesight.training.classification import class_losses
from tracesight.training.diagnose import first_bad_input, first_bad_tensor
from tracesight.training.precision import autocast, autocast_dtype, choose_device, repeatable
from tracesight.training.pretraining import made_of

FORMAT = 2
# Relative difference up to which losses count as the same on other hardware: sampling and NMS amplify rounding.
TOLERANCE = 0.05
_TARGETS: dict[str, Any] = {"shares": ImageTargets, "second": Views}  # by a column that no other has
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Replayed(NamedTuple):
    """One step run twice: its losses by name `then` and `now`, and what was `found` to be wrong each time, if anything.

    reproduced: the same losses are not finite, and the others agree (bit for bit where machine, versions and number of
    threads are the same; to 5 % anywhere); where all were finite, something is found to be wrong all the same.
    """

    step: int
    pictures: list[str]
    then: dict[str, float]
    now: dict[str, float]
    found_then: str
    found: str | None
    reproduced: bool


def save_replay(
    path: Path,
    *,
    step: int,
    losses: dict[str, float],
    found: str,
    config: dict[str, Any],
    spec: dict[str, Any],
    model_state: dict[str, Tensor],
    loaded: Loaded,
    pictures: list[str],
) -> bool:
    """Write a step to `path`, whole or not at all. Never raises, since the run ends for another reason.

    Args:
        losses: by name, before they were found wanting.
        found: what was found to be wrong.
        config: the run's, with "precision".
        spec: the network's, as `tracesight.build` leaves it on the model.
        model_state: its weights before the update.
        loaded: the batch, or the part of it, that the losses are of; where it lies is where it was computed.
        pictures: what each of its pictures is called.

    Returns:
        Whether it was written: there may be no room.
    """
    draft = path.with_name(path.name + ".tmp")
    try:
        held = {
            "format": FORMAT,
            "step": step,
            "losses": {name: float(value) for name, value in losses.items()},
            "found": found,
            # JSON has plain values only, which is what reading without code allows.
            "config": json.loads(json.dumps(config, default=str)),
            "spec": json.loads(json.dumps(spec)),
            "model": {name: _kept(tensor) for name, tensor in model_state.items()},
            "batch": {name: c if c is None else _kept(c) for name, c in loaded.batch._asdict().items()},
            "targets": loaded.targets
            and {name: c if c is None else _kept(c) for name, c in loaded.targets._asdict().items()},
            "indices": [int(index) for index in loaded.indices],
            "original_sizes": [(int(height), int(width)) for height, width in loaded.original_sizes],
            "pictures": [str(picture) for picture in pictures],
            "precision": _precision(config["precision"], loaded.batch.images.device),
            "threads": torch.get_num_threads(),
            "ranks": dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            torch.save(held, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        return True
    # torch reports a full disk as a RuntimeError of its archive writer, and memory may be short too.
    except Exception:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        return False


def replay(path: str | Path, device: str = "auto", say: Callable[[str], None] = print) -> Replayed:
    """Run the step in `path` again: losses, and where they went wrong.

    Args:
        device: where; "auto" is the GPU if there is one.
        say: receives a line about what is being done.

    Raises:
        UserError: the file is missing, damaged or of another format, or the device is not there.
    """
    path, where = Path(path), choose_device(device)
    held = _read(path)
    try:
        model, loaded = _model(held, where), _loaded(held, where)
        pictures, ranks = list(held["pictures"]), int(held["ranks"])
        then, found_then, step = dict(held["losses"]), str(held["found"]), int(held["step"])
        precision, threads = held["precision"], int(held["threads"])
        dtype = _DTYPES[precision]
    except Exception as error:  # keys that are missing, weights that do not fit, a network that is no longer known
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: cannot be run again ({type(error).__name__}: {reason})") from None
    say(f"step {step} again: {len(pictures)} pictures through {held['spec']['name']} in {precision} on {where}")

    def losses_of() -> dict[str, Tensor]:
        with autocast(where, dtype):
            return _losses(model, loaded, held["config"])

    with repeatable(where, threads):
        now = {name: float(loss.detach()) for name, loss in losses_of().items()}
        found = first_bad_input(loaded, pictures) or first_bad_tensor(model, losses_of)
    reproduced = _agree(then, now, ranks) and (found is not None or not all(map(math.isfinite, then.values())))
    return Replayed(step, pictures, then, now, found_then, found, reproduced)


def describe_replay(replayed: Replayed) -> str:
    """A few lines for people: the losses then and now, what was found, and whether it is the same again."""
    names = list(dict.fromkeys((*replayed.then, *replayed.now)))
    width = max(map(len, names), default=0)
    lines = [f"step {replayed.step} on {', '.join(replayed.pictures)}"]
    for name in names:
        then, now = (f"{losses.get(name, '-'):>12.7}" for losses in (replayed.then, replayed.now))
        lines.append(f"  {name:<{width}}  then {then}  now {now}")
    lines.append(f"found then: {replayed.found_then}")
    lines.append(f"found now:  {replayed.found or 'nothing: all tensors are finite'}")
    if not replayed.reproduced:
        lines.append("not reproduced: other hardware or versions, or the cause is mended")
    elif _identical(replayed.then, replayed.now):
        lines.append("reproduced, bit for bit")
    else:
        lines.append("reproduced, though not bit for bit")
    return "\n".join(lines)


def _agree(then: dict[str, float], now: dict[str, float], ranks: int) -> bool:
    """Whether the same losses are not finite and the others the same.

    With several ranks a loss was divided by what all of them counted, which one alone cannot know.
    """
    if then.keys() != now.keys():
        return False
    pairs = [(then[name], now[name]) for name in then]
    if any(math.isfinite(old) != math.isfinite(new) for old, new in pairs):
        return False
    return ranks > 1 or all(math.isclose(old, new, rel_tol=TOLERANCE) for old, new in pairs if math.isfinite(old))


def _identical(then: dict[str, float], now: dict[str, float]) -> bool:
    return all(old == now[name] or (math.isnan(old) and math.isnan(now[name])) for name, old in then.items())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; a run that a loss stopped leaves a bad-batch-STEP.pt in its folder")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # damaged archives raise whatever their bytes happen to provoke
        raise UserError(f"{path}: damaged, or not written by a training ({type(error).__name__})") from None
    if not isinstance(held, dict) or "batch" not in held or not isinstance(held.get("format"), int):
        raise UserError(f"{path}: not a step that a training saved; name the bad-batch-STEP.pt of a run")
    if held["format"] < FORMAT:
        raise UserError(f"{path}: of format {held['format']}, which holds no weights and cannot be run again")
    if held["format"] > FORMAT:
        raise UserError(f"{path}: of format {held['format']}, this version reads {FORMAT}; update it")
    return held


def _model(held: dict[str, Any], device: torch.device) -> nn.Module:
    spec = held["spec"]
    with torch.random.fork_rng(devices=[]):
        if "encoder" in spec:  # of a pretraining
            encoder = spec["encoder"]
            pixels = held["config"].get("pixels")
            model = build_method(spec["name"], encoder["name"], encoder["args"], spec["args"], pixels)
        else:
            model = build(spec["name"], spec["num_classes"], spec["conventions"], **spec["args"])
    model.load_state_dict(held["model"])
    if "encoder" not in spec and CATALOGUE[spec["name"]].task == "classify":
        remember_pixels(model, *pixel_statistics(spec["args"].get("in_channels", 3), held["config"]["pixels"]))
    return model.to(device).train()


def _losses(model: nn.Module, loaded: Loaded, config: dict[str, Any]) -> dict[str, Tensor]:
    """The losses of a step as its recipe computes them."""
    if isinstance(loaded.targets, ImageTargets):
        several, smoothing = config["multi_label"], config["label_smoothing"]
        return class_losses(model, model, loaded, several=several, smoothing=smoothing)
    if isinstance(loaded.targets, Views):
        return made_of(model, model, loaded).losses
    return model(loaded.batch, loaded.targets)


def _loaded(held: dict[str, Any], device: torch.device) -> Loaded:
    batch, kept = moved(Batch(**held["batch"]), device), held["targets"]
    kind = next((kind for name, kind in _TARGETS.items() if name in (kept or ())), Targets)
    targets = kept and moved(kind(**kept), device)
    return Loaded(batch, targets, list(held["indices"]), [(h, w) for h, w in held["original_sizes"]])


def _precision(asked: str, device: torch.device) -> str:
    """What `asked` ("auto", …) comes to on `device`: a key of `_DTYPES`."""
    dtype = autocast_dtype(asked, device)
    return next(name for name, kind in _DTYPES.items() if kind is dtype)


def _kept(tensor: Tensor) -> Tensor:
    """On the CPU; a piece of a larger tensor without the rest of it, which would be written too."""
    tensor = tensor.detach().cpu()
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
