"""The edges become vectors of items: handed on from items that people met, or learned from the edges themselves; and whether they help is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.data.sequences import Sequences
from tastemaker.models.graph import ROTATE, TRANSE, EdgeModel
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.graph import ITEM, Graph
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import GraphSettings, Settings
from tastemaker.training.holdout import Holdout
from tastemaker.training.loop import LoopOptions, Task, run
from tastemaker.training.optimisers import OptimiserOptions
from tastemaker.training.propagation import SHRINK, item_tastes, propagate, taste_basis, unit
from tastemaker.training.text_judge import chance_gain, new_item_gains

AUTO, PROPAGATE, NONE = "auto", "propagate", ""
MODELS = (AUTO, PROPAGATE, ROTATE, TRANSE, NONE)


@dataclass(frozen=True)
class ItemGraph:
    """Vectors of items by what they are connected with, for the events of any part of the log.

    Attributes:
        graph: items and entities.
        kind: `propagate`, `rotate` or `transe`.
        basis: of `propagate`: places of users, float32 [U, d], the same for all parts of the log.
        learned: of the others: vectors of all nodes, float32 [n, D].
        metrics: figures of the choice.
    """

    graph: Graph
    kind: str
    basis: FloatArray | None = None
    learned: FloatArray | None = None
    metrics: dict[str, float | int] = field(default_factory=dict)

    def nodes(self, sequences: Sequences) -> FloatArray:
        """Vectors of all nodes, unit rows or zero, float32 [n, D]."""
        if self.basis is not None:
            return propagate(self.graph, item_tastes(sequences, self.basis))
        assert self.learned is not None
        return self.learned

    def items(self, sequences: Sequences) -> FloatArray:
        """Vectors of the catalogue's items, unit rows; zero rows for items that no edge says anything of, float32 [N, D]."""
        return self.nodes(sequences)[: self.graph.n_items]


@dataclass(frozen=True)
class TrainedGraph:
    """What a bundle holds of the graph.

    Attributes:
        graph: items and entities, for reasons.
        later: vectors of items that edges name though the catalogue does not hold them yet, by id; empty where vectors are not used.
        entities: vectors of entities, times what an entity counts among those of an item, float32 [M, D]; the names of `graph` in their order,
            items among them left as zero rows. None where vectors are not used.
    """

    graph: Graph
    later: dict[str, FloatArray] = field(default_factory=dict)
    entities: FloatArray | None = None


def trained_graph(graph: Graph | None, found: ItemGraph | None, sequences: Sequences) -> TrainedGraph | None:
    """What a bundle that learned from all of these events holds of the graph; None where no edge leads to an item."""
    if graph is None:
        return None
    if found is None:
        return TrainedGraph(graph)
    nodes = found.nodes(sequences)
    return TrainedGraph(graph, later_items(graph, nodes), weighed_entities(graph, nodes))


@dataclass(frozen=True)
class GraphChoice:
    """What became of the edges: `found` is None where they are not used, and `notes` say why."""

    found: ItemGraph | None = None
    metrics: dict[str, float | int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def check_graph(settings: GraphSettings) -> None:
    """Raises SettingsError where `graph.model` is unknown, or RotatE's dimensions are odd."""
    if settings.model not in MODELS:
        raise SettingsError(f"graph.model is {settings.model!r}; expected one of {', '.join(repr(name) for name in MODELS)}.")
    if settings.model == ROTATE and settings.dim % 2:
        raise SettingsError(f"graph.dim is {settings.dim}; RotatE's numbers are complex and need an even number of dimensions.")


def choose_graph(
    graph: Graph | None,
    held: Holdout,
    text: FloatArray,
    settings: Settings,
    progress: Progress | None = None,
    run_dir: Path | None = None,
) -> GraphChoice:
    """The vectors that the settings ask for; with `auto` those of `propagate`, if texts and they find held-back new items better than texts alone.

    "Better" is a mean gain of more than one standard error, so that edges which say nothing are not used. Texts that find less than chance does,
    because there are none, count as chance.

    Args:
        graph: items and entities; None: no such edges.
        held: what may be learned from, and the new items that judge.
        text: whitened text vectors, float32 [N, T].
        progress, run_dir: as in `training.loop.run`.

    Raises:
        SettingsError: an unknown model.
    """
    chosen = settings.graph
    check_graph(chosen)
    if graph is None or chosen.model == NONE:
        return GraphChoice()
    if chosen.model in (AUTO, PROPAGATE):
        found = ItemGraph(graph, PROPAGATE, taste_basis(held.train, chosen.dim, settings.train.seed))
    else:
        found = ItemGraph(graph, chosen.model, learned=learn_edges(graph, held.train, settings, progress, run_dir))
    decay = settings.neighbours.text_decay
    vectors = found.items(held.train)
    alone = new_item_gains(text, held, decay)
    beside = new_item_gains(np.concatenate([text, vectors], axis=1), held, decay)
    metrics: dict[str, float | int] = {"graph_edges": graph.n_edges, "graph_items": int((np.abs(vectors).sum(axis=1) > 0).sum())}
    if len(alone):
        alone = alone if alone.mean() >= chance_gain(held) else np.full(len(alone), chance_gain(held))
        metrics |= {"graph_new_items_ndcg_text": float(alone.mean()), "graph_new_items_ndcg": float(beside.mean())}
    if chosen.model != AUTO:
        return GraphChoice(found, metrics)
    gain = beside - alone
    error = float(gain.std() / math.sqrt(max(len(gain), 1)))
    if len(gain) < 2 or gain.mean() <= error:
        told = (
            f"{float(gain.mean()):+.4f} NDCG@10 ± {error:.4f} on {len(gain):,} held-back events of new items"
            if len(gain)
            else "nothing to judge by"
        )
        return GraphChoice(
            None,
            metrics,
            [f"Edges of items are not used for their vectors: {told} (graph.model = propagate uses them all the same)."],
        )
    return GraphChoice(found, metrics)


def learn_edges(
    graph: Graph, sequences: Sequences, settings: Settings, progress: Progress | None = None, run_dir: Path | None = None
) -> FloatArray:
    """Vectors of all nodes by TransE or RotatE, unit rows, float32 [n, D]; who met what are edges too (a collaborative graph as in KGAT, Wang et
    al. 2019), so that what is alike to people is close."""
    chosen = settings.graph
    torch.manual_seed(settings.train.seed)
    task = EdgeTask(graph, sequences, settings)
    options = LoopOptions(
        epochs=chosen.epochs,
        optimiser=OptimiserOptions(settings.train.optimiser, settings.train.schedule, chosen.learning_rate, 0.0, 0.05),
        checkpoint_seconds=settings.train.checkpoint_seconds,
        seed=settings.train.seed,
    )
    run(task, options, "graph", progress, run_dir)
    found = task.model.nodes.detach().numpy()[: graph.n_nodes].copy()
    lonely = graph.degrees() == 0
    found[lonely] = 0.0
    return unit(found - found[~lonely].mean(axis=0) * ~lonely[:, None])


class EdgeTask(Task):
    """True edges against wrong ones."""

    def __init__(self, graph: Graph, sequences: Sequences, settings: Settings) -> None:
        chosen = settings.graph
        owner = np.repeat(np.arange(graph.n_nodes), graph.degrees())
        forward = np.asarray(graph.relations) >= 0
        edges = np.stack([owner[forward], np.asarray(graph.relations)[forward], np.asarray(graph.others)[forward]], axis=1)
        users = np.repeat(np.arange(sequences.n_users), sequences.lengths()) + graph.n_nodes
        took = np.stack([users, np.full(len(users), len(graph.relation_names)), sequences.items], axis=1)
        self._edges = torch.from_numpy(np.concatenate([edges, took]).astype(np.int64))
        weights = np.concatenate([np.asarray(graph.weights)[forward], np.ones(len(took), np.float32)])
        self._weights = torch.from_numpy(weights.astype(np.float32))
        nodes = graph.n_nodes + sequences.n_users
        self.model: EdgeModel = EdgeModel(nodes, len(graph.relation_names) + 1, chosen.dim, chosen.model, chosen.margin)
        self._batch, self._count, self._temperature = chosen.batch_size, chosen.negatives, chosen.temperature
        self._seed, self._nodes = settings.train.seed, nodes

    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-len(self._edges) // self._batch)

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Numbers of edges."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._edges))
        yield from np.array_split(order, self.steps())

    def loss(self, batch: NDArray[np.int64]) -> Tensor:
        """Mean over the batch's edges; ends of other edges of the whole graph are the wrong ones."""
        drawn = torch.randint(len(self._edges), (self._count,))
        side = torch.randint(2, (self._count,)) * 2
        wrong = self._edges[drawn, side]
        chosen = torch.from_numpy(batch)
        return self.model.loss(self._edges[chosen], wrong, self._weights[chosen], self._temperature)

    def weight(self, batch: NDArray[np.int64]) -> float:
        """Weights of the edges of a part of a batch."""
        return float(self._weights[torch.from_numpy(batch)].sum())

    def fingerprint(self) -> str:
        """A hash over the edges."""
        found = xxhash.xxh3_64()
        for values in (self._edges, self._weights):
            found.update(values.numpy().data)
        return found.hexdigest()


def later_items(graph: Graph, vectors: FloatArray) -> dict[str, FloatArray]:
    """Vectors of items that edges name though the catalogue does not hold them yet, by id."""
    rows = {
        name.removeprefix(ITEM): vectors[graph.n_items + place] for place, name in enumerate(graph.names) if name.startswith(ITEM)
    }
    return {item: row for item, row in rows.items() if np.any(row)}


def weighed_entities(graph: Graph, vectors: FloatArray) -> FloatArray:
    """Vectors of what is not in the catalogue, rare and well-known ones the longer, float32 [M, D]; zero rows for items."""
    degrees = graph.degrees()[graph.n_items :].astype(np.float32)
    weight = np.log(max(graph.n_items, 2) / np.maximum(degrees, 1)).clip(0) * degrees / (degrees + SHRINK)
    weight[[name.startswith(ITEM) for name in graph.names]] = 0.0
    found: FloatArray = (weight[:, None] * vectors[graph.n_items :]).astype(np.float32)
    return found
