"""Files that a source has published, known by their content."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A file that a source published: `name` as it calls it, its conventions and the pictures it learnt from.

    terms: of the weights; the pictures have their own.
    """

    name: str
    conventions: str
    pictures: str
    num_classes: int
    terms: str

    @property
    def licence(self) -> str:
        return f"{self.terms}; the pictures of {self.pictures} have terms of their own"
