"""`tracesight demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder that receives everything; must be new or empty.")] = Path(
        "tracesight-demo"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Make pictures, train on them, evaluate, predict and write the report: the main job in a few minutes."""
    from tracesight.cli.show import print_json
    from tracesight.recipes.demo import run_demo

    metrics = run_demo(out)
    if as_json:
        print_json(metrics)
