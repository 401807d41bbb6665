"""`tracesight data check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tracesight.data.checks.everything import Report
    from tracesight.data.dataset import Dataset
    from tracesight.data.finding import Finding, Kind
    from tracesight.data.fix import Fixed

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def check(
    data: Annotated[
        list[str], typer.Argument(metavar="DATA", help="A data folder, a label file, or train=… val=… test=….")
    ],
    format: Annotated[str | None, typer.Option(help="How DATA is labelled. Default: recognised.")] = None,
    fix: Annotated[
        Path | None, typer.Option(metavar="DST", help="New or empty folder that receives a corrected copy.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that receives report.html and findings.json.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help="What must not be in two sets, as in `data split`: folder, regex, or a .csv."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes. Default: one a core. 0: none beside.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Decode every picture, also those known from before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
) -> None:
    """Look at every picture and label, and say what is wrong with them and what to do.

    Exit status 0: no errors (or all put right by --fix), 1: errors, 2: DATA could not be read. Nothing in DATA is
    altered.
    """
    from tracesight.cli.show import bars, print_json
    from tracesight.data.checks.everything import check as check_sets
    from tracesight.data.fix import write_fixed
    from tracesight.data.formats import read_sets
    from tracesight.data.units import with_groups

    place = _place(data)
    if fix is not None:
        _refuse_folder(fix, place)
    if out is not None:
        _make_folder(out)
    sets, found = read_sets(place, format)
    sets = with_groups(sets, group_by)
    with bars() as tell:
        report = check_sets(
            sets, found, workers=workers, progress=tell, fresh=fresh, mend_warnings=fix is not None
        )  # fmt: skip
    fixed = write_fixed(place, report, fix, format) if fix is not None else None
    facts = _facts(place, sets, report, fix, fixed)
    if out is not None:
        _write(out, facts, sets, report)
    if as_json:
        print_json(facts)
    else:
        _print(facts, report, fixed, fix, out)
    if facts["errors"] and fix is None:
        raise typer.Exit(1)


def _place(arguments: list[str]) -> str | dict[str, str]:
    from tracesight.cli.train import split_arguments
    from tracesight.errors import UserError

    sets = dict(argument.split("=", 1) for argument in arguments if argument.startswith("test="))
    place, keys = split_arguments([argument for argument in arguments if not argument.startswith("test=")])
    if keys:
        raise UserError(f"{keys[0]}: neither a file or folder, nor train=…, val=… or test=…")
    if sets and isinstance(place, str):
        raise UserError(f"{place}: give the data either as DATA or as train=… val=… test=…, not both")
    return {**place, **sets} if isinstance(place, dict) else place


def _refuse_folder(folder: Path, place: str | dict[str, str]) -> None:
    """Before an hour of checking rather than after it."""
    from tracesight.errors import UserError

    for source in [place] if isinstance(place, str) else place.values():
        if Path(source).is_dir() and folder.resolve().is_relative_to(Path(source).resolve()):
            raise UserError(f"{folder}: lies inside {source}; name a folder beside it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not an empty folder; name a new one")
    parent = next(parent for parent in folder.absolute().parents if parent.exists())
    if not os.access(parent, os.W_OK):
        raise UserError(f"{folder}: nothing can be written in {parent}; name another folder")


def _make_folder(folder: Path) -> None:
    from tracesight.errors import UserError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "nothing can be written in it")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); name another folder") from None


def _facts(
    place: str | dict[str, str], sets: dict[str, Dataset], report: Report, fix: Path | None, fixed: Fixed | None
) -> dict[str, Any]:
    """All that is known, as JSON has it."""
    facts: dict[str, Any] = {
        "format": "tracesight findings",
        "version": 1,
        "data": place,
        "sets": {name: _counts(dataset) for name, dataset in sets.items()},
        **{f"{severity}s": report.count(severity) for severity in ("error", "warning", "note")},
        "kinds": [_kind(kind, len(findings)) for kind, findings in report.by_kind()],
        "findings": [_finding(finding) for finding in report.findings],
    }
    if fixed is not None:
        facts["fixed"] = {
            "folder": str(fix), "format": fixed.format, "changes": fixed.counts, "left": fixed.left, "lost": fixed.lost,
        }  # fmt: skip
    return facts


def _counts(dataset: Dataset) -> dict[str, int]:
    objects = sum(len(record.annotations) for record in dataset)
    return {"pictures": len(dataset), "objects": objects, "categories": len(dataset.categories)}


def _kind(kind: Kind, count: int) -> dict[str, Any]:
    return {
        "code": kind.code, "severity": kind.severity, "count": count, "title": kind.title, "remedy": kind.remedy,
        "fix": kind.fix,
    }  # fmt: skip


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.kind.code,
        "severity": finding.kind.severity,
        "split": finding.split,
        "where": finding.where,
        "message": finding.message,
        "remedy": finding.remedy or finding.kind.remedy,
        "picture": None if finding.picture is None else str(finding.picture),
        "annotation": finding.annotation,
        "box": finding.box,
        "other": None if finding.other is None else str(finding.other),
    }


def _write(out: Path, facts: dict[str, Any], sets: dict[str, Dataset], report: Report) -> None:
    import json

    from tracesight.report.checks import write_check_page
    from tracesight.scene.values import write_whole

    write_whole(out / "findings.json", json.dumps(facts, indent=1, ensure_ascii=False))
    write_check_page(out / "report.html", facts, sets, report)


def _print(facts: dict[str, Any], report: Report, fixed: Fixed | None, fix: Path | None, out: Path | None) -> None:
    from rich.console import Console
    from rich.text import Text

    console, kinds = Console(highlight=False, soft_wrap=True), report.by_kind()
    widest = max((len(kind.code) for kind, _ in kinds), default=0)
    most = max((len(str(len(findings))) for _, findings in kinds), default=0)
    for kind, findings in kinds:
        row = f"  {kind.code:{widest}}  {len(findings):{most}}  {kind.title}"
        console.print(Text(f"{kind.severity:7}", _COLOURS[kind.severity]) + Text(row))
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        console.print(Text(f"    {_brief(findings[0])}{more}"))
        console.print(Text(f"    → {kind.remedy}" + (f"; --fix: {kind.fix}" if kind.fix else ""), "dim"))
    pictures = sum(counts["pictures"] for counts in facts["sets"].values())
    typer.echo(
        f"{_plural(facts['errors'], 'error')}, {_plural(facts['warnings'], 'warning')}, "
        f"{_plural(facts['notes'], 'note')} in {_plural(pictures, 'picture')}"
    )
    if out is not None:
        typer.echo(f"report: {out / 'report.html'}")
    if fixed is not None:
        _print_fixed(fixed, fix)


def _print_fixed(fixed: Fixed, fix: Path | None) -> None:
    typer.echo(
        f"fixed:  {fix} ({fixed.format}), {_plural(sum(fixed.counts.values()), 'change')} listed in changes.json"
    )
    if fixed.left:
        left = ", ".join(f"{count} {code}" for code, count in fixed.left.items())
        typer.echo(f"left to you: {left}")
    for line in fixed.lost:
        typer.echo(f"lost: {line}")


def _brief(finding: Finding) -> str:
    """One line, in which a path is no longer than its last two parts."""
    head, separator, rest = finding.where.partition(": ")
    path = Path(head)
    return f"{Path(*path.parts[-2:])}{separator}{rest}: {finding.message}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
