"""Pictures read ahead of the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")

READERS = max(4, min(16, os.cpu_count() or 1))  # threads, at most


def read_ahead(read: Callable[[Item], Read], items: Iterable[Item], size: int) -> Iterator[list[Read]]:
    """What `read` makes of `items`, `size` at a time and in their order; `items` may be endless.

    While one window is being worked on, the next one is read. Raises what `read` raises.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(min(READERS, size)) as readers:
        window = [readers.submit(read, item) for item in islice(remaining, size)]
        while window:
            following = [readers.submit(read, item) for item in islice(remaining, size)]
            yield [reading.result() for reading in window]
            window = following
