"""The table of edges as graphs of numbers, with hubs and strangers."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.graph import build_graphs, readable


def table(*rows: tuple[str, str, str, float]) -> pl.DataFrame:
    return pl.DataFrame(
        rows, schema={"head": pl.String, "relation": pl.String, "tail": pl.String, "weight": pl.Float64}, orient="row"
    )


def test_every_edge_is_kept_at_both_ends_and_strangers_are_named() -> None:
    edges = table(
        ("item:a", "director", "entity:m.07", 2.0), ("item:b", "director", "m.07", 1.0), ("item:x", "director", "entity:Mann", 1.0),
        ("entity:m.07", "name", "Michael Mann", 1.0), ("user:1", "likes", "item:a", 1.0), ("item:a", "bad", "item:b", float("nan")),
        ("user:1", "friend", "user:2", 1.0), ("user:2", "friend", "user:1", 3.0), ("user:9", "friend", "user:1", 1.0),
    )  # fmt: skip
    found = build_graphs(edges, ["a", "b"], ["1", "2"], 100)
    graph, social = found.knowledge, found.social
    assert graph is not None
    assert social is not None
    assert graph.names == ["entity:Mann", "entity:m.07", "item:x"]
    assert graph.labels == ["Mann", "Michael Mann", ""]
    assert graph.degrees().tolist() == [1, 1, 1, 2, 1]
    assert (graph.others[graph.offsets[3] : graph.offsets[4]].tolist(), graph.relations[graph.offsets[3]]) == ([0, 1], ~0)
    assert (graph.others[0], graph.relations[0], graph.weights[0]) == (3, 0, 2.0)
    assert (social.names, social.n_known) == (["1", "2", "9"], 2)
    assert social.friends.tolist() == [1, 2, 0, 0]
    assert social.weights.tolist() == [3.0, 1.0, 3.0, 1.0]  # said twice: the larger weight
    notes = " ".join(found.notes)
    assert "1 edges name 1 unknown items (item:x)" in notes
    assert "1 edges name 1 unknown users (user:9)" in notes
    assert "1 edges between a user and an item" in notes
    assert "1 edges have no weight above 0" in notes


def test_a_hub_of_a_million_edges_keeps_its_heaviest_and_is_named() -> None:
    n = 1_000_000
    items = [str(number) for number in range(n)]
    weights = np.where(np.arange(n) % 1_000 == 7, 2.0, 1.0)
    edges = pl.DataFrame({"head": pl.Series(items), "weight": weights}).select(
        head="item:" + pl.col("head"), relation=pl.lit("genre"), tail=pl.lit("entity:Drama"), weight=pl.col("weight")
    )
    one = build_graphs(edges, items, [], 5_000)
    assert one.knowledge is not None
    assert one.knowledge.n_edges == 5_000
    kept = one.knowledge.others[one.knowledge.offsets[n] :]
    assert set(range(7, n, 1_000)) <= set(kept.tolist())
    assert "entity:Drama with 1,000,000" in one.notes[-1]
    assert "graph.most_edges" in one.notes[-1]
    spread = np.histogram(kept, bins=10, range=(0, n))[0]
    assert spread.min() > 350  # the rest is drawn from everywhere, not from the beginning
    again = build_graphs(edges.head(20_000), items[:20_000], [], 5_000).knowledge
    twice = build_graphs(edges.head(20_000), items[:20_000], [], 5_000).knowledge
    assert again is not None
    assert twice is not None
    assert np.array_equal(again.others, twice.others)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=40), st.integers(1, 6))
def test_law_friendship_is_mutual_and_nobody_has_more_than_allowed(pairs: set[tuple[int, int]], most: int) -> None:
    rows = [(f"user:{one}", "friend", f"user:{other}", 1.0) for one, other in pairs if one != other]
    social = build_graphs(table(*rows), [], [str(number) for number in range(9)], most).social
    if social is None:
        assert not rows
        return
    kept = {(user, int(friend)) for user in range(9) for friend in social.friends[social.offsets[user] : social.offsets[user + 1]]}
    assert kept == {(other, one) for one, other in kept}
    assert np.diff(social.offsets).max() <= most
    whole = {frozenset(pair) for pair in pairs if pair[0] != pair[1]}
    assert {frozenset(pair) for pair in kept} <= whole
    if max((sum(number in pair for pair in whole) for number in range(9)), default=0) <= most:
        assert {frozenset(pair) for pair in kept} == whole


def test_numbers_of_databases_are_no_names() -> None:
    assert [readable(name) for name in ("entity:Tom_Hanks", "entity:m.0b8l01", "entity:Q42", "entity:2347", "entity:1984 film")] == [
        "Tom Hanks", "", "", "", "1984 film",
    ]  # fmt: skip


def test_no_edges_are_no_graphs() -> None:
    found = build_graphs(pl.DataFrame(), ["a"], ["1"], 5)
    assert found.knowledge is None
    assert found.social is None
    assert found.notes == []
