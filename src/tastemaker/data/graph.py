"""The table of edges as graphs of numbers: what items hang together by, and which users know each other.

Costs grow with the edges that are kept, and a hub keeps `most` of its edges at most, so that nothing later walks through a million of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.schema.columns import Columns
from tastemaker.schema.graph import ENTITY, ITEM, NAME_RELATION, USER, Graph, Social

_ENDS = (Columns.HEAD, Columns.TAIL)
_NUMBER = re.compile(r"^([mg]\.[0-9a-z_]+|[PQ]?\d+|[0-9a-f]{8,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$")
_FEW = 3


@dataclass(frozen=True)
class Graphs:
    """What the edges hold.

    Attributes:
        knowledge: edges between items and entities; None where there are none.
        social: edges between users; None where there are none.
        notes: sentences for whoever trains: what is unknown, cut or not used.
    """

    knowledge: Graph | None = None
    social: Social | None = None
    notes: list[str] = field(default_factory=list)


def build_graphs(edges: pl.DataFrame, item_ids: Sequence[str], user_ids: Sequence[str], most: int) -> Graphs:
    """Reads the table of edges.

    Edges between users and items or entities are not used: what a user did with an item is an event. Nodes that neither the catalogue nor any
    event knows are kept, for they may connect others, and are named in a note.

    Args:
        edges: head, relation, tail, weight (finite, above 0).
        item_ids, user_ids: known items and users, in the order of their numbers.
        most: edges that a node keeps; of more the heaviest, ties by a hash.
    """
    if edges.is_empty():
        return Graphs()
    weight = pl.col(Columns.WEIGHT)
    sound = edges.filter(weight.is_finite() & (weight > 0) & (pl.col(Columns.HEAD) != pl.col(Columns.TAIL)))
    named = pl.col(Columns.RELATION) == NAME_RELATION
    called = dict(sound.filter(named).select(_ENDS).iter_rows())
    sound = sound.filter(~named)
    of_users = [pl.col(end).str.starts_with(USER) for end in _ENDS]
    notes = _left_out(edges.height - len(called) - sound.height, sound.filter(of_users[0] != of_users[1]).height)
    social = _social(sound.filter(of_users[0] & of_users[1]), user_ids, most, notes)
    knowledge = _knowledge(sound.filter(~of_users[0] & ~of_users[1]), item_ids, called, most, notes)
    return Graphs(knowledge, social, notes)


def readable(name: str) -> str:
    """What a node is called where no edge says so: its id without prefix; "" where that is only a number of some database."""
    text = name.removeprefix(ENTITY).strip()
    return "" if _NUMBER.match(text) else text.replace("_", " ")


def _left_out(bad: int, mixed: int) -> list[str]:
    notes = [f"{bad:,} edges have no weight above 0 or lead to where they begin, and are not used."] if bad else []
    if mixed:
        notes.append(f"{mixed:,} edges between a user and an item or entity are not used: import what users did as events.")
    return notes


def _knowledge(edges: pl.DataFrame, item_ids: Sequence[str], called: dict[str, str], most: int, notes: list[str]) -> Graph | None:
    if edges.is_empty():
        return None
    ids = edges.with_columns(
        pl.when(pl.any_horizontal(pl.col(end).str.starts_with(prefix) for prefix in (ITEM, ENTITY)))
        .then(pl.col(end)).otherwise(pl.lit(ENTITY) + pl.col(end)).alias(end)
        for end in _ENDS
    )  # fmt: skip
    heads, tails, names = _numbered(ids, [ITEM + item for item in item_ids])
    strange = [place for place, name in enumerate(names) if name.startswith(ITEM)]
    notes += _unknown(heads, tails, [len(item_ids) + place for place in strange], [names[place] for place in strange], "item")
    relations = ids[Columns.RELATION].unique().sort().to_list()
    of = ids[Columns.RELATION].replace_strict(relations, list(range(len(relations))), return_dtype=pl.Int16).to_numpy()
    weights = ids[Columns.WEIGHT].to_numpy().astype(np.float32)
    n = len(item_ids) + len(names)
    kept = _thinned(heads, tails, weights, n, most)
    notes += _cut(kept, heads, tails, n, most, lambda node: _told(node, item_ids, names))
    heads, tails, of, weights = heads[kept], tails[kept], of[kept], weights[kept]
    offsets, others, order = _packed(heads, tails, n)
    both = np.concatenate([of, ~of])[order]
    labels = [
        called.get(name, called.get(name.removeprefix(ENTITY), readable(name) if name.startswith(ENTITY) else "")) for name in names
    ]
    return Graph(names, labels, len(item_ids), offsets, others, both, np.concatenate([weights, weights])[order], relations)


def _social(edges: pl.DataFrame, user_ids: Sequence[str], most: int, notes: list[str]) -> Social | None:
    if edges.is_empty():
        return None
    first, second, names = _numbered(edges, [USER + user for user in user_ids])
    notes += _unknown(first, second, range(len(user_ids), len(user_ids) + len(names)), names, "user")
    n = len(user_ids) + len(names)
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs, place = np.unique(low.astype(np.int64) * n + high, return_inverse=True)
    weights = np.zeros(len(pairs), dtype=np.float32)
    np.maximum.at(weights, place, edges[Columns.WEIGHT].to_numpy().astype(np.float32))
    low, high = (pairs // n).astype(np.int32), (pairs % n).astype(np.int32)
    kept = _thinned(low, high, weights, n, most)
    everybody = [*user_ids, *(name.removeprefix(USER) for name in names)]
    notes += _cut(kept, low, high, n, most, lambda node: USER + everybody[node])
    offsets, others, order = _packed(low[kept], high[kept], n)
    return Social(everybody, len(user_ids), offsets, others, np.concatenate([weights[kept], weights[kept]])[order])


def _numbered(edges: pl.DataFrame, known: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int32], list[str]]:
    """Both ends as numbers, int32 [E], known ids first; and the ids that were not known, in alphabetical order."""
    ids = pl.concat([edges[end] for end in _ENDS]).unique()
    later = ids.filter(~ids.is_in(pl.Series(known, dtype=pl.String).implode())).sort().to_list()
    table = pl.DataFrame(
        {"_id": [*known, *later], "_node": np.arange(len(known) + len(later), dtype=np.int32)}, schema_overrides={"_id": pl.String}
    )
    table = table.unique("_id", keep="first")
    heads, tails = (
        edges.select(end).join(table, left_on=end, right_on="_id", how="left", maintain_order="left")["_node"].to_numpy()
        for end in _ENDS
    )
    return heads, tails, later


def _thinned(
    heads: NDArray[np.int32], tails: NDArray[np.int32], weights: NDArray[np.float32], n: int, most: int
) -> NDArray[np.bool_]:
    """Which edges are among the `most` heaviest of both their ends, bool [E]; ties by a hash of the pair, the same in every run."""
    kept = np.ones(len(heads), dtype=bool)
    degree = np.bincount(heads, minlength=n) + np.bincount(tails, minlength=n)
    if degree.max(initial=0) <= most:
        return kept
    chance = _mixed(heads.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ tails.astype(np.uint64))
    own, edge = np.concatenate([heads, tails]), np.concatenate([np.arange(len(heads))] * 2)
    of_hubs = degree[own] > most
    own, edge = own[of_hubs], edge[of_hubs]
    order = np.lexsort((chance[edge], -weights[edge], own))
    own, edge = own[order], edge[order]
    begin = np.flatnonzero(np.diff(own, prepend=-1))
    place = np.arange(len(own)) - np.repeat(begin, np.diff(np.append(begin, len(own))))
    kept[edge[place >= most]] = False
    return kept


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (G. Steele et al., 2014): bits that depend on all bits."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _packed(
    heads: NDArray[np.int32], tails: NDArray[np.int32], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Offsets, the other ends, and where each packed edge stood in [heads' side, tails' side]."""
    own, other = np.concatenate([heads, tails]), np.concatenate([tails, heads])
    order = np.lexsort((other, own))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=n))]).astype(np.int64)
    return offsets, other[order].astype(np.int32), order


def _told(node: int, item_ids: Sequence[str], names: Sequence[str]) -> str:
    return ITEM + item_ids[node] if node < len(item_ids) else names[node - len(item_ids)]


def _unknown(
    heads: NDArray[np.int32], tails: NDArray[np.int32], nodes: Sequence[int], names: Sequence[str], what: str
) -> list[str]:
    """A note about nodes that nobody knows, and how many edges name them; none where there are none."""
    if not names:
        return []
    count = int((np.isin(heads, nodes) | np.isin(tails, nodes)).sum())
    fate = "they have no text and no event, and only connect others" if what == "item" else "they have friends, but no event"
    more = ", …" if len(names) > _FEW else ""
    return [f"{count:,} edges name {len(names):,} unknown {what}s ({', '.join(names[:_FEW])}{more}): {fate}."]


def _cut(
    kept: NDArray[np.bool_], heads: NDArray[np.int32], tails: NDArray[np.int32], n: int, most: int, name: Callable[[int], str]
) -> list[str]:
    """A note about hubs and the edges that they lost; none where none did."""
    if kept.all():
        return []
    degree = np.bincount(heads, minlength=n) + np.bincount(tails, minlength=n)
    hubs = np.flatnonzero(degree > most)
    first = hubs[np.argsort(-degree[hubs], kind="stable")[:_FEW]].tolist()
    told = ", ".join(f"{name(hub)} with {degree[hub]:,}" for hub in first) + (", …" if len(hubs) > _FEW else "")
    lost = len(kept) - int(kept.sum())
    return [f"{lost:,} edges of {len(hubs):,} hubs ({told}) were left out: a node keeps {most:,} (graph.most_edges)."]
