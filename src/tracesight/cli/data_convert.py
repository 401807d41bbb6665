"""`tracesight data convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Labelled pictures: a data folder or a label file.")],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="New or empty folder that receives pictures and labels.")
    ],
    format: Annotated[
        str, typer.Option(help="How DST is labelled: coco, voc, yolo, labelme, and others that docs/formats.md lists.")
    ],
    from_format: Annotated[str | None, typer.Option("--from", help="How SRC is labelled. Default: recognised.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Code of errors in SRC to put right or leave out, not to refuse.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Write labelled pictures in another format, and say what it has no place for.

    Every set (train, val, test) is written. Pictures are copied byte for byte.
    """
    from tracesight.cli.show import note, print_json
    from tracesight.data.finding import refuse
    from tracesight.data.formats import read_sets, write_sets
    from tracesight.errors import UserError

    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target}: lies inside {source}; name a folder beside it")
    sets, findings = read_sets(source, from_format)
    refuse(findings, allow or ())
    notes = list(dict.fromkeys(line for dataset in sets.values() for line in dataset.notes))
    lost = write_sets(sets, target, format)
    counts = {name: (len(dataset), sum(len(r.annotations) for r in dataset)) for name, dataset in sets.items()}
    if as_json:
        numbers = {name: {"pictures": pictures, "objects": objects} for name, (pictures, objects) in counts.items()}
        print_json({"format": format, "folder": str(target), "sets": numbers, "lost": lost, "notes": notes})
        return
    for line in notes:
        note(f"note: {line}")
    for name, (pictures, objects) in counts.items():
        typer.echo(f"{name}: {pictures} pictures, {objects} objects")
    for line in lost:
        typer.echo(f"lost: {line}")
    typer.echo(f"written: {target} ({format})")
