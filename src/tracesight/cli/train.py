"""`tracesight train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA [KEY=VALUE]...",
            help="A folder with train and val, a COCO file, or train=… val=…; then keys of the recipe: lr=0.01.",
        ),
    ],
    task: Annotated[str, typer.Option(help="detect (boxes) or segment (boxes and masks).")],
    out: Annotated[Path, typer.Option(help="Folder that receives bundles, figures and the report.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with keys of the recipe.")] = None,
    preset: Annotated[str | None, typer.Option(help="A packaged set of keys, such as cpu or gpu.")] = None,
    init: Annotated[Path | None, typer.Option(help="Bundle whose weights the training begins from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Train a detector or instance segmenter on labelled pictures.

    Keys given as key=value win over those of --config, which win over those of --preset.
    """
    from tracesight import evaluation
    from tracesight.cli.show import print_json
    from tracesight.errors import UserError
    from tracesight.recipes import detect
    from tracesight.training.config import resolve

    if task not in ("detect", "segment"):
        raise UserError(f"--task {task}: use detect or segment")
    place, keys = split_arguments(data)
    resolved = detect.for_task(resolve(detect.Config, preset, config, keys), task)
    metrics = detect.train(resolved, place, out, init=init, resume=resume)
    if as_json:
        print_json(metrics)
    else:
        if "bbox" in metrics:
            typer.echo(evaluation.table(metrics))
        typer.echo(f"report: {out / 'report.html'}\nnext:   tracesight predict {out / 'best'} PICTURES --out DIR")


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
