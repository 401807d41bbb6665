"""The polygons of large label files, kept as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from pydantic_core import from_json


class Polygons(Sequence[list[float]]):
    """Polygons [[x, y, x, y, …], …] as the JSON that their label file has, which is read when they are asked for.

    Nearly all of the numbers in a large label file are theirs, and most are never looked at. text: JSON of one or more
    polygons of three or more points, already checked.
    """

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[list[float]] | None = None

    @property
    def parts(self) -> list[list[float]]:
        """The numbers, kept once they have been read."""
        parts = self._parts
        if parts is None:
            parts = self._parts = from_json(self.text)
        return parts

    def __reduce__(self) -> tuple[Any, ...]:
        return Polygons, (self.text,)

    def __len__(self) -> int:
        return self.text.count("]") - 1

    @overload
    def __getitem__(self, index: int) -> list[float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[float]]: ...
    def __getitem__(self, index: int | slice) -> list[float] | list[list[float]]:
        return self.parts[index]

    def __iter__(self) -> Iterator[list[float]]:
        return iter(self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(map(tuple, self)))

    def __repr__(self) -> str:
        return f"Polygons({self.text})"
