"""Labels: which events count. `purchase`, `rating>=4`, `watch_ratio>=0.5`, as gorse writes them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from tastemaker.schema.errors import SettingsError

_GRAMMAR = re.compile(r"^\s*([^<>=!\s]+)\s*(?:(>=|<=|==|!=|=|>|<)\s*(-?\d+(?:\.\d+)?))?\s*$")
COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "=": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


@dataclass(frozen=True)
class Label:
    """An event type, and a bound on its value where there is one."""

    event_type: str
    sign: str | None = None
    bound: float = 0.0

    def holds(self, event_type: str, value: float | None) -> bool:
        """True if an event of this type and value bears the label; a missing value satisfies no bound."""
        if event_type != self.event_type:
            return False
        return self.sign is None or (value is not None and COMPARE[self.sign](value, self.bound))


def parse_label(expression: str) -> Label:
    """Reads a label.

    Raises:
        SettingsError: the text is none; the message shows the grammar.
    """
    match = _GRAMMAR.match(expression)
    if match is None:
        raise SettingsError(
            f"{expression!r} is no label. Expected an event type, as in `purchase`, or an event type with a bound on its value, "
            "as in `rating>=4` (operators: >= <= == != > <)."
        )
    name, sign, number = match.groups()
    return Label(name, sign, float(number) if number else 0.0)
