"""A graph as both wings say it: nodes by number, edges packed by node; and a path through it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ITEM, USER, ENTITY = "item:", "user:", "entity:"
"""How the id of a node tells what it is; an id without one of these is an entity's."""
NAME_RELATION = "name"
"""An edge of this relation says what its head is called: its tail is a text, not a node."""
SELF_LOOP = "head and tail are the same"
"""Why an edge is refused."""


@dataclass(frozen=True)
class Graph:
    """Nodes and edges, each edge kept at both of its ends.

    Attributes:
        names: ids of the nodes that are not in the catalogue, with their prefix; node `n_items + i` is called `names[i]`.
        labels: what these nodes are called in a sentence; "" where nothing readable is known.
        n_items: nodes 0 to n_items - 1 are the catalogue's items, in its order.
        offsets: int64 [n + 1]; node v's edges are `offsets[v]:offsets[v + 1]`, other ends growing.
        others: int32 [2E], the other end.
        relations: int16 [2E]; r >= 0: an index into `relation_names`, this node is the head; ~r: it is the tail.
        weights: float32 [2E], above 0.
        relation_names: as they were imported.
    """

    names: list[str]
    labels: list[str]
    n_items: int
    offsets: NDArray[np.int64]
    others: NDArray[np.int32]
    relations: NDArray[np.int16]
    weights: NDArray[np.float32]
    relation_names: list[str]

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.offsets) - 1

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.others) // 2

    def degrees(self) -> NDArray[np.int64]:
        """Edges of each node, int64 [n]."""
        found: NDArray[np.int64] = np.diff(self.offsets)
        return found


@dataclass(frozen=True)
class Social:
    """Who is connected with whom; every connection counts in both directions.

    Attributes:
        names: user ids without prefix; the first `n_known` are those with events, in the order of the histories.
        n_known: users that have events.
        offsets: int64 [n + 1]; user u's friends are `offsets[u]:offsets[u + 1]`, growing.
        friends: int32 [2E].
        weights: float32 [2E], above 0.
    """

    names: list[str]
    n_known: int
    offsets: NDArray[np.int64]
    friends: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Hop:
    """One edge of a path.

    Attributes:
        relation: its name as imported.
        forward: whether the path walks from head to tail.
        node: the node that it leads to.
        label: what that node is called; "" where nothing readable is known.
    """

    relation: str
    forward: bool
    node: int
    label: str


@dataclass(frozen=True)
class Path:
    """How an item hangs together with an item of a history.

    Attributes:
        item, near: item indices of its two ends.
        hops: from `item` to `near`.
        cost: the less, the more it says; rare nodes on the way make it cheap.
    """

    item: int
    near: int
    hops: tuple[Hop, ...]
    cost: float
