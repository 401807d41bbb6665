"""Where things come from: digests and rows; nothing in here decodes a picture."""

from __future__ import annotations

from tracesight.lineage.digest import file_digest, rows_digest

__all__ = ["file_digest", "rows_digest"]
