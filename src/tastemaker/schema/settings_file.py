"""Settings from one `tastemaker.toml`, `TASTEMAKER_…` environment variables and `--set a.b=c` on top, in this order.

An unknown key is an error that names the nearest known key.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tastemaker.schema.efforts import with_effort
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings

ENVIRONMENT_PREFIX = "TASTEMAKER_"


def load_settings(
    path: Path | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from a TOML file, then the environment (`TASTEMAKER_SEQUENCE_DIM=64`), then `a.b=c` overrides.

    Raises:
        SettingsError: an unknown key (the nearest known one is named), a wrong type or an unreadable file.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SettingsError(f"{path} does not exist. Make a workspace with: tastemaker init DIR") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} is not valid TOML: {error}") from None
    for name, text in _from_environment(os.environ if environment is None else environment):
        _put(table, name, text)
    for line in overrides:
        name, equals, text = line.partition("=")
        if not equals:
            raise SettingsError(f"--set {line!r}: expected SECTION.KEY=VALUE, as in --set sequence.dim=64")
        _put(table, name.strip(), text.strip())
    return from_table(table)


def from_table(table: Mapping[str, Any]) -> Settings:
    """Settings from nested dictionaries; texts are read as the type that the key has.

    Raises:
        SettingsError: an unknown key or a wrong value.
    """
    _check_keys(table)
    try:
        return msgspec.convert(with_effort(table), Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"A setting has a wrong value: {error}") from None


def to_table(settings: Settings) -> dict[str, Any]:
    """The settings as nested dictionaries of plain values, ready for JSON."""
    table: dict[str, Any] = msgspec.to_builtins(settings)
    return table


def known_keys() -> dict[str, Any]:
    """Every key as `section.key` with its default."""
    return {f"{section}.{key}": value for section, keys in to_table(Settings()).items() for key, value in keys.items()}


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """`TASTEMAKER_SECTION_KEY` variables as (`section.key`, text); variables of other uses are left alone."""
    sections = to_table(Settings())
    found = []
    for variable, text in sorted(environment.items()):
        section, _, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
        if variable.startswith(ENVIRONMENT_PREFIX) and section in sections and key:
            found.append((f"{section}.{key}", text))
    return found


def _put(table: dict[str, Any], name: str, text: str) -> None:
    section, dot, key = name.partition(".")
    if not dot:
        known = ", ".join(to_table(Settings()))
        raise SettingsError(f"{name!r} names no key: expected SECTION.KEY; known sections: {known}")
    value: Any = text
    default = known_keys().get(name)
    if isinstance(default, (list, tuple)):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        value = _json(name, text) if text.startswith("[") else parts
    if isinstance(default, dict) and text.startswith("{"):
        value = _json(name, text)
    elif isinstance(default, dict):
        value = dict(part.strip().partition("=")[::2] for part in text.split(",") if part.strip())
    inner = table.setdefault(section, {})
    if not isinstance(inner, dict):
        raise SettingsError(f"{section!r} is a section; found the single value {inner!r}")
    inner[key] = value


def _json(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise SettingsError(f"{name}={text[:80]}: this begins like JSON, but is none: {error}") from None


def _check_keys(table: Mapping[str, Any]) -> None:
    known = known_keys()
    sections = sorted({name.partition(".")[0] for name in known})
    for section, keys in table.items():
        if section not in sections:
            raise SettingsError(f"Unknown section [{section}].{nearest(section, sections)}")
        if not isinstance(keys, Mapping):
            raise SettingsError(f"[{section}] is a section of keys; found the single value {keys!r}")
        for key in keys:
            if f"{section}.{key}" not in known:
                raise SettingsError(f"Unknown key {section}.{key}.{nearest(f'{section}.{key}', list(known))}")


def nearest(name: str, known: list[str]) -> str:
    """The end of an error's sentence: the known name that is meant, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f" Did you mean {close[0]}?" if close else f" Known: {', '.join(known)}"


def describe(changes: Mapping[str, str] | None = None) -> str:
    """A commented `tastemaker.toml`: every key with its default and its explanation.

    Args:
        changes: `section.key` to TOML text; these lines are active, all others are commented out.
    """
    changes = changes or {}
    lines = [
        "# Settings of this workspace. A line with a leading # shows the default.",
        f"# Each key can also be set by an environment variable ({ENVIRONMENT_PREFIX}SEQUENCE_DIM=64)",
        "# or on the command line (--set sequence.dim=64).",
    ]
    for section in msgspec.structs.fields(Settings):
        kind = section.type
        lines += ["", f"# {inspect.getdoc(kind)}", f"[{section.name}]"]
        words = _attribute_docs(kind)
        for field in msgspec.structs.fields(kind):
            if field.name in words:
                lines.append(f"# {words[field.name]}")
            change = changes.get(f"{section.name}.{field.name}")
            lines.append(f"{field.name} = {change}" if change else f"# {field.name} = {_toml(getattr(kind(), field.name))}")
    return "\n".join(lines) + "\n"


def _attribute_docs(kind: type) -> dict[str, str]:
    """The string that stands below each field of a class, by field name."""
    words: dict[str, str] = {}
    for parent in kind.__bases__:
        if parent is not msgspec.Struct:
            words |= _attribute_docs(parent)
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    for line, after in itertools.pairwise(body.body):
        if (
            isinstance(line, ast.AnnAssign)
            and isinstance(line.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            words[line.target.id] = " ".join(str(after.value.value).split())
    return words


def _toml(value: Any) -> str:
    return msgspec.json.encode(list(value) if isinstance(value, tuple) else value).decode()
