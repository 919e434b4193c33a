"""How an item hangs together with the items of a history: the cheapest short path, where rare nodes on the way are cheap.

What two films share says more the fewer films share it: a node with d edges costs log(d) to pass, and every edge costs a little. The search looks at
a bounded number of edges, whatever the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as Folder

import msgspec
import numpy as np
import polars as pl

from tastemaker.schema.graph import ITEM, Graph, Hop, Path

HOP_COST = 1.0
MOST_HOPS = 3
LATEST = 20
"""Items of a history that are looked at, the newest."""
EDGES_OF_NODE = 200
"""Edges that are looked at where a search leaves a node."""
EDGES_OF_SEARCH = 20_000
DULL_SHARE = 0.1
"""A node that this share of the items is connected with says nothing (English, drama), and is not passed; small catalogues allow `DULL_LEAST`."""
DULL_LEAST = 10


@dataclass(frozen=True)
class _Reached:
    """How a node is reached from the history: over which nodes and edges, and at what cost."""

    near: int
    back: tuple[int, ...]  # packed edges, from the node to the item of the history
    cost: float


class Paths:
    """Searches one graph.

    Args:
        graph: its arrays may be memory-mapped.
        title_of: what an item is called, by its node; None: items on the way have no name.
    """

    def __init__(self, graph: Graph, title_of: Callable[[int], str] | None = None) -> None:
        self.graph, self._title_of = graph, title_of
        self._dull = max(DULL_LEAST, int(DULL_SHARE * graph.n_items))
        self._index: dict[str, int] | None = None

    def node(self, item_id: str) -> int | None:
        """The node of an item that the catalogue did not hold when the graph was made; None where no edge names it."""
        if self._index is None:
            self._index = {name: self.graph.n_items + place for place, name in enumerate(self.graph.names) if name.startswith(ITEM)}
        return self._index.get(ITEM + item_id)

    def is_item(self, node: int) -> bool:
        """Whether a node is an item, in the catalogue or not."""
        return node < self.graph.n_items or self.graph.names[node - self.graph.n_items].startswith(ITEM)

    def near(self, history: Sequence[int]) -> dict[int, _Reached]:
        """What is one edge away from the latest items of a history (nodes, oldest first), and these items themselves; made once for a list."""
        found: dict[int, _Reached] = {}
        latest = list(dict.fromkeys(reversed(history)))[:LATEST]
        for item in latest:
            found[item] = _Reached(item, (), 0.0)
        for item in latest:
            for edge in self._edges(item):
                other = int(self.graph.others[edge])
                cost = HOP_COST + self._price(other)
                if other not in found or cost < found[other].cost:
                    found[other] = _Reached(item, (self._twin(item, edge),), cost)
        return found

    def path(self, item: int, near: dict[int, _Reached]) -> Path | None:
        """The cheapest path of at most three edges from an item to the history that `near` was made of; None where there is none.

        Args:
            item: a node: an item's number, or what `node` gave.
        """
        best: tuple[float, tuple[int, ...], int] | None = None
        left = EDGES_OF_SEARCH
        for edge in self._edges(item):
            middle = int(self.graph.others[edge])
            best = self._better(best, (edge,), middle, item, near)
        for edge in self._edges(item):
            middle = int(self.graph.others[edge])
            so_far = HOP_COST + self._price(middle)
            if not math.isfinite(so_far) or left <= 0 or (best is not None and so_far + HOP_COST >= best[0]):
                continue
            steps = self._edges(middle)
            left -= len(steps)
            for step in steps:
                end = int(self.graph.others[step])
                if end != item:
                    best = self._better(best, (edge, step), end, item, near)
        if best is None:
            return None
        cost, edges, start = best
        hops = tuple(self._hop(edge) for edge in edges)
        return Path(start, hops[-1].node, hops, cost)

    def _better(
        self,
        best: tuple[float, tuple[int, ...], int] | None,
        walked: tuple[int, ...],
        end: int,
        item: int,
        near: dict[int, _Reached],
    ) -> tuple[float, tuple[int, ...], int] | None:
        reached = near.get(end)
        if reached is None or reached.near == item or len(walked) + len(reached.back) > MOST_HOPS:
            return best
        passed = [int(self.graph.others[edge]) for edge in walked[:-1]]
        cost = HOP_COST * len(walked) + sum(self._price(node) for node in passed) + reached.cost
        if math.isfinite(cost) and (best is None or cost < best[0]):
            return cost, walked + reached.back, item
        return best

    def _edges(self, node: int) -> range | list[int]:
        """Packed edges of a node, a bounded number of them, spread evenly over all."""
        begin, end = int(self.graph.offsets[node]), int(self.graph.offsets[node + 1])
        if end - begin <= EDGES_OF_NODE:
            return range(begin, end)
        spread: list[int] = np.linspace(begin, end - 1, EDGES_OF_NODE).astype(int).tolist()
        return spread

    def _price(self, node: int) -> float:
        """What it costs to pass a node; no path leads over one that says nothing."""
        degree = int(self.graph.offsets[node + 1] - self.graph.offsets[node])
        return math.inf if degree > self._dull else math.log(max(degree, 1))

    def _twin(self, node: int, edge: int) -> int:
        """The same edge at its other end."""
        other, relation = int(self.graph.others[edge]), ~int(self.graph.relations[edge])
        begin, end = int(self.graph.offsets[other]), int(self.graph.offsets[other + 1])
        first = begin + int(np.searchsorted(self.graph.others[begin:end], node))
        while int(self.graph.relations[first]) != relation:
            first += 1
        return first

    def _hop(self, edge: int) -> Hop:
        graph, relation, node = self.graph, int(self.graph.relations[edge]), int(self.graph.others[edge])
        label = graph.labels[node - graph.n_items] if node >= graph.n_items else ""
        if self.is_item(node):
            label = self._title_of(node) if self._title_of is not None else ""
        name = graph.relation_names[relation if relation >= 0 else ~relation]
        return Hop(name, relation >= 0, node, label)


_ARRAYS = ("offsets", "others", "relations", "weights")


def save_graph(graph: Graph, folder: Folder) -> None:
    """Writes a graph's arrays as `.npy`, to be memory-mapped, and its names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(graph, name), allow_pickle=False)
    pl.DataFrame({"name": graph.names, "label": graph.labels}, schema={"name": pl.String, "label": pl.String}).write_parquet(
        folder / "nodes.parquet"
    )
    (folder / "graph.json").write_bytes(msgspec.json.encode({"n_items": graph.n_items, "relations": graph.relation_names}))


def load_graph(folder: Folder) -> Graph:
    """Reads what `save_graph` wrote; arrays are memory-mapped and so shared between processes."""
    told = msgspec.json.decode((folder / "graph.json").read_bytes())
    nodes = pl.read_parquet(folder / "nodes.parquet")
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS]
    offsets, others, relations, weights = arrays
    return Graph(
        nodes["name"].to_list(),
        nodes["label"].to_list(),
        int(told["n_items"]),
        offsets,
        others,
        relations,
        weights,
        list(told["relations"]),
    )
