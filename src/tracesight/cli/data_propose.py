"""`tracesight data propose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def propose(
    data: Annotated[list[str], typer.Argument(help="Data folders, pictures, folders of pictures and globs.")],
    out: Annotated[Path, typer.Option(help="File that receives the proposals, such as proposals.safetensors.")],
    most: Annotated[int, typer.Option(min=1, help="Most boxes a picture.")] = 2000,
    side: Annotated[int, typer.Option(min=32, help="Short side of the picture that is searched, in pixels.")] = 320,
    thorough: Annotated[bool, typer.Option("--thorough", help="The paper's quality mode, far slower.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle of an RPN or a detector that has one, instead of selective search.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Find boxes that may hold an object in every picture, for R-CNN and Fast R-CNN.

    By selective search (extra `proposals`), or by the region proposal network of a bundle.
    """
    from tracesight.cli.show import print_json, progress
    from tracesight.predict import find_pictures
    from tracesight.predict.propose import propose as make

    pictures = find_pictures(data)
    with progress("propose", len(pictures)) as advance:
        made = make(pictures, out, bundle, most=most, side=side, thorough=thorough, progress=advance)
    if as_json:
        facts = {"out": str(made.path), "pictures": len(made.pictures), "proposals": len(made.boxes)}
        print_json({**facts, "method": made.method, "sha256": made.digest})
    else:
        mean = len(made.boxes) / max(1, len(made.pictures))
        typer.echo(f"{len(made.boxes)} proposals for {len(made.pictures)} pictures ({mean:.0f} each): {made.path}")
