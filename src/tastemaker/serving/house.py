"""The rules of the house: what the settings ask of every list, and what a request adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import numpy as np

from tastemaker.pipeline.filters import Test, compile_filter
from tastemaker.pipeline.rules import Rules, compile_pushes, joined_caps
from tastemaker.schema.free_json import check_json, check_text
from tastemaker.schema.protocols import BoolArray, IntArray
from tastemaker.schema.queries import RecommendQuery
from tastemaker.schema.rules import Cap, Pin
from tastemaker.schema.settings import ListSettings

_NOTHING = RecommendQuery()
_rules_of = attrgetter("diversity", "diversity_by", "pinned", "boost", "bury", "max_per", "near_duplicates", "same_title")
"""What a request says of rules."""
_NO_RULES = _rules_of(_NOTHING)


class House:
    """The service's own rules, compiled.

    Args:
        settings: the section `lists`.

    Attributes:
        admitted: which items may appear at all, by their fields; None: all that are not hidden.

    Raises:
        InputError: a rule makes no sense; the message says which.
    """

    def __init__(self, settings: ListSettings) -> None:
        self.settings = settings
        self.admitted: Test | None = compile_filter(settings.filter) if settings.filter else None
        self._pushes = compile_pushes(settings.boost, settings.bury, "service ")
        self._plain = self._joined({}, 0, np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int32), _NOTHING, [])

    @property
    def neutral(self) -> bool:
        """Whether lists are ordered by scores alone, as far as the house is asked."""
        own = self.settings
        return not (own.diversity or own.pinned or self._pushes or own.max_per or own.near_duplicates or own.same_title)

    def rules(
        self,
        index_of: Mapping[str, int],
        k: int,
        barred: BoolArray,
        history: IntArray,
        query: RecommendQuery = _NOTHING,
        notes: list[str] | None = None,
    ) -> Rules:
        """What a list obeys: the rules of the house and those of a request.

        Args:
            index_of: item index by id. k: length of the list. barred: bool [N], items that may not be shown.
            history: item indices that the asker has met; none of them is pinned.
            query: the request. notes: takes a sentence for each rule that can't be kept.

        Raises:
            InputError: a filter of the request makes no sense.
        """
        if not self.settings.pinned and _rules_of(query) == _NO_RULES:
            return self._plain
        return self._joined(index_of, k, barred, history, query, [] if notes is None else notes)

    def _joined(
        self,
        index_of: Mapping[str, int],
        k: int,
        barred: BoolArray,
        history: IntArray,
        query: RecommendQuery,
        told: list[str],
    ) -> Rules:
        own, caps = self.settings, [query.max_per] if isinstance(query.max_per, Cap) else query.max_per
        for shift in (*query.boost, *query.bury):
            check_json(shift.filter)
        for cap in caps:
            check_text(cap.field)
        return Rules(
            diversity=own.diversity if query.diversity is None else query.diversity,
            diversity_by=query.diversity_by or own.diversity_by,
            pins=_pins([*query.pinned, *own.pinned], index_of, k, barred, query.exclude, history, told),
            pushes=(*self._pushes, *compile_pushes(query.boost, query.bury)),
            caps=joined_caps(own.max_per, caps),
            near_duplicates=own.near_duplicates if query.near_duplicates is None else query.near_duplicates,
            same_title=own.same_title if query.same_title is None else query.same_title,
        )


def _pins(
    pins: Sequence[Pin],
    index_of: Mapping[str, int],
    k: int,
    barred: BoolArray,
    excluded: Sequence[str],
    history: IntArray,
    notes: list[str],
) -> dict[int, int]:
    """Place (0 is the top) to item index. Pins with a place come first; one that can't be kept is left out, and a note tells why."""
    found: dict[int, int] = {}
    met, last = set(history.tolist()) if pins else set(), min(k, len(barred))
    for pin in sorted(pins, key=lambda one: one.place is None):
        item = index_of.get(pin.item_id)
        wanted = next((at for at in range(last) if at not in found), last) if pin.place is None else pin.place - 1
        why = None
        if item is None:
            why = "there is no such item"
        elif barred[item] or pin.item_id in excluded:
            why = "it is hidden, filtered or excluded"
        elif item in met:
            why = "the user has met it"
        elif item in found.values():
            why = "it is pinned twice"
        elif wanted >= last:
            why = f"place {wanted + 1} is below the end of the list"
        elif wanted in found:
            why = f"place {wanted + 1} is taken by another pin"
        if why is not None or item is None:
            notes.append(f"Pinned item {pin.item_id!r} was left out: {why}.")
        else:
            found[wanted] = item
    return found
