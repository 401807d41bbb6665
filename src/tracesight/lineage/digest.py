"""Digests that name content: of a file's bytes, and of a sequence of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tracesight.errors import UserError


def file_digest(path: str | Path) -> str:
    """SHA-256 of the bytes of a file, 64 lower-case hex digits; equal to what `sha256sum` prints.

    Raises UserError naming the file when it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def rows_digest(rows: Iterable[str]) -> str:
    """SHA-256 over rows of text in the order given, 64 lower-case hex digits.

    Each row goes in as a netstring (`<bytes>:<row>,` in UTF-8), so that no two different sequences of rows read alike
    whatever the rows hold. Sort the rows first where their order means nothing.
    """
    digest = hashlib.sha256()
    for row in rows:
        content = row.encode("utf-8", "surrogatepass")  # names of files may hold bytes that are no UTF-8
        digest.update(b"%d:%b," % (len(content), content))
    return digest.hexdigest()
