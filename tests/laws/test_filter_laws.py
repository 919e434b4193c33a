"""A filter answered by columns is the filter asked row by row, whatever the rows, the filter and the changes between."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tastemaker.pipeline.fields import Fields
from tastemaker.pipeline.filters import compile_filter

VALUES = st.none() | st.sampled_from(["a", "b", "3", "", "x" * 9]) | st.integers(-3, 9) | st.floats(-3, 9) | st.booleans()
FIELDS = st.sampled_from(["kind", "price", "tags", "brand", "nothing"])
ROWS = st.fixed_dictionaries(
    {"kind": VALUES, "price": VALUES, "tags": st.lists(VALUES, max_size=3)},
    optional={"extra": st.none() | st.dictionaries(FIELDS, VALUES | st.lists(VALUES, max_size=2), max_size=2)},
)
COMPARISONS = st.one_of(
    st.tuples(st.sampled_from(["any_of", "none_of"]), st.lists(VALUES, max_size=3)),
    st.tuples(st.just("eq"), VALUES),
    st.tuples(st.sampled_from(["lt", "lte", "gt", "gte"]), st.integers(-3, 9) | st.floats(-3, 9)),
    st.tuples(st.just("exists"), st.booleans()),
)
LEAVES = st.builds(lambda field, signs: {"field": field, **dict(signs)}, FIELDS, st.lists(COMPARISONS, min_size=1, max_size=2))
SPECS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda word, some: {word: some}, st.sampled_from(["all", "any"]), st.lists(inner, max_size=3))
        | st.builds(lambda one: {"not": one}, inner)
    ),
    max_leaves=6,
)


@given(
    rows=st.lists(ROWS, max_size=12),
    specs=st.lists(SPECS, min_size=1, max_size=3),
    changes=st.lists(st.tuples(st.integers(0, 14), ROWS)),
)
def test_columns_say_what_rows_say(
    rows: list[dict[str, Any]], specs: list[dict[str, Any]], changes: list[tuple[int, dict[str, Any]]]
) -> None:
    fields = Fields(rows)

    def check() -> None:
        for spec in specs:
            test = compile_filter(spec)
            assert fields.matching(spec).tolist() == [test(row) for row in rows]

    check()
    for place, row in changes:
        if place < len(rows):
            rows[place] = row
            fields.changed([place])
        else:
            rows.append(row)
            if place % 2:  # of some additions nobody is told, such as items that only events name
                fields.changed([len(rows) - 1])
        check()


def test_a_changed_item_loses_its_old_values() -> None:
    rows: list[dict[str, Any]] = [{"kind": "a", "price": 1.0}, {"kind": "b", "price": 2.0}]
    fields = Fields(rows)
    assert fields.matching({"field": "kind", "eq": "a"}).tolist() == [True, False]
    rows[0] = {"kind": "b", "price": 3.0}
    fields.changed([0])
    assert fields.matching({"field": "kind", "eq": "a"}).tolist() == [False, False]
    assert fields.matching({"field": "kind", "eq": "b"}).tolist() == [True, True]
    assert fields.matching({"field": "price", "gt": 2}).tolist() == [True, False]
