"""The catalogue by columns, so that a filter is answered for all items at once: a test row by row takes longer than finding the candidates.

A field's column is made when it is first asked for, and follows the catalogue from then on. A value's column is a bool for each item that has it, which
filters combine; the latest filters' answers are remembered until an item changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.pipeline.filters import compile_filter, field_of, number_of, values_of
from tastemaker.schema.protocols import BoolArray
from tastemaker.schema.unwritten import unwritten

Row = Mapping[str, Any]
REMEMBERED = 64
"""Filters, values of one field, and columns that are remembered: what was asked for longest ago goes."""


class Fields:
    """Answers filters over the rows of a catalogue.

    Args:
        rows: fields of each item, which may grow and change; `changed` is told of it.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._columns: OrderedDict[tuple[str, str], _Column] = OrderedDict()
        self._answers: OrderedDict[bytes, BoolArray] = OrderedDict()

    def changed(self, places: Iterable[int]) -> None:
        """These items were added or changed."""
        places = [place for place in places if place < len(self._rows)]
        if not places:
            return
        self._answers.clear()
        for column in self._columns.values():
            for place in places:
                column.put(place, self._rows[place])

    def matching(self, spec: Mapping[str, Any]) -> BoolArray:
        """Which items a filter lets pass, bool [N]; not to be written to.

        Raises:
            InputError: the filter makes no sense; the message says where.
        """
        compile_filter(spec)  # raises
        key = msgspec.json.encode(spec)
        found = self._answers.get(key)
        if found is None or len(found) != len(self._rows):
            found = self._answers[key] = unwritten(self._mask(spec))
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        else:
            self._answers.move_to_end(key)
        return found

    def _mask(self, spec: Mapping[str, Any]) -> BoolArray:
        if "field" in spec:
            masks = [self._one(spec["field"], sign, spec[sign]) for sign in spec if sign != "field"]
            whole: BoolArray = np.logical_and.reduce(masks)
            return whole
        word, inner = next(iter(spec.items()))
        if word == "not":
            return ~self._mask(inner)
        start = np.full(len(self._rows), word == "all")
        combine = np.logical_and if word == "all" else np.logical_or
        for one in inner:
            combine(start, self._mask(one), out=start)
        return start

    def _one(self, field: str, sign: str, wanted: Any) -> BoolArray:
        n = len(self._rows)
        if sign == "exists":
            there: BoolArray = self._column(field, "exists", _There).array[:n] > 0
            return there if wanted else ~there
        if sign in ("any_of", "none_of", "eq"):
            values = self._column(field, "values", _Values)
            mask: BoolArray = values.any_of([str(wanted)] if sign == "eq" else list({str(value) for value in wanted}), n)
            return ~mask if sign == "none_of" else mask
        numbers, limit = self._column(field, "numbers", _Numbers).array[:n], float(wanted)
        compare: dict[str, Callable[[Any, float], BoolArray]] = {
            "lt": np.less,
            "lte": np.less_equal,
            "gt": np.greater,
            "gte": np.greater_equal,
        }
        return compare[sign](numbers, limit)  # false for what is no number

    def _column(self, field: str, kind: str, make: Callable[[str], Any]) -> Any:
        column = self._columns.get((field, kind))
        if column is None:
            column = self._columns[field, kind] = make(field)
            if len(self._columns) > REMEMBERED:
                self._columns.popitem(last=False)
        else:
            self._columns.move_to_end((field, kind))
        for place in range(column.known, len(self._rows)):
            column.put(place, self._rows[place])
        return column


class _Column(ABC):
    """One field of all items. `known`: items that it has read."""

    def __init__(self, field: str, dtype: type = np.float64) -> None:
        self.field, self.known = field, 0
        self.array: NDArray[Any] = np.zeros(1024, dtype=dtype)

    def put(self, place: int, row: Row) -> None:
        """Reads an item, anew where it is known; those between are to follow."""
        if place > self.known:
            return
        if place >= len(self.array):
            grown = np.zeros(2 * len(self.array), dtype=self.array.dtype)
            grown[: len(self.array)] = self.array
            self.array = grown
        self._read(place, row)
        self.known = max(self.known, place + 1)

    @abstractmethod
    def _read(self, place: int, row: Row) -> None:
        """Reads one item."""


class _Numbers(_Column):
    """NaN where there is no number."""

    def _read(self, place: int, row: Row) -> None:
        number = number_of(field_of(row, self.field))
        self.array[place] = np.nan if number is None else number


class _There(_Column):
    """1 where there is something."""

    def _read(self, place: int, row: Row) -> None:
        self.array[place] = field_of(row, self.field) not in (None, [], "")


class _Values(_Column):
    """For each value the items that have it."""

    def __init__(self, field: str) -> None:
        super().__init__(field, np.int8)
        self._held: list[frozenset[str]] = []
        self._places: dict[str, set[int]] = {}
        self._same: dict[frozenset[str], frozenset[str]] = {}
        self._masks: OrderedDict[str, BoolArray] = OrderedDict()

    def any_of(self, values: Sequence[str], n: int) -> BoolArray:
        """Items that have one of the values, bool [n]."""
        found = np.zeros(n, dtype=bool)
        for value in values:
            if value not in self._places:
                continue
            mask = self._masks.get(value)
            if mask is None or len(mask) != n:
                mask = self._masks[value] = np.zeros(n, dtype=bool)
                mask[np.fromiter(self._places[value], np.int64, len(self._places[value]))] = True
                if len(self._masks) > REMEMBERED:
                    self._masks.popitem(last=False)
            found |= mask
        return found

    def _read(self, place: int, row: Row) -> None:
        values = frozenset(values_of(row, self.field))
        values = self._same.setdefault(values, values)
        if place < len(self._held):
            for gone in self._held[place] - values:
                self._places[gone].discard(place)
                self._masks.pop(gone, None)
            added = values - self._held[place]
            self._held[place] = values
        else:
            added = values
            self._held.append(values)
        for value in added:
            self._places.setdefault(value, set()).add(place)
            self._masks.pop(value, None)
