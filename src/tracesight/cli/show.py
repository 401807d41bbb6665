"""What commands share: progress on standard error while there is a terminal, and JSON on standard output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def note(line: str) -> None:
    """One line on standard error, so that standard output stays clean for `--json` and pipes."""
    typer.echo(line, err=True)


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars while a terminal is there, one a title; the yielded function is told (title, steps done, steps)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console, tasks = Console(stderr=True), dict[str, TaskID]()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:

        def tell(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = shown.add_task(title, total=total)
            shown.update(tasks[title], completed=done)

        yield tell


@contextmanager
def progress(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A bar while a terminal is there, unless `quiet`; the yielded function is called after each of `total` steps."""
    with _bar(quiet) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def steps(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """The same for what says (steps done, steps) itself, and so often that only every twentieth second is shown.

    Yields None where there is no terminal.
    """
    with _bar() as bar:
        if bar.disable:
            yield None
            return
        task, shown = bar.add_task(title, total=None), 0.0

        def update(done: int, total: int) -> None:
            nonlocal shown
            if done == total or time.monotonic() - shown > 0.05:
                shown = time.monotonic()
                bar.update(task, completed=done, total=total)

        yield update


def _bar(quiet: bool = False) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)
