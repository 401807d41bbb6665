"""What a long job says while it runs: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

if sys.platform != "win32":
    import resource

Say = Callable[[str], None]
Memory = Callable[[], int | None]

REFRESH = 0.5  # seconds between two readings of the facts beside a bar


class Display:
    """Lines and progress on standard error, or through `say` wherever the caller wants them.

    Args:
        say: receives every line; None prints on standard error, with a bar if that is a terminal.
        interval: seconds between two lines where there is no bar.
        quiet: say nothing and show no bar; for all ranks but the first.
    """

    def __init__(self, say: Say | None = None, interval: float = 15.0, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bar = say is None and not quiet and live
        self._bars: Progress | None = None  # while a job shows one
        self._jobs: list[Job] = []  # under way, the innermost last
        self._say = say
        self.interval = interval
        self.quiet = quiet

    def say(self, line: str) -> None:
        """One line."""
        if self.quiet:
            return
        if self._say is not None:
            self._say(line)
        elif self._bar:
            self._console.print(line, markup=False)
        else:
            # A reader that has gone away, or a log on a full disk, is no reason to end a training.
            with contextlib.suppress(OSError):
                print(line, file=sys.stderr, flush=True)

    @contextmanager
    def job(self, title: str, total: int, start: int = 0, memory: Memory | None = None) -> Iterator[Job]:
        """A piece of work of `total` steps, `start` of them done already; it may be part of another one.

        Args:
            memory: bytes to show, such as `partial(peak_memory, device)`; None shows none.
        """
        if not self._bar:
            with self._nested(Job(self, title, total, start, memory)) as job:
                yield job
            return
        with self._live() as bars:
            task = bars.add_task(title, total=total, completed=start, facts="")
            try:
                with self._nested(Job(self, title, total, start, memory, (bars, task))) as job:
                    yield job
            finally:
                bars.remove_task(task)

    @contextmanager
    def _nested(self, job: Job) -> Iterator[Job]:
        """`job`, whose time is not counted as a step of the job that it is part of."""
        began = time.monotonic()
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._jobs.remove(job)
            if self._jobs:
                self._jobs[-1].aside(time.monotonic() - began)

    @contextmanager
    def _live(self) -> Iterator[Progress]:
        """The bars on the terminal: one display for all jobs, since a console has one at a time."""
        if self._bars is not None:
            yield self._bars
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            # On a narrow terminal the facts take two lines rather than being cut.
            TextColumn("{task.fields[facts]}", markup=False, table_column=Column(no_wrap=False)),
        )
        with Progress(*columns, console=self._console, transient=True) as bars:
            self._bars = bars
            try:
                yield bars
            finally:
                self._bars = None


class Job:
    """The progress of one piece of work: how far, how fast, what it waits for, and when it will be done.

    All of it is measured on the monotonic clock; the wall clock is read only to name the time of the end.
    """

    def __init__(
        self,
        display: Display,
        title: str,
        total: int,
        start: int,
        memory: Memory | None = None,
        bar: tuple[Progress, TaskID] | None = None,
    ) -> None:
        self.display, self.title, self.total, self.done = display, title, total, start
        self._memory, self._bar = memory, bar
        self._told = self._marked = time.monotonic()
        self._pace: float | None = None  # seconds a step
        self._waiting = 0.0
        self._asides: list[tuple[int, float]] = []  # step and seconds of what was done beside the steps
        self._start = start

    def advance(self, waited: float = 0.0, **facts: float) -> None:
        """One step is done; it waited `waited` seconds for data. `facts` are shown with three digits."""
        now = time.monotonic()
        took, self._marked = now - self._marked, now
        self.done += 1
        # The first step warms up caches and would spoil the average.
        if self.done > self._start + 1:
            self._pace = took if self._pace is None else 0.95 * self._pace + 0.05 * took
            self._waiting = 0.95 * self._waiting + 0.05 * waited
        if self.display.quiet:
            return
        if self._bar is not None:
            bars, task = self._bar
            bars.update(task, completed=self.done)
        if now - self._told < (self.display.interval if self._bar is None else REFRESH):
            return
        self._told = now
        if self._bar is not None:
            bars, task = self._bar
            bars.update(task, facts=self._facts(facts))
        else:
            self.display.say(f"{self.title} {self.done}/{self.total}  {self._facts(facts)}".rstrip())

    def aside(self, seconds: float) -> None:
        """So long something else was done, such as validation: it is left out of the pace, but not of the end."""
        self._marked += seconds
        self._asides.append((self.done + 1, seconds))

    def _facts(self, facts: dict[str, float]) -> str:
        parts = [f"{name} {value:.3g}" for name, value in facts.items()]
        if self._pace:
            parts.append(f"{1 / self._pace:.2f} steps/s" if self._pace < 10 else f"{self._pace:.0f} s a step")
            if (share := self._waiting / self._pace) >= 0.005:
                parts.append(f"data wait {min(1.0, share):.0%}")
        if self._memory is not None and (held := self._memory()) is not None:
            parts.append(_size(held))
        if self._pace:
            left = (self.total - self.done) * (self._pace + self._beside())
            parts.append(f"{_duration(left)} left{_end(left)}")
        return "  ".join(parts)

    def _beside(self) -> float:
        """Seconds a step for what is done beside the steps, if that goes on as often as it was done so far."""
        if not self._asides:
            return 0.0
        (first, alone), *others = self._asides
        if others and others[-1][0] > first:
            return sum(seconds for _, seconds in others) / (others[-1][0] - first)
        return (alone + sum(seconds for _, seconds in others)) / first


def peak_memory(device: torch.device) -> int | None:
    """Most bytes held so far: on a GPU by tensors, elsewhere by this process as resident memory; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    # getrusage(2) counts in KiB, but in bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _size(held: int) -> str:
    return f"{held / 1e9:.1f} GB" if held >= 0.95e9 else f"{held / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{seconds // 60}:{seconds % 60:02d}"


def _end(left: float) -> str:
    """At what time `left` seconds are over: ", ends 14:32", with the day if it is not today."""
    if left <= 0:
        return ""
    try:
        now = time.time()
        today, end = datetime.fromtimestamp(now).date(), datetime.fromtimestamp(now + left)
    except (OverflowError, ValueError, OSError):  # no calendar reaches so far
        return ""
    days = (end.date() - today).days
    day = "" if days == 0 else f"{end:%a} " if days < 7 else f"{end:%Y-%m-%d} "
    return f", ends {day}{end:%H:%M}"
