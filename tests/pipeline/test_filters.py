"""Filters on the fields of items, and the sentences of reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tastemaker.pipeline.explain import reason, sources
from tastemaker.pipeline.filters import compile_filter
from tastemaker.schema.errors import InputError

ROW = {
    "title": "Alpine boots",
    "categories": ["boots", "sale"],
    "price": 80.0,
    "image": None,
    "extra": {"colour": "red", "size": "42"},
}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"field": "categories", "any_of": ["boots", "hats"]}, True),
        ({"field": "categories", "none_of": ["boots"]}, False),
        ({"field": "price", "lte": 80}, True),
        ({"field": "price", "lt": 80}, False),
        ({"field": "price", "gt": 10, "gte": 80}, True),
        ({"field": "colour", "eq": "red"}, True),
        ({"field": "size", "gte": 40}, True),
        ({"field": "image", "exists": False}, True),
        ({"field": "unknown", "lt": 1}, False),
        ({"field": "unknown", "none_of": ["x"]}, True),
        ({"not": {"field": "price", "lt": 80}}, True),
        ({"all": [{"field": "price", "lte": 80}, {"field": "colour", "eq": "blue"}]}, False),
        ({"any": [{"field": "price", "lt": 80}, {"field": "colour", "eq": "red"}]}, True),
        ({"all": []}, True),
        ({"any": []}, False),
    ],
)
def test_filters(spec: dict[str, Any], wanted: bool) -> None:
    assert compile_filter(spec)(ROW) is wanted


@pytest.mark.parametrize(
    "spec",
    [
        *({}, [], 7, {"field": 1, "lt": 1}, {"field": "price"}, {"field": "price", "lt": "x"}, {"field": "price", "lt": True}),
        *({"all": 1}, {"all": [], "any": []}, {"some": []}, {"field": "a", "any_of": "boots"}, {"field": "a", "any_of": [{}]}),
    ],
)
def test_filters_without_sense_are_told(spec: Any) -> None:
    with pytest.raises(InputError):
        compile_filter(spec)


def test_a_filter_can_not_be_nested_without_end() -> None:
    spec: dict[str, Any] = {"field": "price", "lt": 1}
    for _ in range(40):
        spec = {"not": spec}
    with pytest.raises(InputError, match="flatter"):
        compile_filter(spec)


def test_reasons_are_sentences() -> None:
    assert reason("text", "Heat (1995)") == "reads like Heat (1995)"
    assert reason("popular", None) == "popular now"
    assert "Heat" in reason("sequence", "Heat (1995)")
    assert reason("fresh", None)
    assert sources(np.array([[0.1, 0.7], [0.9, -1]], np.float32), ("a", "b")) == ["b", "a"]
    assert sources(np.zeros((0, 2), np.float32), ("a", "b")) == []
