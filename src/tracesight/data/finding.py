"""What is wrong with data: a kind of fault, and one finding of it.

A reader finds what a label file says wrongly, a check what does not fit together. Both say where it is, what it is and
what to do; whether a finding stops anything is decided by who asked (`formats.read_dataset`, `tracesight data check`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tracesight.errors import UserError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    code: its name on the command line, such as "box-outside". severity: an "error" refuses a training unless it is
    allowed; a "warning" may be a fault or not, and is told; a "note" is good to know. title: what the faults are, in
    the plural, for tables. remedy: what a person does about one. fix: what `--fix` does, and a training where an error
    is allowed, as a past participle ("clipped", "removed"); None where only a person can. Every error has one.
    """

    code: str
    severity: Severity
    title: str
    remedy: str
    fix: str | None = None


@dataclass(frozen=True)
class Change:
    """What `Kind.fix` did to the labels: the fields that were other before, as JSON has them.

    before: the object or picture where it was removed. after: None where it was.
    """

    before: dict[str, Any]
    after: dict[str, Any] | None


@dataclass(frozen=True)
class Finding:
    """One fault. `str()` gives it in one line.

    where: the culprit, from the label file to the annotation. message: what is wrong with it. picture: the file of the
    picture it is on. annotation: the id. box: (x1, y1, x2, y2) in pixels of the upright picture, to show it by.
    change: what was done about it. remedy: what a person does, where that is another than the kind's. split: the name
    of the set it is in; None for what concerns several. other: the picture that it is compared with.
    """

    kind: Kind
    where: str
    message: str
    picture: Path | None = None
    annotation: int | str | None = None
    box: tuple[float, float, float, float] | None = None
    change: Change | None = None
    remedy: str | None = None
    split: str | None = None
    other: Path | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.message}; {self.remedy or self.kind.remedy}"


def refuse(findings: Iterable[Finding], allow: Sequence[str] = ()) -> None:
    """Raise UserError with the first error whose code is not allowed, and how many more there are."""
    errors = [f for f in findings if f.kind.severity == "error" and f.kind.code not in allow]
    if errors:
        more = f" (and {len(errors) - 1} more errors; `tracesight data check` lists them)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}")


def notes_of(findings: Iterable[Finding], name: str, *, mended: Sequence[Severity] = SEVERITIES) -> list[str]:
    """One sentence a kind: how many there were in the set called `name`, and what was done.

    mended: of which severities something was done at all.
    """
    counts = Counter(finding.kind for finding in findings)
    return [
        f"{name}: {count} {kind.title}{f', {kind.fix}' if kind.fix and kind.severity in mended else ''} ({kind.code})"
        for kind, count in sorted(counts.items(), key=lambda item: item[0].code)
    ]
