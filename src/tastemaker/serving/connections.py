"""How items hang together with what somebody met, in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tastemaker.index.paths import Paths, load_graph
from tastemaker.pipeline.connections import connection
from tastemaker.schema.protocols import IntArray
from tastemaker.streaming.state import LiveState


class Connections:
    """The graph of a bundle, asked by items as they are numbered right now.

    Args:
        folder: the bundle's `graph`. state: items and their titles.
    """

    def __init__(self, folder: Path, state: LiveState) -> None:
        self._state = state
        self.paths = Paths(load_graph(folder), self._title)

    @classmethod
    def open(cls, folder: Path, state: LiveState) -> Connections | None:
        """None where the bundle has no graph."""
        return cls(folder, state) if folder.is_dir() else None

    def to(self, history: IntArray) -> Callable[[int], str | None]:
        """Gives, for an item index, the sentence that connects it with a history, or None; the history is looked at once."""
        nodes = [self._node(item) for item in history.tolist()]
        near = self.paths.near([node for node in nodes if node is not None])

        def told(item: int) -> str | None:
            node = self._node(item)
            path = self.paths.path(node, near) if node is not None else None
            return None if path is None else connection(path, self._title(path.near))

        return told

    def _node(self, item: int) -> int | None:
        """The node of an item; one that is newer than the bundle has one if edges named it before."""
        return item if item < self.paths.graph.n_items else self.paths.node(self._state.rows[item]["item_id"])

    def _title(self, node: int) -> str:
        graph = self.paths.graph
        if node < graph.n_items:
            row = self._state.rows[node]
            return str(row.get("title") or row["item_id"])
        item_id = graph.names[node - graph.n_items].removeprefix("item:")
        place = self._state.index_of.get(item_id)
        return item_id if place is None else str(self._state.rows[place].get("title") or item_id)
