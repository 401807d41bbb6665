"""What is wrong with data: a kind of fault, and one finding of it.

A reader finds what a label file says wrongly, a check what does not fit together. Both say where it is, what it is and
what to do; whether a finding stops anything is decided by who asked (`formats.read_dataset`, `tracesight data check`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tracesight.errors import UserError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    code: its name on the command line, such as "box-outside". severity: an "error" refuses a training unless it is
    allowed; a "warning" is put right where that is possible, counted and told. title: what the faults are, in the
    plural, for tables. remedy: what a person does about one. fix: what is done without one, by `--fix` and wherever
    a finding does not stop anything, as a past participle ("clipped", "removed"); None where only a person can.
    """

    code: str
    severity: Severity
    title: str
    remedy: str
    fix: str | None = None


@dataclass(frozen=True)
class Finding:
    """One fault. `str()` gives it in one line.

    where: the culprit, from the label file to the annotation. message: what is wrong with it. picture: the file of the
    picture it is on. annotation: the id. box: (x1, y1, x2, y2) in pixels of the upright picture, to show it by.
    """

    kind: Kind
    where: str
    message: str
    picture: Path | None = None
    annotation: int | str | None = None
    box: tuple[float, float, float, float] | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.message}; {self.kind.remedy}"


def refuse(findings: Iterable[Finding], allow: Sequence[str] = ()) -> None:
    """Raise UserError with the first error whose code is not allowed, and how many more there are."""
    errors = [f for f in findings if f.kind.severity == "error" and f.kind.code not in allow]
    if errors:
        more = f" (and {len(errors) - 1} more errors; `tracesight data check` lists them)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}")


def notes_of(findings: Iterable[Finding], name: str) -> list[str]:
    """One sentence a kind: how many there were in the set called `name`, and what was done."""
    counts = Counter(finding.kind for finding in findings)
    return [
        f"{name}: {count} {kind.title}{f', {kind.fix}' if kind.fix else ''} ({kind.code})"
        for kind, count in sorted(counts.items(), key=lambda item: item[0].code)
    ]
