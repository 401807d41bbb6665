"""Run configuration: defaults < preset < config file < key=value, checked before anything else happens."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tracesight.errors import UserError

C = TypeVar("C", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as everybody who types it means, although YAML 1.1 calls it a string."""


_Loader.yaml_implicit_resolvers = {key: list(pairs) for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def presets() -> dict[str, Traversable]:
    """Names of the packaged presets and their files."""
    folder = resources.files("tracesight").joinpath("recipes", "presets")
    found = (file for file in folder.iterdir() if file.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file for file in sorted(found, key=lambda file: file.name)}


def resolve(
    kind: type[C], preset: str | None = None, file: str | Path | None = None, overrides: Sequence[str] = ()
) -> C:
    """The configuration a run uses: defaults of `kind`, then `preset`, then `file`, then `overrides`.

    Args:
        kind: the recipe's `Config`.
        preset: name of a packaged preset.
        file: a YAML file of keys.
        overrides: `key=value`, the value in YAML; a key inside a key is written with a dot, `model_args.norm=group`.

    Raises:
        UserError: unknown preset, unreadable file, unknown key (the nearest one is suggested), value of a wrong kind.
    """
    values: dict[str, Any] = {}
    if preset is not None:
        known = presets()
        if preset not in known:
            raise UserError(f"preset {preset!r} does not exist{_nearest(preset, known)}; there are: {', '.join(known)}")
        _merge(values, _parse(known[preset].read_text(encoding="utf-8"), f"preset {preset}"))
    if file is not None:
        _merge(values, read_config(file))
    for text in overrides:
        _merge(values, _override(text))
    return validated(kind, values)


def validated(kind: type[C], values: Mapping[str, Any]) -> C:
    """`kind(**values)`, its complaints in one line. Raises UserError naming the key."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"config key {path!r} does not exist{_nearest(path, kind.model_fields)}") from None
        reason = first["msg"].removeprefix("Value error, ")
        where = f"config key {path!r}" if path else "config"
        given = f", got {first['input']!r}" if path else ""
        raise UserError(f"{where}: {reason[:1].lower()}{reason[1:]}{given}") from None


def read_config(path: str | Path) -> dict[str, Any]:
    """The keys in a YAML file. Raises UserError naming a file that is missing or not a table of keys."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the config: {getattr(error, 'strerror', None) or error}") from None
    return _parse(text, str(path))


def config_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML, every key written out, in the order of its class."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)


def changed_key(old: Mapping[str, Any], new: Mapping[str, Any], free: Iterable[str]) -> str | None:
    """The first key that differs between two resolved configurations and is not among `free`, as `key (old → new)`."""
    free = set(free)
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in free and old.get(key) != new.get(key):
            return f"{key} ({old.get(key)} → {new.get(key)})"
    return None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where}: a config is a table of `key: value` lines")
    return values


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"{text!r} is not key=value")
    try:
        parsed: Any = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise UserError(f"config key {key!r}: {value!r} is not YAML") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return parsed


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Later values win; tables inside tables are merged, so that one of `model_args` can be changed alone."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
