"""`tracesight models`."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer


def models(as_json: Annotated[bool, typer.Option("--json", help="Print a list as JSON.")] = False) -> None:
    """List the networks that can be built, with parameters, paper, and sources of weights."""
    from tracesight.cli.show import print_json

    rows = _rows()
    if as_json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("weights")
    table.add_column("paper", no_wrap=True, ratio=1)  # the one that is cut where the terminal is narrow
    for row in rows:
        table.add_row(row["name"], f"{row['parameters'] / 1e6:.1f} M", ", ".join(row["weights"]), row["paper"])
    Console().print(table)


@cache
def _rows() -> list[dict[str, Any]]:
    """Counted on the meta device, where a network takes no memory; frozen norms are no parameters."""
    import torch

    from tracesight.models.build import CATALOGUE, build

    rows = []
    for name, entry in CATALOGUE.items():
        with torch.device("meta"):
            model = build(name)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        rows.append({"name": name, "parameters": parameters, "paper": entry.paper, "weights": list(entry.weights)})
    return rows
