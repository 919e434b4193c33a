"""Who may not be in the list: hidden, deleted, asked to be left out, or not what the request's filter wants.

A filter is JSON: `{"all": [{"field": "categories", "any_of": ["boots"]}, {"field": "price", "lte": 80}]}`, with `all`, `any`, `not` to combine and
`any_of`, `none_of`, `eq`, `lt`, `lte`, `gt`, `gte`, `exists` to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tastemaker.schema.errors import InputError

Row = Mapping[str, Any]
Test = Callable[[Row], bool]
MAX_DEPTH = 16
_COMBINE = ("all", "any", "not")
_COMPARE = ("any_of", "none_of", "eq", "lt", "lte", "gt", "gte", "exists")


def compile_filter(spec: Any, depth: int = 0) -> Test:
    """A test for one item's fields.

    Raises:
        InputError: the filter makes no sense; the message says where.
    """
    if depth > MAX_DEPTH:
        raise InputError(f"The filter is nested more than {MAX_DEPTH} deep. Write it flatter.")
    if not isinstance(spec, Mapping) or not spec:
        raise InputError(f"A filter is an object such as {{'field': 'price', 'lte': 80}}; found {str(spec)[:80]!r}.")
    if "field" in spec:
        return _comparison(spec)
    unknown = [key for key in spec if key not in _COMBINE]
    if unknown or len(spec) != 1:
        raise InputError(
            f"A filter has one of {', '.join(_COMBINE)}, or a field with a comparison; found {', '.join(map(str, spec))}."
        )
    word, inner = next(iter(spec.items()))
    if word == "not":
        test = compile_filter(inner, depth + 1)
        return lambda row: not test(row)
    if not isinstance(inner, list):
        raise InputError(f"{word!r} holds a list of filters; found {str(inner)[:80]!r}.")
    tests = [compile_filter(one, depth + 1) for one in inner]
    combine = all if word == "all" else any
    return lambda row: combine(test(row) for test in tests)


def values_of(row: Row, field: str) -> set[str]:
    """The values of a field as texts, those of `extra` too; empty where there is none."""
    return _values(field_of(row, field))


def _comparison(spec: Mapping[str, Any]) -> Test:
    field = spec["field"]
    signs = [key for key in spec if key != "field"]
    unknown = [sign for sign in signs if sign not in _COMPARE]
    if not isinstance(field, str) or unknown or not signs:
        raise InputError(f"A comparison has a field and one of {', '.join(_COMPARE)}; found {', '.join(map(str, spec))}.")
    tests = [_one(field, sign, spec[sign]) for sign in signs]
    return lambda row: all(test(row) for test in tests)


def _one(field: str, sign: str, wanted: Any) -> Test:
    if sign == "exists":
        return lambda row: (field_of(row, field) not in (None, [], "")) is bool(wanted)
    if sign in ("any_of", "none_of"):
        if not isinstance(wanted, list) or any(isinstance(value, dict | list) for value in wanted):
            raise InputError(f"{sign!r} holds a list of plain values; found {str(wanted)[:80]!r}.")
        words = {str(value) for value in wanted}
        inside = sign == "any_of"
        return lambda row: bool(words & _values(field_of(row, field))) is inside
    if sign == "eq":
        return lambda row: str(wanted) in _values(field_of(row, field))
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        raise InputError(f"{sign!r} compares with a number; found {str(wanted)[:80]!r}.")
    compare: dict[str, Callable[[float, float], bool]] = {
        "lt": lambda a, b: a < b,
        "lte": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "gte": lambda a, b: a >= b,
    }
    return lambda row: (value := number_of(field_of(row, field))) is not None and compare[sign](value, float(wanted))


def field_of(row: Row, field: str) -> Any:
    """A field of an item, that of `extra` where it has no other; None where there is none."""
    if field in row:
        return row[field]
    extra = row.get("extra")
    return extra.get(field) if isinstance(extra, Mapping) else None


def _values(value: Any) -> set[str]:
    if value is None:
        return set()
    return {str(part) for part in value} if isinstance(value, list | tuple) else {str(value)}


def number_of(value: Any) -> float | None:
    """A value as a number; None for what is none."""
    try:
        return None if value is None or isinstance(value, bool | list) else float(value)
    except (TypeError, ValueError):
        return None
