"""The ways in which a command can end without having done what was asked, through no fault of the program."""

from __future__ import annotations


class UserError(Exception):
    """Something the user got wrong: one line that names the culprit and the remedy (exit status 2)."""


class PartialFailure(Exception):
    """Part of the work failed and the rest was done: one line that says which (exit status 1)."""


class CheckpointError(PartialFailure):
    """A checkpoint that could not be written; the one before remains."""


class NotFiniteError(PartialFailure):
    """A loss or gradient that is not a number: going on from where it happened would only repeat it."""


class Interrupted(BaseException):
    """A signal asked the process to end (exit status 128 + its number).

    Like KeyboardInterrupt it is no `Exception`: nothing that handles errors on the way shall swallow it.
    """

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number
