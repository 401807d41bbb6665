"""The networks, one paper a file; `build.py` is the catalogue."""
