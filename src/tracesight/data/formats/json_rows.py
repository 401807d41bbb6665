"""A large JSON object read row by row: the elements of its arrays are handed over one at a time and then forgotten.

Parsed as a whole, a label file takes several times its size in Python objects.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

_CHUNK = 1 << 22  # bytes read at a time
_CUT = 64  # characters from the end within which a mistake may come from the end alone: a number or word cut off
_TAIL = 4  # characters that may belong to the number before them: the "e+" of 1e+5
_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*+,[ \t\n\r]*+")


class NotJSON(ValueError):
    """Something in a file that is no JSON."""


def scan_rows(
    path: Path,
    take: Mapping[str, Callable[[Any], object]],
    prepare: Callable[[str], str] | None = None,
    whole: Mapping[str, Callable[[Any], object]] | None = None,
) -> set[str]:
    """Call `take[key]` with each element of the array under this key of the file's object; the keys that are there.

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
        self.scan_once: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]

    def scan(
        self, take: Mapping[str, Callable[[Any], object]], whole: Mapping[str, Callable[[Any], object]]
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

    def array(self, take: Callable[[Any], object]) -> None:
        self.at += 1
        if self.next_character() == "]":
            self.at += 1
            return
        scan_once, comma = self.scan_once, _COMMA.match
        while True:
            take(self.value())
            try:  # the usual case in a few calls: another comma and another value within the window
                while (found := comma(self.text, self.at)) is not None:
                    value, end = scan_once(self.text, found.end())
                    if end > len(self.text) - _TAIL:
                        break
                    self.at = end
                    take(value)
            except (StopIteration, json.JSONDecodeError):
                pass  # cut off, or wrong, which is told below
            if self.next_character() == "]":
                self.at += 1
                return
            self.expect(",")

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
        self.text, self.at = self.prepare(self.text[self.at :] + more), 0

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        raise NotJSON(f"{message} at character {self.before + (self.at if position is None else position)}")


def _drop(_: Any) -> None:
    pass
