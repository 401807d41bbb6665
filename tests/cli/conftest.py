"""Commands are run in the process of the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Run

from tracesight.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: (exit status, standard output, standard error)."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out = capsys.readouterr()
        return int(left.value.code or 0), out.out, out.err

    return call
