"""What tests of commands share."""

from __future__ import annotations

from collections.abc import Callable

# What the fixture `run` gives: (exit status, standard output, standard error) of a command's arguments.
Run = Callable[..., tuple[int, str, str]]
