"""Work that is shared by processes: a few tasks under way at a time, results in order, an end that leaves nothing."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Protocol

from tracesight.errors import PartialFailure

Work = Callable[[Any], Any]

_AHEAD = 4  # tasks a process has under way or ready


class Share(Protocol):
    """The results of `work(task)`, in the order of tasks. many: they are worth starting processes for."""

    def __call__(self, work: Work, tasks: Iterable[Any], *, many: bool) -> Iterator[Any]: ...


def all_cores() -> int:
    """How many processes this one may run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def crew(workers: int) -> Iterator[Share]:
    """`workers` processes that share tasks; fewer than two are this one.

    They start with the first tasks that are many. A few tasks are under way from then on, and others are drawn as
    results are taken, so that neither fills the memory. Raises PartialFailure where one of them has died.
    """
    pools: list[ProcessPoolExecutor] = []

    def share(work: Work, tasks: Iterable[Any], *, many: bool) -> Iterator[Any]:
        if many and workers > 1 and not pools:
            with _no_interrupt():  # which would end them before they are settled
                pools.append(ProcessPoolExecutor(workers, initializer=_settle))
                for _ in range(workers):
                    pools[0].submit(os.getpid)
        return _in_order(pools[0], _AHEAD * workers, work, tasks) if pools else map(work, tasks)

    try:
        yield share
    finally:  # also on Ctrl-C: what has not begun is dropped, and what has takes a moment
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, most: int, work: Work, tasks: Iterable[Any]) -> Iterator[Any]:
    ahead: deque[Future[Any]] = deque()
    rest = iter(tasks)

    def fill() -> None:
        for task in islice(rest, most - len(ahead)):
            ahead.append(pool.submit(work, task))

    def results() -> Iterator[Any]:
        try:
            while ahead:
                yield ahead.popleft().result()
                fill()
        except BrokenProcessPool:
            raise PartialFailure("a process that reads pictures has died (out of memory?); take --workers 0") from None

    fill()  # at once: whoever asks for the results later has them done meanwhile
    return results()


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C waits until the end of the block, and for processes that are started in it for good."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle() -> None:
    """Signals reach the whole group of processes: the first one ends the others, in its own time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # what was there before a fork is not looked through again
