"""Pseudonyms of persons and devices."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from tracesight.errors import UserError

_LEAST = 16  # bytes of a key


def pseudonym(kind: str, name: str, key: bytes) -> str:
    """`kind`-xxxxxxxxxxxx: 12 hex digits of HMAC-SHA256(key, "kind:name"), the same for the same three arguments.

    Who has the key and a name can tell whether it is the one. Without a secret key that is anybody who can guess the
    name, so that the pseudonym keeps names out of sight, not out of reach.
    """
    return f"{kind}-{hmac.digest(key, f'{kind}:{name}'.encode('utf-8', 'surrogatepass'), hashlib.sha256).hex()[:12]}"


def read_key(path: Path) -> bytes:
    """A secret key from a file. Raises UserError: it cannot be read, or is so short that it can be guessed."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(key) < _LEAST:
        raise UserError(f"{path}: a key of {len(key)} bytes can be guessed; put {_LEAST} random ones or more into it")
    return key
