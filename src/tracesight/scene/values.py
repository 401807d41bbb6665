"""What the scene's values and its JSON are checked with, and how its files are written.

Every check raises ValueError with one line that says what was expected and what was there.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NoReturn


def checked_text(value: Any, what: str, empty: bool = False) -> str:
    """A text, not empty unless `empty`."""
    if not isinstance(value, str) or not (value or empty):
        raise ValueError(f"{what} must be a text{'' if empty else ' that is not empty'}, not {value!r}")
    return value


def checked_whole(value: Any, what: str) -> int:
    """A whole number; numpy's become Python's, because JSON knows only those."""
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"{what} must be a whole number, not {value!r}")
    return number


def checked_number(value: Any, what: str) -> float:
    """A finite number; numpy's become Python's."""
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"{what} must be a finite number, not {value!r}")
    return float(number)


def checked_list(value: Any, what: str) -> list[Any]:
    """A list."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} must be a list, not {type(value).__name__}")
    return list(value)


def checked_fields(value: Any, what: str, required: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    """The fields of a JSON object, none missing and none unknown, so that nothing is dropped in silence."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a JSON object, not {type(value).__name__}")
    missing, unknown = sorted(required - value.keys()), sorted(value.keys() - required - optional)
    if missing:
        raise ValueError(f"{what} has no {missing[0]!r}")
    if unknown:
        raise ValueError(f"{what} has a key {unknown[0]!r}, which is not part of a scene")
    return dict(value)


@contextlib.contextmanager
def inside(where: str) -> Iterator[None]:
    """Puts the place before the message of a ValueError from within."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def refuse_constant(name: str) -> NoReturn:
    """For json's `parse_constant`: NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(f"{name} is not a number that a scene may hold")


def write_whole(path: str | Path, text: str, *, synced: bool = False) -> None:
    """Writes a file of UTF-8 text; a reader, or a stop halfway, finds the old file or the new one, never a part.

    synced: this holds for a power cut too, for which the disk is waited for.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
