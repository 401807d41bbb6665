"""`tracesight probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracesight.cli.options import Device


def probe(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE... DATA [KEY=VALUE]...",
            help="Bundles of encoders or classifiers, then labelled pictures, or train=… val=…; then keys of the "
            "trained probe: epochs=90.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder that receives metrics.json and report.html.")],
    kind: Annotated[
        list[str] | None,
        typer.Option(help="knn, ridge (linear, in closed form), linear (trained). Default: knn and ridge."),
    ] = None,
    format: Annotated[str | None, typer.Option(help="How DATA is labelled. Default: recognised.")] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Judge features on labelled pictures, of one bundle or of several beside each other."""
    from tracesight.cli.show import print_json
    from tracesight.errors import UserError
    from tracesight.recipes import probe as recipe

    words = [word for word in arguments if "=" not in word or Path(word).exists()]
    given = [word for word in arguments if word not in words]
    sets = dict(word.split("=", 1) for word in given if word.startswith(("train=", "val=")))
    keys = [word for word in given if not word.startswith(("train=", "val="))]
    if len(words) + bool(sets) < 2:
        raise UserError("name bundles, then the labelled pictures: tracesight probe RUN/best DATA --out DIR")
    bundles, data = (words, sets) if sets else (words[:-1], words[-1])
    metrics = recipe.probe(
        bundles, data, out, kinds=kind or ("knn", "ridge"), keys=keys, format=format, device=device
    )  # fmt: skip
    if as_json:
        print_json(metrics)
        return
    for name, row in metrics["bundles"].items():
        figures = "  ".join(f"{key} {value:.4f}" for key, value in row.items() if isinstance(value, float))
        typer.echo(f"{name}  {figures}")
    typer.echo(f"report: {out / 'report.html'}")
