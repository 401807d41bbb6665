"""`tracesight data manifest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tracesight.data.manifest import Asked
    from tracesight.lineage.manifest import Manifest

_SHOWN = 20  # files of a kind that are listed


def manifest(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Labelled pictures: a data folder or a label file.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Receives the manifest, a JSON file.")] = None,
    croissant: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Receives Croissant 1.1 JSON-LD that rests on --out.")
    ] = None,
    published: Annotated[
        str | None, typer.Option(metavar="DATE", help="When the data was published, YYYY-MM-DD, for --croissant.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Say which files differ from this manifest; every one is read.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="How DATA is labelled. Default: recognised.")] = None,
    title: Annotated[str | None, typer.Option(help="What the data is called.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the data as a whole, best an SPDX name.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the data as a whole comes from.")] = None,
    controller: Annotated[str | None, typer.Option(help="Who answers for the data.")] = None,
    with_names: Annotated[bool, typer.Option("--with-names", help="Annotators by name, not by pseudonym.")] = False,
    with_serial: Annotated[bool, typer.Option("--with-serial", help="Serial numbers of cameras.")] = False,
    with_location: Annotated[bool, typer.Option("--with-location", help="Where pictures were taken.")] = False,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Secret that pseudonyms are made with: 16 bytes or more.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary, or what differs, as JSON.")] = False,
) -> None:
    """Name every picture and label file by its SHA-256, and the whole of them by Merkle roots.

    Says what is known of licences, sensors, annotators and tools. Files that have not changed since the last time are
    not read again. The same data gives the same roots wherever and in whatever order it lies.
    """
    from tracesight.cli.show import print_json
    from tracesight.errors import UserError

    if verify is not None:
        _verify(data, verify, format, as_json)
        return
    if croissant is not None and out is None:
        raise UserError("--croissant: needs --out FILE too, since it names that file by its digest")
    if published is not None and not _is_date(published):
        raise UserError(f"--published {published}: a date like 2024-05-06")
    asked = _asked(title, controller, licence, source, key, with_names, with_serial, with_location)
    made, base = _make(data, out, format, asked)
    if croissant is not None and out is not None:
        _croissant(made, base, out, croissant, _is_coco(data, format), published)
    if as_json:
        head = made.model_dump(mode="json", exclude_none=True, exclude={"pictures", "label_files"})
        print_json({"out": None if out is None else str(out), **head})
    else:
        typer.echo("\n".join(_lines(made, [path for path in (out, croissant) if path is not None])))


def _asked(
    title: str | None, controller: str | None, licence: str | None, source: str | None, key: Path | None,
    names: bool, serial: bool, location: bool,
) -> Asked:  # fmt: skip
    from tracesight.data.manifest import Asked
    from tracesight.lineage.pseudonym import read_key

    secret = None if key is None else read_key(key)
    return Asked(title, controller, licence, source, secret, names, serial, location)


def _make(data: Path, out: Path | None, format: str | None, asked: Asked) -> tuple[Manifest, Path]:
    """The manifest, written where it shall be, and what its names are relative to."""
    from tracesight.cli.show import steps
    from tracesight.data.formats import read_sets
    from tracesight.data.manifest import base_of, manifest_of
    from tracesight.data.many import no_collection

    with no_collection():
        sets, findings = read_sets(data, format)
        base = base_of(data, sets)
        with steps("read files") as progress:
            made = manifest_of(sets, base, asked, findings, processes=True, progress=progress)
        if out is not None:
            _write(out, made.dump())
    return made, base


def _is_coco(data: Path, format: str | None) -> bool:
    from tracesight.data.formats import FORMATS
    from tracesight.data.formats.places import places_of

    return all(place.format == "coco" for place in places_of(data, FORMATS, format).values())


def _croissant(made: Manifest, base: Path, out: Path, file: Path, coco: bool, published: str | None) -> None:
    import json
    import os

    from tracesight.cli.show import note
    from tracesight.lineage.croissant import croissant, missing
    from tracesight.lineage.digest import file_digest

    folder = file.resolve().parent
    url = Path(os.path.relpath(out.resolve(), folder)).as_posix()
    way = os.path.relpath(base.resolve(), folder)
    prefix = "" if way == "." else f"{Path(way).as_posix()}/"
    found = croissant(made, url=url, sha256=file_digest(out), prefix=prefix, coco=coco, published=published)
    _write(file, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    lacking = missing(made, published)
    if lacking:
        note(f"note: Croissant asks for more: {', '.join(lacking)}")


def _lines(made: Manifest, written: list[Path]) -> list[str]:
    """The summary for people."""
    names = {category.id: category.name for category in made.categories}
    lines = []
    for split, count in made.splits.items():
        lines.append(f"{split}: {count.pictures} pictures, {count.objects} objects")
        lines += [f"  {names.get(i, i)}: {c.objects} objects on {c.pictures}" for i, c in count.categories.items()]
    for what, rows in (
        ("licence", made.licences),
        ("tool", made.tools),
        ("annotator", {one.id: one.objects for one in made.annotators}),
        ("sensor", {" ".join(filter(None, (s.make, s.model, s.about))): s.pictures for s in made.sensors}),
        ("finding", made.findings),
    ):
        lines += [f"{what}: {name}, {count}" for name, count in list(rows.items())[:_SHOWN]]
        lines += [f"{what}: {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []
    for name, value in made.roots.model_dump().items():
        lines.append(f"root of {name.replace('_', ' ')}: {value}")
    return [*lines, *(f"written: {path}" for path in written)]


def _verify(data: Path, file: Path, format: str | None, as_json: bool) -> None:
    from tracesight.cli.show import note, print_json, steps
    from tracesight.data.formats import read_sets
    from tracesight.data.manifest import base_of, names_of, verify
    from tracesight.errors import PartialFailure, UserError
    from tracesight.lineage.manifest import load_manifest

    known, names, base = load_manifest(file), [], data
    if not data.exists():
        raise UserError(f"{data}: no such file or folder")
    try:
        sets, _ = read_sets(data, format)
        base = base_of(data, sets)
        names = names_of(sets, base)
    except UserError as error:
        if not data.is_dir():
            raise
        note(f"note: files that were added are not looked for: {error}")
    with steps("read files") as progress:
        found = verify(known, base, names, progress)
    if as_json:
        print_json({"files": len(known.by_name), **found})
    else:
        for what, rows in found.items():
            for name in rows[:_SHOWN]:
                typer.echo(f"{what}: {name}")
            if len(rows) > _SHOWN:
                typer.echo(f"{what}: {len(rows) - _SHOWN} more")
    if any(found.values()):
        counts = ", ".join(f"{len(rows)} {what}" for what, rows in found.items() if rows)
        raise PartialFailure(f"{data}: differs from {file}: {counts}")
    if not as_json:
        typer.echo(f"the same: {len(known.by_name)} files, every one read")


def _is_date(text: str) -> bool:
    from datetime import date

    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _write(path: Path, text: str) -> None:
    from tracesight.errors import UserError
    from tracesight.scene.values import write_whole

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); name another file") from None
