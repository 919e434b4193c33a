"""Features by name: `item_events(window=7d)`, `item_rate(of=purchase, per=view)`. A new feature signs the contract by its line here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, get_type_hints

from tastemaker.features.affinity import Affinity
from tastemaker.features.base import Feature
from tastemaker.features.context import Device, TimeOfDay
from tastemaker.features.groups import GroupEvents, GroupRate
from tastemaker.features.item_age import ItemAge
from tastemaker.features.item_counts import ItemEvents, ItemFaded, ItemRank, ItemRate, ItemRecency, ItemTrend, ItemValue
from tastemaker.features.item_text import ItemQuality, ItemText
from tastemaker.features.parameters import nearest, value
from tastemaker.features.price import Price
from tastemaker.features.session import Session
from tastemaker.features.target import TargetRate
from tastemaker.features.text_match import TextMatch
from tastemaker.features.user_activity import UserEvents, UserFaded, UserRecency, UserValue
from tastemaker.features.user_item import UserItem
from tastemaker.schema.errors import SettingsError

REGISTRY: dict[str, type[Any]] = {
    "item_events": ItemEvents,
    "item_faded": ItemFaded,
    "item_rate": ItemRate,
    "item_trend": ItemTrend,
    "item_rank": ItemRank,
    "item_value": ItemValue,
    "item_recency": ItemRecency,
    "item_age": ItemAge,
    "item_text": ItemText,
    "item_quality": ItemQuality,
    "price": Price,
    "group_events": GroupEvents,
    "group_rate": GroupRate,
    "user_events": UserEvents,
    "user_faded": UserFaded,
    "user_recency": UserRecency,
    "user_value": UserValue,
    "affinity": Affinity,
    "session": Session,
    "user_item": UserItem,
    "text_match": TextMatch,
    "time_of_day": TimeOfDay,
    "device": Device,
    "target_rate": TargetRate,
}
_GRAMMAR = re.compile(r"^\s*([^\s(),=]+)\s*(?:\((.*)\))?\s*$", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Declared:
    """A feature and how it is called.

    Attributes:
        text: its name and the parameters that differ from their defaults, in the order of their definition.
    """

    text: str
    feature: Feature

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its columns: the text, and after a point the column where there are several."""
        return tuple(f"{self.text}.{column}" if column else self.text for column in self.feature.columns)


def declare(text: str) -> Declared:
    """Reads one feature.

    Raises:
        SettingsError: an unknown name or parameter (the nearest known one is named), a missing or an impossible one.
    """
    match = _GRAMMAR.match(text)
    if match is None:
        raise SettingsError(f"{text!r} is no feature. Expected a name with parameters, as in item_events(window=7d).")
    name, inside = match.groups()
    kind = REGISTRY.get(name)
    if kind is None:
        raise SettingsError(f"There is no feature {name!r}. {nearest(name, REGISTRY)}")
    given = _given(text, name, inside or "", kind)
    hints, fields = get_type_hints(kind, include_extras=True), {field.name: field for field in dataclasses.fields(kind)}
    values = {}
    for parameter, written in given.items():
        try:
            values[parameter] = value(written, hints[parameter])
        except SettingsError as error:
            raise SettingsError(f"{name}({parameter}={written}): {error}") from None
    for parameter, field in fields.items():
        if field.default is dataclasses.MISSING and parameter not in values:
            raise SettingsError(f"{name} needs {parameter}=…, as in {name}({parameter}=purchase).")
    shown = [
        f"{parameter}={given[parameter]}"
        for parameter, field in fields.items()
        if values.get(parameter, field.default) != field.default
    ]
    return Declared(f"{name}({', '.join(shown)})" if shown else name, kind(**values))


def declare_all(texts: Sequence[str]) -> list[Declared]:
    """Reads features, in order.

    Raises:
        SettingsError: one can't be read, or two are the same.
    """
    found: dict[Feature, str] = {}
    declared = []
    for text in texts:
        one = declare(text)
        if one.feature in found:
            raise SettingsError(f"{text!r} and {found[one.feature]!r} are the same feature. Leave one of them out.")
        found[one.feature] = text
        declared.append(one)
    return declared


def _given(text: str, name: str, inside: str, kind: type[Any]) -> dict[str, str]:
    """Parameters as they are written."""
    known = [field.name for field in dataclasses.fields(kind)]
    given: dict[str, str] = {}
    for part in filter(str.strip, inside.split(",")):
        parameter, equals, written = (piece.strip() for piece in part.partition("="))
        if not equals or not written:
            raise SettingsError(f"{text!r}: expected {name}(parameter=value, …), found {part.strip()!r}.")
        if parameter not in known:
            raise SettingsError(f"{name} has no parameter {parameter!r}. {nearest(parameter, known) if known else 'It has none.'}")
        if parameter in given:
            raise SettingsError(f"{text!r} gives {parameter} twice. Leave one of them out.")
        given[parameter] = written
    return given
