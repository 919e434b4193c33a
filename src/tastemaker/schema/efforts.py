"""What `train.effort` means: a name for a set of dials. What a user sets himself is left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tastemaker.schema.errors import SettingsError

EFFORTS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "text": {"max_length": 64},
        "sequence": {"epochs": 4, "min_steps": 500, "patience": 2, "refit": 0.5},
    },
    "normal": {},
    "thorough": {
        "finetune": {"mode": "last"},
        "sequence": {"epochs": 12, "min_steps": 1_500, "patience": 5},
    },
}


def with_effort(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table of settings, `section.key` nested, with the dials of its `train.effort` where it has none of its own.

    Raises:
        SettingsError: an unknown effort.
    """
    train = table.get("train")
    name = train.get("effort", "normal") if isinstance(train, Mapping) else "normal"
    if name not in EFFORTS:
        raise SettingsError(f"train.effort is {name!r}; expected {', '.join(EFFORTS)}.")
    whole: dict[str, Any] = {section: dict(keys) for section, keys in EFFORTS[name].items()}
    for section, keys in table.items():
        whole[section] = {**whole.get(section, {}), **keys} if isinstance(keys, Mapping) else keys
    return whole
