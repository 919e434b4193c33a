"""The chosen settings as TOML: a recipe of its own, or written into a workspace's settings, comments and all else kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings_file import load_settings
from tastemaker.tuning.space import Value, with_changes


def recipe(changes: Mapping[str, Value], words: str = "") -> str:
    """A settings file with these keys alone; `words` stand above as comments."""
    lines = [f"# {line}" for line in words.splitlines()]
    for section in dict.fromkeys(key.partition(".")[0] for key in changes):
        lines += ["", f"[{section}]"]
        lines += [f"{_name(key)} = {_toml(value)}" for key, value in changes.items() if key.startswith(f"{section}.")]
    return "\n".join(lines).lstrip("\n") + "\n"


def write_recipe(path: Path, changes: Mapping[str, Value], words: str) -> Path:
    """Writes a recipe; the whole file or none."""
    _write(path, recipe(changes, words))
    return path


def apply(path: Path, changes: Mapping[str, Value]) -> None:
    """Sets keys in a settings file. A line of the key, commented out or not, is replaced; all others stay as they are.

    Raises:
        SettingsError: the file is written in a way that can't be changed line by line; it is left as it was.
    """
    text = path.read_text(encoding="utf-8")
    wanted = with_changes(load_settings(path, (), {}), changes)
    lines = text.splitlines()
    for key, value in changes.items():
        _set(lines, key.partition(".")[0], _name(key), _toml(value))
    partial = path.with_name(path.name + ".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        found = load_settings(partial, (), {})
    except SettingsError as error:
        partial.unlink()
        raise SettingsError(f"{path} could not be changed line by line ({error}). Copy the recipe's lines by hand.") from None
    if found != wanted:
        partial.unlink()
        raise SettingsError(f"{path} could not be changed line by line. Copy the recipe's lines by hand.")
    _replace(partial, path)


def _set(lines: list[str], section: str, name: str, value: str) -> None:
    begin = next((place for place, line in enumerate(lines) if re.match(rf"\s*\[{section}\]\s*(#.*)?$", line)), None)
    if begin is None:
        lines += ["", f"[{section}]", f"{name} = {value}"]
        return
    end = next((place for place in range(begin + 1, len(lines)) if re.match(r"\s*\[", lines[place])), len(lines))
    inside = range(begin + 1, end)
    active = [place for place in inside if re.match(rf"\s*{name}\s*=", lines[place])]
    silent = [place for place in inside if re.match(rf"\s*#\s*{name}\s*=", lines[place])]
    for place in (active or silent)[:1]:
        lines[place] = f"{name} = {value}"
        return
    lines.insert(begin + 1, f"{name} = {value}")


def _name(key: str) -> str:
    return key.partition(".")[2]


def _toml(value: Value) -> str:
    return msgspec.json.encode(value).decode()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    _replace(partial, path)


def _replace(partial: Path, path: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
