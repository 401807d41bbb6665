"""Every kind of finding there is, collected from the files that define them."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

from tracesight.data import checks, formats
from tracesight.data.finding import SEVERITIES, Kind
from tracesight.errors import UserError


@cache
def every_kind() -> dict[str, Kind]:
    """Kinds by code, errors first."""
    kinds: dict[str, Kind] = {}
    for package in (checks, formats):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            found = vars(importlib.import_module(module.name)).values()
            kinds |= {value.code: value for value in found if isinstance(value, Kind)}
    return dict(sorted(kinds.items(), key=lambda item: (SEVERITIES.index(item[1].severity), item[0])))


def check_codes(codes: Iterable[str]) -> None:
    """Raises UserError for a code that is none, naming the nearest one."""
    for code in codes:
        if code not in every_kind():
            near = difflib.get_close_matches(code, every_kind(), n=1, cutoff=0)
            raise UserError(f"--allow {code}: there is no such code; did you mean {near[0]}?")
