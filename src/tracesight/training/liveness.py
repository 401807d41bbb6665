"""A rank that dies is named by the others, which then stop instead of waiting for it for ever.

A collective whose partner is gone may fail at once, or never return. So a thread of each rank beats into the store
through which the ranks found each other, once a second over a connection of its own, and looks at the others:

- Those on the same host (Linux): the kernel says whether the process is there. This takes a fraction of a second, and
  never confuses a process that is busy with one that is dead.
- Those elsewhere: their counter must move. Only that is judged, never a clock of another host, and only time during
  which this thread ran itself counts, so that a stall of our own accuses nobody.
- Those that ended say so, and why, in their last words.

Whatever is found is one line on standard error. The main thread then has `grace` seconds to save what it has and leave
by itself; if it is stuck in a collective, the process ends there. `torchrun` sends SIGTERM to the other ranks when one
has died and kills them 30 s later, so that all of this is over by then.

A thread cannot beat while another one holds the interpreter in a long call: reading a large JSON file, scoring COCO.
Ranks that have not begun their first step, or are inside `patient()`, are therefore given `patience` seconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tracesight.errors import PartialFailure, UserError

_ENROL = timedelta(seconds=60)  # all ranks have just joined the process group, so nobody is far
_AFTERTHOUGHT = 2.0  # seconds in which this rank may fail for the same reason as another, and need not be told


class ElsewhereError(PartialFailure):
    """Another rank has failed: the line that says so is printed already, or printed there. Exit status 1, silently."""

    silent = True


def mark(step: int | None) -> None:
    """Say at which step this rank is; cheap enough for every step. None: at none yet."""
    global _step
    begins, _step = _step is None, step
    if begins and _watch is not None:
        _watch.wake.set()  # from now on the others need not be patient


def blame(timeout: float = 15.0) -> str | None:
    """Who is to blame for a collective that has failed: "rank 1 (host h, process 1234) has gone at step 17".

    The line has been printed when this returns. None if nobody is found within `timeout` seconds, or nobody watches.
    """
    watch = _watch
    if watch is None:
        return None
    watch.suspicious = True
    watch.wake.set()
    watch.told.wait(timeout)
    return watch.cause


@contextmanager
def patient() -> Iterator[None]:
    """Inside, this rank may hold the interpreter for minutes; the others know before the block begins."""
    watch = _watch
    if watch is None:
        yield
        return
    watch.busy += 1
    watch.announced.clear()
    watch.wake.set()
    watch.announced.wait(5)
    try:
        yield
    finally:
        watch.busy -= 1


@contextmanager
def watching(
    rank: int, count: int, name: str, *, interval: float = 1.0, quiet: float = 20.0, patience: float = 600.0,
    grace: float = 20.0,
) -> Iterator[None]:  # fmt: skip
    """Watches the other ranks while the block runs, over the store at MASTER_ADDR:MASTER_PORT.

    Args:
        name: of this group of processes, the same on all ranks and new each time.
        interval: seconds between two beats. quiet: seconds of silence after which a rank counts as dead.
        patience: the same for one that is known to be busy or whose process is known to be there.
        grace: seconds that the main thread has to leave after a death has been found; then the process ends.

    Raises:
        ElsewhereError: in place of the failure of a collective, when another rank has died or ended with an error.
        PartialFailure: a rank does not come within a minute.
    """
    global _watch
    watch = _Watch(rank, count, name, interval, quiet, patience, grace)
    watch.enrol()
    thread = threading.Thread(target=watch.run, name="liveness", daemon=True)
    thread.start()
    _watch, last = watch, {"cause": ""}
    try:
        yield
    except BaseException as error:
        if _is_of_connection(error) and (cause := blame()):
            last["cause"] = cause
            raise ElsewhereError(cause) from error
        if isinstance(error, ElsewhereError):
            last["cause"] = str(error)
        elif not (isinstance(error, SystemExit) and not error.code):
            last["cause"] = f"{watch.peers[rank]} has stopped {_at(_step)}: {one_line(error)}"
        raise
    finally:
        watch.last_words = last
        watch.wake.set()
        thread.join(quiet)
        _watch = None
        mark(None)


def one_line(error: BaseException) -> str:
    """What went wrong, in a line that another process can print."""
    said = " ".join(str(error).split())[:500]
    if isinstance(error, UserError | PartialFailure):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@dataclass
class _Peer:
    """A rank, as the others know it. `place` is the host and process namespace in which `pid` and `birth` mean it."""

    rank: int
    host: str
    pid: int
    place: str
    birth: str | None
    beat: int = -1
    step: int | None = None
    busy: bool = False
    silent: float = 0.0
    words: dict[str, Any] | None = None
    heard: float = 0.0  # when the words were

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, process {self.pid})"


class _Watch:
    """What one rank knows of the others. Its store is used by one thread at a time: first by `enrol`, then by `run`."""

    def __init__(
        self, rank: int, count: int, name: str, interval: float, quiet: float, patience: float, grace: float
    ) -> None:
        self.rank, self.count, self.name = rank, count, name
        self.interval, self.quiet, self.patience, self.grace = interval, quiet, patience, grace
        self.busy, self.suspicious = 0, False
        self.cause: str | None = None
        self.last_words: dict[str, Any] | None = None
        self.wake, self.told, self.announced = threading.Event(), threading.Event(), threading.Event()
        self.place = _place()
        self.address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        self.agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun holds the store, not rank 0
        host, _, port = self.address.rpartition(":")
        timeout = timedelta(seconds=quiet)
        self.store = dist.TCPStore(  # type: ignore[attr-defined]
            host, int(port), is_master=False, timeout=timeout, wait_for_workers=False
        )
        self.beats = 0
        self.peers: list[_Peer] = []

    def enrol(self) -> None:
        """All ranks make themselves known to each other. Raises PartialFailure naming those that do not come."""
        birth = _birth(os.getpid()) if self.place else None
        who = {"host": socket.gethostname(), "pid": os.getpid(), "place": self.place, "birth": birth}
        keys = [self._key("who", rank) for rank in range(self.count)]
        try:
            self._beat()
            self.store.set(keys[self.rank], json.dumps(who))
            self.store.wait(keys, _ENROL)
        except RuntimeError as error:
            with suppress(RuntimeError):
                absent = [str(rank) for rank, key in enumerate(keys) if not self.store.check([key])]
                raise PartialFailure(f"rank {', '.join(absent)} has gone before the run began") from None
            raise PartialFailure(f"the store at {self.address} has gone before the run began: {error}") from None
        self.peers = [_Peer(rank, **json.loads(text)) for rank, text in enumerate(self.store.multi_get(keys))]

    def run(self) -> None:
        """The thread: beat, listen, judge, tell; at the end leave the last words."""
        beaten, found, woken, lost = time.monotonic(), 0.0, True, False
        while self.last_words is None:
            elapsed = time.monotonic() - beaten
            try:
                if (woken or elapsed >= self.interval) and not lost:
                    beaten, busy = beaten + elapsed, self.busy
                    self._beat()
                    if busy:
                        self.announced.set()
                    self._listen(min(elapsed, 2 * self.interval))
                cause = self._judge()
            except RuntimeError:
                if self.peers[0].words == {"cause": ""} and not self.agent:
                    return  # rank 0 held the store, has ended well and taken it along
                cause, lost = self._without_store(), True
            if cause and not self.told.is_set():
                found, self.cause = time.monotonic(), cause
                self._tell(cause)
            if found and time.monotonic() - found > self.grace:
                _end()
            woken = self.wake.wait(self.interval / 4)
            self.wake.clear()
        if not lost:
            with suppress(RuntimeError):
                self._leave()

    def _beat(self) -> None:
        self.beats += 1
        beat = {"beat": self.beats, "step": _step, "busy": self.busy > 0 or _step is None, "words": self.last_words}
        self.store.set(self._key("beat", self.rank), json.dumps(beat))

    def _listen(self, elapsed: float, only: _Peer | None = None) -> None:
        """Take up the others' beats and last words; `elapsed` seconds have gone by for those that are silent."""
        peers = [only] if only else self.peers
        for peer, text in zip(peers, self.store.multi_get([self._key("beat", peer.rank) for peer in peers])):
            beat = json.loads(text)
            if beat["words"] is not None and peer.words is None:
                peer.heard = time.monotonic()
            peer.silent = peer.silent + elapsed if beat["beat"] == peer.beat else 0.0
            peer.beat, peer.step, peer.busy, peer.words = beat["beat"], beat["step"], beat["busy"], beat["words"]

    def _judge(self) -> str | None:
        """Whom the run cannot go on without, and why."""
        for peer in self.peers:
            if peer.rank == self.rank:
                continue
            alive = peer.words is not None or self._lives(peer)
            if alive is False:
                self._listen(0.0, peer)  # it may have ended since we listened
                if peer.words is None:
                    return f"{peer} has gone {_where(peer)}"
            if peer.words is not None:
                waited = self.suspicious or time.monotonic() - peer.heard > _AFTERTHOUGHT
                if peer.words["cause"] and waited:
                    return peer.words["cause"]
                continue
            limit = self.patience if alive or peer.busy else self.quiet
            if self.suspicious and not alive:  # a collective has failed, so that somebody is gone
                limit = self.quiet / 2
            if peer.silent > limit:
                return f"{peer} has gone {_where(peer)} (nothing heard of it for {peer.silent:.0f} s)"
        return None

    def _lives(self, peer: _Peer) -> bool | None:
        """Whether its process is there; None if that cannot be told from here."""
        return _birth(peer.pid) == peer.birth if self.place and peer.place == self.place else None

    def _without_store(self) -> str:
        """The same, when the store no longer answers."""
        for peer in self.peers:
            if peer.words is None and self._lives(peer) is False:
                return f"{peer} has gone {_where(peer)}"
        if self.agent:
            return f"torchrun, which holds the store at {self.address}, has gone or cannot be reached {_at(_step)}"
        first = self.peers[0]
        return f"{first} has gone {_where(first)} (the store that it held at {self.address} does not answer)"

    def _tell(self, cause: str) -> None:
        rest = f"this is rank {self.rank}, stopping: the last checkpoint is what --resume goes on from"
        print(f"error: {cause}; {rest}", file=sys.stderr, flush=True)
        self.told.set()

    def _leave(self) -> None:
        """The last words. Who holds the store waits until the others have left theirs."""
        assert self.last_words is not None
        self._beat()
        deadline = time.monotonic() + self.quiet / 2
        if self.rank and self.last_words["cause"].startswith("rank 0 "):
            # When one rank ends, torchrun ends the others on its host: let the first one say why before that.
            while not self.cause and self._lives(self.peers[0]) and time.monotonic() < deadline:
                time.sleep(self.interval / 10)
        while not self.agent and not self.rank and time.monotonic() < deadline:
            self._listen(0.0)
            if all(peer.words is not None or self._lives(peer) is False for peer in self.peers):
                return
            time.sleep(self.interval / 10)

    def _key(self, kind: str, rank: int) -> str:
        return f"tracesight/{self.name}/{kind}/{rank}"


_step: int | None = None
_watch: _Watch | None = None


def _at(step: int | None) -> str:
    return "before its first step" if step is None else f"at step {step}"


def _where(peer: _Peer) -> str:
    """Where it was: ranks go in step, so that our own says more than a beat that is a second old."""
    return _at(max((step for step in (peer.step, _step) if step is not None), default=None))


def _is_of_connection(error: BaseException) -> bool:
    """Whether a collective failed because of its partners: gloo raises plain RuntimeErrors that name its sources."""
    if isinstance(error, dist.DistError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in said for word in ("gloo", "nccl", "closed by peer"))


def _place() -> str:
    """The host and the namespace within which process ids mean the same; "" where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _birth(pid: int) -> str | None:
    """When a process began, in ticks since the host did; None if it is not there, or dead and not yet buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def _end() -> None:
    """End this process, whose main thread may be in a call that never returns."""
    if sys.stderr.isatty():
        print("\x1b[?25h", end="", file=sys.stderr, flush=True)  # a progress bar has hidden the cursor
    os._exit(1)
