"""Paths through a graph: the cheapest short one, against all that there are; and their sentences."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.graph import build_graphs
from tastemaker.index.paths import HOP_COST, Paths, load_graph, save_graph
from tastemaker.pipeline.connections import connection, role
from tastemaker.schema.graph import Graph

FILMS = ["chihiro", "totoro", "ponyo", "heat", "alien", *(f"film{number}" for number in range(40))]
EDGES = [
    ("item:chihiro", "film.film.director", "entity:Hayao Miyazaki"),
    ("entity:Hayao Miyazaki", "film.director.film", "item:totoro"),
    *((f"item:{film}", "film.film.genre", "entity:Drama") for film in FILMS),
    ("item:ponyo", "sequel", "item:heat"),
    ("item:alien", "written_by", "entity:m.0x1"),
    ("item:heat", "film.film.actor", "entity:m.0x1"),
]


def graph_of(edges: list[tuple[str, str, str]], items: list[str]) -> Graph:
    table = pl.DataFrame([(*edge, 1.0) for edge in edges], schema=["head", "relation", "tail", "weight"], orient="row")
    found = build_graphs(table, items, [], 1_000).knowledge
    assert found is not None
    return found


def told(paths: Paths, item: str, history: list[str]) -> str | None:
    found = paths.path(FILMS.index(item), paths.near([FILMS.index(film) for film in history]))
    return None if found is None else connection(found, FILMS[found.near])


def test_reasons_name_what_is_shared_and_not_what_everything_shares(tmp_path: Path) -> None:
    save_graph(graph_of(EDGES, FILMS), tmp_path)
    paths = Paths(load_graph(tmp_path), lambda node: FILMS[node])
    assert told(paths, "totoro", ["film3", "chihiro"]) == "shares the director Hayao Miyazaki with chihiro"
    assert told(paths, "ponyo", ["chihiro"]) is None  # both are dramas, as is everything
    assert told(paths, "ponyo", ["heat"]) == "its sequel is heat"
    assert told(paths, "heat", ["ponyo"]) == "it is sequel of ponyo"
    assert told(paths, "alien", ["heat"]) == "its writer is also actor of heat"  # a number is no name
    assert told(paths, "ponyo", ["alien"]) == "its sequel heat and a writer of alien belong together (actor)"
    assert told(paths, "chihiro", ["chihiro"]) is None
    assert told(paths, "chihiro", []) is None


def test_relations_are_read_as_roles() -> None:
    cases = {
        ("film.film.director", True): "director", ("film.director.film", False): "director", ("directed_by", True): "director",
        ("film.film_genre.films_in_this_genre", False): "film genre", ("hasBrand", True): "brand", ("http://schema.org/actor", True): "actor",
        ("...", True): "connection",
    }  # fmt: skip
    assert {case: role(*case) for case in cases} == cases


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=24),
    st.integers(0, 5),
    st.sets(st.integers(0, 5), min_size=1),
)
def test_law_the_path_is_the_cheapest_of_all(pairs: set[tuple[int, int]], item: int, history: set[int]) -> None:
    """Against every walk of at most three edges, on items 0 to 5 and entities 6 to 9."""
    items = [str(number) for number in range(6)]
    edges = [(f"item:{one}", "r", f"item:{other}" if other < 6 else f"entity:e{other}") for one, other in pairs if one != other]
    if not edges:
        return
    graph = graph_of(edges, items)
    paths = Paths(graph)
    found = paths.path(item, paths.near(sorted(history)))
    near = {node: set(graph.others[graph.offsets[node] : graph.offsets[node + 1]].tolist()) for node in range(graph.n_nodes)}
    best = math.inf
    for length in (0, 1, 2):
        for inner in itertools.product(range(graph.n_nodes), repeat=length):
            for end in history - {item}:
                walk = (item, *inner, end)
                if len(set(walk)) == len(walk) and all(two in near[one] for one, two in itertools.pairwise(walk)):
                    best = min(
                        best,
                        HOP_COST * (length + 1)
                        + sum(math.log(max(len(graph.others[graph.offsets[node] : graph.offsets[node + 1]]), 1)) for node in inner),
                    )
    if found is None:
        assert best == math.inf
        return
    assert found.cost == pytest.approx(best)
    walk = [item, *(hop.node for hop in found.hops)]
    assert walk[-1] == found.near
    assert found.near in history
    assert all(two in near[one] for one, two in itertools.pairwise(walk))


def test_a_search_looks_at_a_bounded_number_of_edges() -> None:
    """Every film has 3,000 actors, and each of them 60 films: 180,000 edges lie within two steps."""
    items = [str(number) for number in range(3_000)]
    random = np.random.default_rng(0)
    edges = list(
        {
            (f"item:{number % 60}", "actor", f"entity:a{actor}")
            for number in range(60)
            for actor in random.integers(3_000, size=2_500)
        }
    )
    paths = Paths(graph_of(edges, items))
    seen = 0
    look = paths._edges

    def counted(node: int) -> range | list[int]:
        nonlocal seen
        found = look(node)
        seen += len(found)
        return found

    paths._edges = counted  # type: ignore[method-assign]
    assert paths.path(0, paths.near([2_999])) is None
    assert 0 < seen < 25_000
