"""The dials of a search and their ranges, declared as data. It knows settings, and no search library.

A range is one of
    0.1..0.6            evenly; whole numbers where the setting is one
    5e-4..5e-3 log      evenly in the logarithm
    50..400 step 50     only these
    64|128|256          a choice; commas do as well
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table, nearest, to_table

Value = int | float | str | bool

DIALS: dict[str, str] = {
    "sequence.dim": "64|128|256",
    "sequence.layers": "1..3",
    "sequence.dropout": "0.1..0.6",
    "sequence.id_dropout": "0.0..0.5",
    "sequence.max_length": "20|50|100",
    "sequence.epochs": "4..16",
    "sequence.learning_rate": "5e-4..5e-3 log",
    "sequence.weight_decay": "1e-3..0.3 log",
    "sampling.item_power": "0.0..0.4",
    "neighbours.k": "50..400 log",
    "neighbours.decay": "0.4..0.95",
    "fusion.depth": "50..200",
}
"""What is searched where the settings name no dial."""
OTHERS: dict[str, str] = {
    "finetune.mode": "frozen|head|last",
    "finetune.steps": "50..400 log",
    "finetune.learning_rate": "3e-5..1e-3 log",
    "sequence.heads": "1|2|4",
    "sequence.min_steps": "500..3000 log",
    "sequence.batch_size": "32|64|128|256",
    "sequence.warmup": "0.0..0.2",
    "sampling.user_power": "0.0..0.5",
    "sampling.half_life": "0|7|30|90|365",
    "sampling.rare_share": "0.0..0.3",
    "neighbours.text_decay": "0.3..0.9",
    "fusion.cold_price": "0.0..0.1",
}
"""Dials with a known range that are only searched when they are named."""
_ALL = ("finetune", "sequence", "sampling", "neighbours", "fusion")
SECTIONS = {"sequence": ("finetune", "sequence", "sampling"), "fused": _ALL, "whole": _ALL}
"""Sections whose keys change what is judged, by `tune.judge`."""


@dataclass(frozen=True)
class Dial:
    """One setting that is searched.

    Attributes:
        key: `section.key`.
        choices: the values it can take; empty: a range.
        low, high: both are possible.
        whole: only whole numbers.
        log: evenly in the logarithm.
        step: distance between values; 0: none.
    """

    key: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    step: float = 0.0

    def contains(self, value: Any) -> bool:
        """Whether the search itself could choose this value."""
        if self.choices:
            return value in self.choices
        if not self.low <= value <= self.high:
            return False
        places = (value - self.low) / self.step if self.step else 0.0
        return math.isclose(places, round(places), abs_tol=1e-9)

    def rounded(self, value: Value) -> Value:
        """The value with four digits, which people can read and no search can tell from the whole one."""
        if self.choices or self.whole:
            return value
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def place(self, value: Any) -> float:
        """Where a value stands between the ends, in [0, 1]; for plots."""
        if self.choices:
            return self.choices.index(value) / max(len(self.choices) - 1, 1) if value in self.choices else 0.0
        low, high, now = (math.log(x) if self.log else float(x) for x in (self.low, self.high, max(value, self.low)))
        return min((now - low) / (high - low), 1.0) if high > low else 0.5

    def words(self) -> str:
        """The range as it is written in the settings."""
        if self.choices:
            return "|".join(f"{choice:g}" if isinstance(choice, float) else str(choice) for choice in self.choices)
        return f"{self.low:g}..{self.high:g}" + (" log" if self.log else "") + (f" step {self.step:g}" if self.step else "")


def space_of(settings: Settings) -> list[Dial]:
    """The dials of `tune.space`, or the known ones.

    Raises:
        SettingsError: an unknown dial, one that does not change what is judged, or a range that makes no sense.
    """
    judge = settings.tune.judge
    if judge not in SECTIONS:
        raise SettingsError(f"tune.judge is {judge!r}; expected whole, fused or sequence.")
    named = settings.tune.space or {key: "" for key in DIALS if key.partition(".")[0] in SECTIONS[judge]}
    return [dial(key, text, judge) for key, text in named.items()]


def dial(key: str, text: str = "", judge: str = "whole") -> Dial:
    """One dial from its key and range; an empty range is the known one.

    Raises:
        SettingsError: as `space_of`.
    """
    known = searchable()
    if key not in known:
        raise SettingsError(f"tune.space names {key!r}, which is no dial.{nearest(key, sorted(known))}")
    if key.partition(".")[0] not in SECTIONS[judge]:
        raise SettingsError(
            f"tune.space names {key}, which changes nothing that tune.judge={judge} looks at. Set tune.judge=whole."
        )
    text = text.strip() or {**DIALS, **OTHERS}.get(key, "")
    if not text:
        raise SettingsError(f"{key} has no known range: write one, as in {key} = {known[key]}..{known[key]} or a|b|c")
    found = _parse(key, text, known[key])
    for value in found.choices or (found.low, found.high):
        with_changes(Settings(), {key: int(value) if found.whole else value})
    return found


def searchable() -> dict[str, Value]:
    """Every key that can be a dial, with its default: the single numbers, words and switches of the sections that are judged."""
    table = to_table(Settings())
    return {
        f"{section}.{key}": value
        for section in _ALL
        for key, value in table[section].items()
        if isinstance(value, int | float | str | bool)
    }


def with_changes(settings: Settings, changes: Mapping[str, Value]) -> Settings:
    """The settings with some keys changed.

    Raises:
        SettingsError: a value that the key does not take.
    """
    table = to_table(settings)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        table[section][name] = value
    return from_table(table)


def value_of(settings: Settings, key: str) -> Value:
    """What a key is set to."""
    section, _, name = key.partition(".")
    found: Value = getattr(getattr(settings, section), name)
    return found


def _parse(key: str, text: str, default: Value) -> Dial:
    if ".." not in text:
        choices = tuple(_value(key, part, default) for part in text.replace("|", ",").split(",") if part.strip())
        if len(set(choices)) != len(choices) or not choices:
            raise SettingsError(f"tune.space: {key} = {text!r} is no list of different values, as in 64|128|256.")
        return Dial(key, choices)
    ends, *rest = text.split()
    words = " ".join(rest)
    low, _, high = ends.partition("..")
    if isinstance(default, str | bool):
        raise SettingsError(f"tune.space: {key} = {text!r}: {key} is no number. Write its values, as in a|b.")
    first, last = _value(key, low, default), _value(key, high, default)
    log, step = words == "log", 0.0
    if words.startswith("step "):
        step = float(_value(key, words.removeprefix("step "), default))
    elif words and not log:
        raise SettingsError(f"tune.space: {key} = {text!r} ends with {words!r}; expected log, step NUMBER or nothing.")
    if not float(first) < float(last) or (log and float(first) <= 0) or step < 0:
        raise SettingsError(f"tune.space: {key} = {text!r}: expected LOW..HIGH with LOW below HIGH, and above 0 for log.")
    return Dial(key, (), float(first), float(last), isinstance(default, int), log, step)


def _value(key: str, text: str, default: Value) -> Value:
    """A text as the type that the key has."""
    text = text.strip()
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise SettingsError(f"tune.space: {key} takes true or false; found {text!r}.")
    try:
        return int(text) if isinstance(default, int) else float(text)
    except ValueError:
        kind = "whole numbers" if isinstance(default, int) else "numbers"
        raise SettingsError(f"tune.space: {key} takes {kind}; found {text!r}.") from None
