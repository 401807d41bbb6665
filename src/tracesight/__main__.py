"""`python -m tracesight` is the command `tracesight`."""

from __future__ import annotations

from tracesight.cli import main

if __name__ == "__main__":
    main()
