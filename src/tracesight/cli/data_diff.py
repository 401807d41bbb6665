"""`tracesight data diff`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tracesight.lineage.compare import Change
    from tracesight.lineage.manifest import Manifest

_SHOWN = 30  # changes


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="A data folder, a label file, or a manifest.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The same, in any format.")],
    tolerance: Annotated[float, typer.Option(min=0, help="Pixels that boxes and keypoints may lie apart.")] = 0.5,
    with_names: Annotated[bool, typer.Option("--with-names", help="Annotators by name, not by pseudonym.")] = False,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Secret that pseudonyms are made with.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where they differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every change as JSON.")] = False,
) -> None:
    """Say what changed from A to B: pictures, categories, boxes, masks, and by whom where the labels say it.

    Added, removed, moved to another split, renamed; boxes moved, objects relabelled. A copy in another format has no
    changes. Where A or B is a manifest, pictures, categories and which labels changed are told.
    """
    from tracesight.cli.show import note, print_json
    from tracesight.errors import PartialFailure

    changes, notes = _changes(before, after, tolerance, with_names, key)
    for line in notes:
        note(f"note: {line}")
    if as_json:
        print_json({"differ": bool(changes), "changes": [change.to_json() for change in changes]})
    else:
        typer.echo("\n".join(_lines(changes)))
    if exit_code and changes:
        raise PartialFailure(f"{before} and {after} differ: {len(changes)} changes")


def _changes(
    before: Path, after: Path, tolerance: float, with_names: bool, key: Path | None
) -> tuple[list[Change], list[str]]:
    from functools import partial

    from tracesight.data.diff import compare, pictures_root
    from tracesight.data.formats import read_sets
    from tracesight.lineage.compare import manifest_changes
    from tracesight.lineage.manifest import is_manifest
    from tracesight.lineage.pseudonym import pseudonym, read_key

    secret = None if key is None else read_key(key)
    if is_manifest(before) or is_manifest(after):
        return manifest_changes(_manifest(before, with_names, secret), _manifest(after, with_names, secret)), []
    old, new = read_sets(before)[0], read_sets(after)[0]
    called = str if with_names else partial(pseudonym, "annotator", key=secret or pictures_root(new))
    found = compare(old, new, tolerance, called)
    left_out = [line for sets in (old, new) for dataset in sets.values() for line in dataset.notes]
    return found.changes, [*dict.fromkeys(left_out), *found.notes]


def _manifest(path: Path, with_names: bool, key: bytes | None) -> Manifest:
    from tracesight.data.formats import read_sets
    from tracesight.data.manifest import Asked, base_of, manifest_of
    from tracesight.lineage.manifest import is_manifest, load_manifest

    if is_manifest(path):
        return load_manifest(path)
    sets, findings = read_sets(path)
    return manifest_of(sets, base_of(path, sets), Asked(names=with_names, key=key), findings, processes=True)


def _lines(changes: list[Change]) -> list[str]:
    """How many there are of each kind, then the first of them."""
    from collections import Counter

    counts: dict[str, Counter[str]] = {}
    for change in changes:
        counts.setdefault(change.what, Counter())[change.how] += 1
    lines = [f"{what}: " + ", ".join(f"{n} {how}" for how, n in kinds.items()) for what, kinds in counts.items()]
    lines += [f"  {change}" for change in changes[:_SHOWN]]
    lines += [f"  {len(changes) - _SHOWN} more in --json"] if len(changes) > _SHOWN else []
    return lines or ["no difference"]
