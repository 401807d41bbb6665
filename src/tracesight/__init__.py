"""Tracesight: pictures into scenes that programs can read, and where every object in them came from.

Names are imported when they are first used, so that `import tracesight` (and with it every `--help`) needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracesight.bundle import Bundle, load
    from tracesight.data.formats import read_dataset
    from tracesight.models.build import build
    from tracesight.scene import Scene
    from tracesight.weights import load_weights

__version__ = "0.1.0"
__all__ = ["Bundle", "Scene", "__version__", "build", "load", "load_weights", "read_dataset"]

# name -> module that defines it
_HOMES = {
    "build": "tracesight.models.build",
    "load_weights": "tracesight.weights",
    "Bundle": "tracesight.bundle",
    "load": "tracesight.bundle",
    "Scene": "tracesight.scene",
    "read_dataset": "tracesight.data.formats",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tracesight' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
