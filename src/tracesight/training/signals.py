"""Ctrl-C and a scheduler's SIGTERM: the run stops where its state is whole, is saved, and says so."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from tracesight.errors import Interrupted

# What asks a process to end: Ctrl-C, a scheduler, a terminal that closes.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stop:
    """Whether somebody has asked this process to end.

    Outside `whole()` the asking raises `Interrupted` at once: forward, backward, validation and waiting for data can be
    left at any point, since they change no weight. Inside it is put off to the end of the block. Where ranks must
    agree on the step at which they stop, `at_once` is False and the run asks `asked` between steps.
    """

    def __init__(self, at_once: bool) -> None:
        self.asked: int | None = None  # number of the signal
        self._at_once = at_once
        self._depth = 0

    def take(self, number: int, frame: FrameType | None = None) -> None:
        """The handler. A second Ctrl-C does not wait for anything."""
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.asked = self.asked is None, number
        if first and self._at_once and not self._depth:
            raise Interrupted(number)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """What happens in this block happens whole: the update of the weights, the writing of a file."""
        before = self.asked
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._at_once and not self._depth and before is None and self.asked is not None:
            raise Interrupted(self.asked)


@contextlib.contextmanager
def listening(*, at_once: bool = True) -> Iterator[Stop]:
    """Take over SIGINT, SIGTERM and SIGHUP, where this is the main thread; what ignores one (nohup) goes on to."""
    stop = Stop(at_once)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in taken:
        signal.signal(number, stop.take)
    try:
        yield stop
    finally:
        for number in taken:
            signal.signal(number, before[number])


def name_of(number: int) -> str:
    """ "Ctrl-C", "SIGTERM"."""
    return "Ctrl-C" if number == signal.SIGINT and sys.stderr.isatty() else signal.Signals(number).name
