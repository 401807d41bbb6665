"""The two ways in which a command can fail through no fault of the program."""

from __future__ import annotations


class UserError(Exception):
    """Something the user got wrong: one line that names the culprit and the remedy (exit status 2)."""


class PartialFailure(Exception):
    """Part of the work failed and the rest was done: one line that says which (exit status 1)."""
