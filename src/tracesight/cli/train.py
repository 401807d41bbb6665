"""`tracesight train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA [KEY=VALUE]...",
            help="A folder with train and val, a COCO file, or train=… val=…; then keys of the recipe: lr=0.01.",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="classify, detect (boxes) or segment (boxes and masks).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that receives bundles, figures and the report.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with keys of the recipe.")] = None,
    preset: Annotated[str | None, typer.Option(help="A packaged set of keys, such as cpu or gpu.")] = None,
    init: Annotated[Path | None, typer.Option(help="Bundle whose weights the training begins from.")] = None,
    format: Annotated[str | None, typer.Option(help="How DATA is labelled. Default: recognised.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Code of errors in the data to put right or leave out, not to refuse.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    replay: Annotated[
        Path | None, typer.Option(help="Instead: run a saved bad batch through its network again.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Train a classifier, detector or instance segmenter on labelled pictures.

    Keys given as key=value win over those of --config, which win over those of --preset. Under torchrun the run is
    spread over its processes: torchrun --nproc-per-node 2 -m tracesight train …
    """
    if replay is not None:
        _replay(replay)
        return
    from tracesight import evaluation
    from tracesight.cli.show import print_json
    from tracesight.errors import UserError
    from tracesight.recipes import alternate, classify, detect
    from tracesight.training.config import resolve

    if task not in ("classify", "detect", "segment"):
        said = "--task is missing" if task is None else f"--task {task}"
        raise UserError(f"{said}: classify, detect or segment")
    if out is None:
        raise UserError("--out is missing: the folder that receives bundles, figures and the report")
    place, keys = split_arguments(data or [])
    options = {"init": init, "resume": resume, "format": format, "allow": allow or ()}
    if task == "classify":
        metrics = classify.train(resolve(classify.Config, preset, config, keys), place, out, **options)
    else:
        resolved = detect.for_task(resolve(detect.Config, preset, config, keys), task)
        recipe = alternate if resolved.training == "alternating" else detect
        metrics = recipe.train(resolved, place, out, **options)
    if os.environ.get("RANK", "0") != "0":
        return  # the first rank tells
    if as_json:
        print_json(metrics)
    else:
        if "bbox" in metrics or "image" in metrics:
            typer.echo(evaluation.table(metrics))
        typer.echo(f"report: {out / 'report.html'}\nnext:   tracesight predict {out / 'best'} PICTURES --out DIR")


def _replay(path: Path) -> None:
    from tracesight.errors import PartialFailure
    from tracesight.training.replay import describe_replay, replay

    replayed = replay(path)
    typer.echo(describe_replay(replayed))
    if not replayed.reproduced:
        raise PartialFailure(f"{path}: the losses are not those of the run: other versions, device or threads")


def split_arguments(arguments: list[str]) -> tuple[str | dict[str, str], list[str]]:
    """Where the data is (a path, or {"train": …, "val": …}), and the keys. Raises UserError unless there is one place.

    What contains an equals sign is a key, or data where its key is train or val, unless a file of that name exists.
    """
    from tracesight.errors import UserError

    paths: list[str] = []
    sets: dict[str, str] = {}
    keys: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or Path(argument).exists():
            paths.append(argument)
        elif key in ("train", "val"):
            sets[key] = value
        else:
            keys.append(argument)
    if len(paths) > 1:
        raise UserError(f"{paths[1]}: a second place of data; a run has one, given as DATA or as train=… val=…")
    if paths and sets:
        raise UserError(f"{paths[0]}: give the data either as DATA or as train=… val=…, not both")
    if not paths and not sets:
        raise UserError("no data: name a folder with train and val, a COCO file, or train=… val=…")
    return (paths[0] if paths else sets), keys
