"""Batches made in other processes, in order; a process that dies is replaced and nothing is lost.

Not torch's DataLoader: its handler of SIGCHLD raises in the main thread wherever that happens to be, half-way through
an update of the weights if need be, and its workers share one queue, whose lock a worker can take with it into death.
Here each worker has a pipe of its own, and its end is noticed where its batch is waited for, nowhere else.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize, get_temp_dir
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tracesight.errors import PartialFailure

AHEAD = 2  # batches that a worker makes or has ready beyond those taken
_LARGE = 1 << 16  # bytes; smaller arrays are not worth a handle
# These reach a whole process group. The main process ends its step, saves, and ends the workers itself.
_IGNORED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def in_workers(
    make: Callable[[int], Any],
    steps: range,
    workers: int,
    what: str,
    contents: Callable[[int], str],
    say: Callable[[str], None],
) -> Generator[Any, None, None]:
    """`make(step)` for each of `steps`, in order, made in `workers` processes and at most `AHEAD` × `workers` early.

    The processes start with the first `next`, and end with the last batch, with `close`, or when this process is gone.
    They are forked or spawned as `multiprocessing` is set to; unless forked, they read the large arrays that `make`
    holds from shared memory.

    Args:
        make: can be pickled, unless workers are forked. What it raises is raised here, in its turn.
        what: a step is called in messages, such as "step".
        contents: names what a step is made of, for the message where workers die of it.
        say: told in one line when a worker has died and was started again.

    Raises:
        PartialFailure: a worker died twice on the same batch, or none could be started.
    """
    import torch  # noqa: F401 - before anything is forked, or each worker would load it for itself

    crew: list[_Worker] = []
    last, count = len(steps) - 1, min(workers, len(steps))
    # At exit this must come before multiprocessing joins what is left: workers ignore the SIGTERM it sends them first.
    end = Finalize(None, _end, args=(crew,), exitpriority=100)
    get_temp_dir()  # workers put their sockets there: folders of their own would be left behind when they are killed
    try:
        parcel = _parcel(make)
        for place in range(count):
            worker = _hire(crew, place, parcel, f"{what} {steps[place]}")
            worker.hand(steps, place, min(last, place + (AHEAD - 1) * count), count)
        died = -1  # position at which a worker died last
        for position, step in enumerate(steps):
            worker = crew[position % count]
            while isinstance(made := worker.take(), _Dead):
                if died == position:
                    raise PartialFailure(
                        f"{what} {step}: a worker {made.how}, twice, on {contents(step)}; take fewer workers "
                        "(or workers=0) and go on with --resume"
                    )
                died = position
                worker = _hire(crew, position % count, parcel, f"{what} {step}")
                say(f"{what} {step}: a worker {made.how} and was started again; nothing is lost")
                # Nothing beyond this batch before it is here: if the next one dies, this is what it died of.
                worker.hand(steps, position, position, count)
            if isinstance(made, _Raised):
                raise made.error
            worker.hand(steps, position + count, min(last, position + AHEAD * count), count)
            yield made
    finally:
        end()


class _Dead(NamedTuple):
    """A worker is gone. how: "ended with status 3", "was killed by SIGKILL (out of memory?)"."""

    how: str


class _Raised(NamedTuple):
    error: Exception


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    handed: int = -1  # the last position in the steps that it was given

    def hand(self, steps: range, first: int, last: int, stride: int) -> None:
        """Give it the steps at positions first, first + stride, … up to `last` that it does not have yet."""
        for position in range(first, last + 1, stride):
            if position > self.handed:
                self.handed = position
                with contextlib.suppress(OSError):  # it is dead, which `take` will find
                    self.pipe.send(steps[position])

    def take(self) -> Any:
        """What it made of the oldest step that it was given, or `_Dead`."""
        try:
            message = self.pipe.recv_bytes()
        except (EOFError, OSError):
            return self._buried()
        try:
            return pickle.loads(message)
        except (EOFError, OSError, RuntimeError):
            # Shared memory that a message points to can be had only as long as its sender lives.
            self.process.join(2)
            if self.process.is_alive():
                raise
            return self._buried()

    def _buried(self) -> _Dead:
        self.process.join(5)
        self.process.kill()  # if closing its pipe was not its end
        self.process.join(5)
        self.pipe.close()
        return _Dead(_how(self.process.exitcode))


def _how(status: int | None) -> str:
    if status is None or status >= 0:
        return f"ended with status {status}"
    name = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
    return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"


def _hire(crew: list[_Worker], place: int, parcel: Any, when: str) -> _Worker:
    """Start a worker and give it this place in the crew."""
    context = multiprocessing.get_context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()  # now, or it and all its children would begin with signals blocked
    with _undisturbed():
        ours, theirs = context.Pipe()
        try:
            process = context.Process(target=_work, args=(parcel, theirs), daemon=True)  # type: ignore[attr-defined]
            process.start()
        except OSError as error:
            raise PartialFailure(
                f"{when}: no worker could be started ({error}); take fewer workers (or workers=0) and go on with "
                "--resume"
            ) from error
        finally:
            theirs.close()  # only the worker holds it now: that it is closed means that the worker is gone
        worker = _Worker(process, ours)
        crew[place : place + 1] = [worker]
    return worker


def _end(crew: list[_Worker]) -> None:
    """They hold nothing that is worth waiting for."""
    with _undisturbed():
        for worker in crew:
            worker.pipe.close()
            worker.process.kill()
        for worker in crew:
            worker.process.join(5)
        crew.clear()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait until the end of the block. A worker forked in it gets none before it has said what it ignores."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(parcel: Any, pipe: Connection) -> None:
    """The life of a worker."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):  # Linux: short of memory, it shall rather end what can be started again
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    import torch

    torch.set_num_threads(1)
    make = parcel.open() if isinstance(parcel, _Parcel) else parcel
    with contextlib.suppress(EOFError, OSError):  # the main process has closed its end
        while True:
            step = pipe.recv()
            try:
                made = make(step)
            except Exception as error:
                made = _Raised(_portable(error))
            pipe.send_bytes(_message(made))
            del made  # its memory is the main process's now


def _end_with_parent() -> None:
    """End this process, whatever it is at, as soon as the one that started it has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    direct = os.getppid() == parent.pid  # a fork server stands between them otherwise
    # Workers forked later hold the other end of what is waited for too, hence the second look.
    while not wait([parent.sentinel], 1) and not (direct and os.getppid() != parent.pid):
        pass
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error with the traceback as a note: it does not travel otherwise."""
    text = traceback.format_exc().rstrip()
    error.add_note(f"in a worker process:\n{text}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error


def _message(made: Any) -> bytes | memoryview:
    """Pickled with tensors in shared memory; with tensors and all where there is no room for them (/dev/shm)."""
    from multiprocessing.reduction import ForkingPickler

    import torch.multiprocessing  # noqa: F401 - teaches ForkingPickler about tensors

    try:
        # First all that takes room: tensors that were pickled, but never fetched, would keep theirs.
        for tensor in _tensors(made):
            tensor.share_memory_()
        return ForkingPickler.dumps(made)
    except (RuntimeError, OSError):
        return pickle.dumps(made, pickle.HIGHEST_PROTOCOL)


def _tensors(made: Any) -> Iterator[Any]:
    import torch

    if isinstance(made, torch.Tensor):
        yield made
    elif isinstance(made, tuple):
        for part in made:
            yield from _tensors(part)


@dataclass
class _Parcel:
    """An object for workers that are not forked: its large arrays in shared memory, the rest pickled once."""

    pickled: bytes
    arrays: list[tuple[Any, str, tuple[int, ...]]]  # uint8 tensor, dtype, shape

    def open(self) -> Any:
        return _Unpacker(self).load()


class _Packer(pickle.Pickler):
    """Leaves large arrays out of what it writes, and puts them where `_Parcel.arrays` has them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.arrays: list[tuple[Any, str, tuple[int, ...]]] = []
        self._seen: dict[int, tuple[np.ndarray, int | None]] = {}  # by id, which holds as long as the array does

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, np.ndarray) or obj.nbytes < _LARGE or obj.dtype.hasobject:
            return None
        if id(obj) not in self._seen:
            shared = _shared(obj)
            self._seen[id(obj)] = (obj, None if shared is None else len(self.arrays))
            if shared is not None:
                self.arrays.append((shared, obj.dtype.str, obj.shape))
        return self._seen[id(obj)][1]


class _Unpacker(pickle.Unpickler):
    def __init__(self, parcel: _Parcel) -> None:
        super().__init__(io.BytesIO(parcel.pickled))
        self._arrays = [flat.numpy().view(dtype).reshape(shape) for flat, dtype, shape in parcel.arrays]

    def persistent_load(self, pid: int) -> np.ndarray:
        return self._arrays[pid]


def _parcel(make: Any) -> Any:
    """What to give a worker: the object itself if it is forked, since it then has all memory there is."""
    if multiprocessing.get_context().get_start_method() == "fork":
        return make
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(make)
    return _Parcel(file.getvalue(), packer.arrays)


def _shared(array: np.ndarray) -> Any:
    """The array's bytes as a tensor in shared memory; None where there is no room: it is then pickled."""
    import torch.multiprocessing

    try:
        tensor = torch.empty(array.nbytes, dtype=torch.uint8).share_memory_()
    except (RuntimeError, OSError):
        return None
    tensor.numpy().view(array.dtype).reshape(array.shape)[...] = array
    return tensor
