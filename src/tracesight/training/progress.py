"""What a long job says while it runs: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

Say = Callable[[str], None]


class Display:
    """Lines and progress on standard error, or through `say` wherever the caller wants them.

    Args:
        say: receives every line; None prints on standard error, with a bar if that is a terminal.
        interval: seconds between two lines where there is no bar.
    """

    def __init__(self, say: Say | None = None, interval: float = 15.0) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = say is None and self._console.is_terminal
        self._say = say
        self.interval = interval

    def say(self, line: str) -> None:
        """One line."""
        if self._say is not None:
            self._say(line)
        elif self._bar:
            self._console.print(line, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def job(self, title: str, total: int, start: int = 0) -> Iterator[Job]:
        """A piece of work of `total` steps, `start` of them done already."""
        if not self._bar:
            yield Job(self, title, total, start)
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}")
        )  # fmt: skip
        with Progress(*columns, console=self._console, transient=True) as bar:
            yield Job(self, title, total, start, bar, bar.add_task(title, total=total, completed=start, facts=""))


class Job:
    """The progress of one piece of work: how far, how fast, what it waits for, and when it will be done."""

    def __init__(
        self, display: Display, title: str, total: int, start: int, bar: Progress | None = None, task: Any = None
    ) -> None:
        self.display, self.title, self.total, self.done = display, title, total, start
        self._bar: Progress | None = bar
        self._task: TaskID = task
        self._began = self._told = self._marked = time.monotonic()
        self._pace: float | None = None
        self._waiting = 0.0
        self._first = True

    def advance(self, waited: float = 0.0, **facts: float) -> None:
        """One step is done; it waited `waited` seconds for data. `facts` are shown with three digits."""
        now = time.monotonic()
        took, self._marked = now - self._marked, now
        self.done += 1
        # The first step warms up caches and would spoil the average.
        if self._first:
            self._first = False
        else:
            self._pace = took if self._pace is None else 0.95 * self._pace + 0.05 * took
            self._waiting = 0.95 * self._waiting + 0.05 * waited
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, facts=self._facts(facts))
        elif now - self._told >= self.display.interval:
            self._told = now
            self.display.say(f"{self.title} {self.done}/{self.total}  {self._facts(facts)}")

    def pause(self) -> None:
        """Time since the last step was something else, such as validation: leave it out of the pace."""
        self._marked = time.monotonic()

    def _facts(self, facts: dict[str, float]) -> str:
        parts = [f"{name} {value:.3g}" for name, value in facts.items()]
        if self._pace:
            parts.append(f"{1 / self._pace:.2f} steps/s")
            if (share := self._waiting / self._pace) >= 0.005:
                parts.append(f"data wait {min(1.0, share):.0%}")
            parts.append(f"{_duration((self.total - self.done) * self._pace)} left")
        return "  ".join(parts)


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{seconds // 60}:{seconds % 60:02d}"
