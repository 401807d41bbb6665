"""A large JSON object read row by row: the elements of its arrays are handed over a few at a time and then forgotten.

Parsed as a whole, a label file takes several times its size in Python objects.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic_core import from_json

_CHUNK = 1 << 18  # bytes read at a time, few enough for what is made of them to stay in a cache
_CUT = 64  # characters from the end within which a mistake may come from the end alone: a number or word cut off
_TAIL = 4  # characters that may belong to the number before them: the "e+" of 1e+5
_BLOCK = 1 << 16  # characters that are parsed together at most, for the same reason
_SPACES = " \t\n\r"
_SPACE = re.compile(f"[{_SPACES}]*")
_OPENING = re.compile(rf'\{{[{_SPACES}]*+"\w+', re.ASCII)  # of a row, with the name of its first key or its beginning


class NotJSON(ValueError):
    """Something in a file that is no JSON."""


def scan_rows(
    path: Path,
    take: Mapping[str, Callable[[list[Any]], object]],
    prepare: Callable[[str], str] | None = None,
    whole: Mapping[str, Callable[[Any], object]] | None = None,
) -> set[str]:
    """Call `take[key]` with the elements of the array under this key of the file's object, some at a time; the keys
    that are there.

    What lies under other keys is read and dropped, but for values that are no arrays, which `whole[key]` gets. prepare:
    changes the text before it is parsed, a piece at a time, and its own changes no more. Raises NotJSON, also for what
    is no object; ValueError: no array under a key of `take`, or what `take` raises; OSError.
    """
    with path.open("rb") as file:
        return _Scanner(file, prepare or str).scan(take, whole or {})


class _Scanner:
    """A window of text that moves over a file."""

    def __init__(self, file: Any, prepare: Callable[[str], str]) -> None:
        self.file, self.prepare = file, prepare
        encoding = json.detect_encoding(file.read(4))
        file.seek(0)
        self.decode = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)().decode
        self.text, self.at, self.before, self.ended = "", 0, 0, False
        self.unready = 0  # up to where values are parsed one by one
        self.scan_once: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]

    def scan(
        self, take: Mapping[str, Callable[[list[Any]], object]], whole: Mapping[str, Callable[[Any], object]]
    ) -> set[str]:
        keys: set[str] = set()
        if self.next_character() != "{":
            raise NotJSON("not an object")
        self.at += 1
        while self.next_character() != "}":
            if keys:
                self.expect(",")
            key = self.value()
            if not isinstance(key, str):
                self.fail("Expecting property name")
            keys.add(key)
            self.expect(":")
            if self.next_character() == "[":
                self.array(take.get(key, _drop))
            else:
                value = self.value()
                if key in take:
                    raise ValueError(f"{key!r} must be a list, not {json.dumps(value)[:40]}")
                whole.get(key, _drop)(value)
        self.at += 1
        if self.next_character():
            self.fail("Extra data")
        return keys

    def array(self, take: Callable[[list[Any]], object]) -> None:
        self.at += 1
        if self.next_character() == "]":
            self.at += 1
            return
        while True:
            if some := self.block():
                take(some)
            take([self.value()])
            if self.next_character() == "]":
                self.at += 1
                return
            self.expect(",")

    def block(self) -> list[Any]:
        """Some of the values that come next, parsed together, which takes a fifth of the time; none where that fails.

        Rows begin alike. What stands before the last such beginning within reach and is an array between brackets holds
        whole values, since up to there the text can be read in one way only.
        """
        opening = _OPENING.match(self.text, self.at)
        if opening is None or self.at < self.unready:
            return []
        end = self.text.rfind(opening[0], opening.end(), self.at + _BLOCK)
        rows = self.text[self.at : max(end, self.at)].rstrip(_SPACES)
        if not rows.endswith(","):
            return []
        try:
            values = from_json(f"[{rows[:-1]}]", allow_inf_nan=False)
        except ValueError:  # perhaps of one row only, which is then found one by one
            self.unready = end
            return []
        self.at = end
        return values

    def value(self) -> Any:
        """The next value, for which as much of the file is read as it needs."""
        size = _CHUNK
        while True:
            self.next_character()
            try:
                value, end = self.scan_once(self.text, self.at)
                if end <= len(self.text) - _TAIL or self.ended:
                    self.at = end
                    return value
            except StopIteration as error:
                self.check_cut("Expecting value", error.value)
            except json.JSONDecodeError as error:
                self.check_cut(error.msg, error.pos)
            self.fill(size)
            size *= 2

    def check_cut(self, message: str, position: int) -> None:
        """Raise for a mistake that more text would not put right."""
        if self.ended or (position < len(self.text) - _CUT and not message.startswith("Unterminated string")):
            self.fail(message, position)

    def expect(self, character: str) -> None:
        if self.next_character() != character:
            self.fail(f"Expecting '{character}'")
        self.at += 1
        self.next_character()

    def next_character(self) -> str:
        """The character after white space, '' at the end."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self.fill(_CHUNK)

    def fill(self, size: int) -> None:
        content = self.file.read(size)
        self.ended = len(content) < size
        self.before += self.at
        try:
            more = self.decode(content, self.ended)
        except UnicodeDecodeError as error:
            raise NotJSON(f"not {error.encoding.upper()} text; save it as UTF-8") from None
        self.text, self.at, self.unready = self.prepare(self.text[self.at :] + more), 0, 0

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        place = self.before + (self.at if position is None else position)
        raise NotJSON(f"{message.removesuffix(' at')} at character {place}")


def _drop(_: Any) -> None:
    pass
