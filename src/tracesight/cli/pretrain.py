"""`tracesight pretrain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA [KEY=VALUE]...",
            help="A folder of pictures, any labelled data, or train=… val=…; then keys of the recipe: lr=0.03.",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="moco-v1, moco-v2, moco-v3 or mae; the paper's numbers are its preset.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that receives bundles, figures and the report.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with keys of the recipe.")] = None,
    preset: Annotated[str | None, typer.Option(help="A packaged set of keys in the place of the method's own.")] = None,
    format: Annotated[str | None, typer.Option(help="How DATA is labelled. Default: recognised.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Pretrain an encoder on pictures without labels; `train --init` then begins from its bundle.

    Keys given as key=value win over those of --config, which win over those of --preset. Where pictures have labels as
    wholes, they serve to judge the features while they are learnt (kNN), and for nothing else.
    """
    from tracesight.cli.show import print_json
    from tracesight.cli.train import split_arguments
    from tracesight.errors import UserError
    from tracesight.models.methods import METHODS
    from tracesight.recipes import pretrain as recipe
    from tracesight.training.config import resolve

    if method is None and preset is None and config is None:
        raise UserError(f"--method is missing: {', '.join(METHODS)}")
    if method is not None and method not in METHODS:
        raise UserError(f"--method {method}: {', '.join(METHODS)}")
    if out is None:
        raise UserError("--out is missing: the folder that receives bundles, figures and the report")
    place, keys = split_arguments(data or [])
    keys = [*([] if method is None else [f"method={method}"]), *keys]
    resolved = resolve(recipe.Config, preset or _own_preset(method, keys), config, keys)
    metrics = recipe.train(resolved, place, out, resume=resume, format=format)
    if os.environ.get("RANK", "0") != "0":
        return  # the first rank tells
    if as_json:
        print_json(metrics)
        return
    if "knn" in metrics:
        knn = metrics["knn"]
        typer.echo(f"kNN top-1: {knn['top1']:.3f} ({knn['k']} neighbours among {knn['bank']} pictures)")
    typer.echo(
        f"report: {out / 'report.html'}\n"
        f"next:   tracesight train --task classify DATA --out RUN --init {out / 'best'}\n"
        f"        tracesight probe {out / 'best'} DATA --out probes"
    )


def _own_preset(method: str | None, keys: list[str]) -> str | None:
    """The paper's numbers for a method: those of MoCo v3 are others for vision transformers."""
    transformer = any(key.startswith("model=vit_") for key in keys)
    return "moco-v3-vit" if method == "moco-v3" and transformer else method
