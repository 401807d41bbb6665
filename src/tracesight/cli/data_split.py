"""`tracesight data split`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

_SHOWN = 10  # notes


def split(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Labelled pictures: a data folder or a label file.")],
    out: Annotated[Path, typer.Option(metavar="DST", help="New folder that receives the parts and split.json.")],
    val: Annotated[float, typer.Option(help="Share of the pictures.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the pictures.")] = 0.0,
    folds: Annotated[
        int | None, typer.Option(help="Write fold1, fold2, …, each with its own val; in place of --val and --test.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other parts.")] = 0,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="What must stay together: folder; a regular expression for names; a .csv with name and group. "
            "Default: groups that the labels have.",
        ),
    ] = None,
    near: Annotated[
        int, typer.Option(help="Pictures whose perceptual hashes differ in so few of 256 bits stay together. -1: off.")
    ] = 40,
    list_only: Annotated[bool, typer.Option("--list", help="Write split.json only; copy nothing.")] = False,
    format: Annotated[str | None, typer.Option(help="How DATA is labelled, and DST too. Default: recognised.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Code of errors in DATA to put right or leave out, not to refuse.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts and notes as JSON.")] = False,
) -> None:
    """Divide labelled pictures into train, val and test, or into folds.

    Each part gets its share of the pictures, of every class, and of its objects. No group is parted, nor are copies or
    pictures that look the same. The same seed and pictures give the same parts. What is divided already is joined
    first.
    """
    from tracesight.cli.show import print_json, steps
    from tracesight.data.finding import refuse
    from tracesight.data.formats import FORMATS, read_sets
    from tracesight.data.formats.places import places_of
    from tracesight.data.parts import description, merged, split_dataset, write_split
    from tracesight.errors import UserError

    shares = _shares(val, test, folds)
    if out.resolve().is_relative_to(data.resolve()):
        raise UserError(f"{out}: lies inside {data}; name a folder beside it")
    format = next(iter(places_of(data, FORMATS, format).values())).format
    sets, findings = read_sets(data, format)
    refuse(findings, allow or ())
    dataset = merged(sets, data)
    with steps("compare pictures") as progress:
        parted = split_dataset(
            dataset, shares, seed, group_by=group_by, near=None if near < 0 else near, progress=progress
        )
    document = description(parted, seed, shares, None if near < 0 else near)
    lost = write_split(parted, out, document, None if list_only else format, folds is not None)
    notes = [*dataset.notes, *parted.notes]
    if as_json:
        head = {key: value for key, value in document.items() if key != "pictures"}
        print_json({"out": str(out), **head, "notes": notes, "lost": lost})
        return
    _print(document, notes, lost)
    typer.echo(f"written: {out / 'split.json' if list_only else out}")


def _print(document: Mapping[str, Any], notes: Sequence[str], lost: Sequence[str]) -> None:
    from tracesight.cli.show import note

    for line in notes[:_SHOWN]:
        note(f"note: {line}")
    if len(notes) > _SHOWN:
        note(f"note: {len(notes) - _SHOWN} more in --json")
    for name, count in document["parts"].items():
        typer.echo(f"{name}: {count['pictures']} pictures, {count['objects']} objects")
    for line in lost:
        typer.echo(f"lost: {line}")


def _shares(val: float, test: float, folds: int | None) -> dict[str, float]:
    from tracesight.errors import UserError

    if folds is not None:
        if folds < 2 or test:
            raise UserError(f"--folds {folds}: needs 2 or more" if folds < 2 else "--folds: cannot go with --test")
        return {f"fold{number}": 1 / folds for number in range(1, folds + 1)}
    if not (0 <= val < 1 and 0 <= test < 1 and 0 < val + test < 1):
        raise UserError(f"--val {val:g} --test {test:g}: shares of 0 or more, of which something remains for train")
    return {name: share for name, share in (("train", 1 - val - test), ("val", val), ("test", test)) if share}
