"""Pseudonyms of persons and devices."""

from __future__ import annotations

import hashlib
import hmac


def pseudonym(kind: str, name: str, key: bytes) -> str:
    """`kind`-xxxxxxxxxxxx: 12 hex digits of HMAC-SHA256(key, "kind:name"), the same for the same three arguments.

    Who has the key and a name can tell whether it is the one. Without a secret key that is anybody who can guess the
    name, so that the pseudonym keeps names out of sight, not out of reach.
    """
    return f"{kind}-{hmac.digest(key, f'{kind}:{name}'.encode('utf-8', 'surrogatepass'), hashlib.sha256).hex()[:12]}"
