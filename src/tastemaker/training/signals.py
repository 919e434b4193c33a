"""The catalogue's items become vectors, signal by signal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tastemaker.data.dataset import Dataset
from tastemaker.data.graph import Graphs, build_graphs
from tastemaker.data.searches import Searches
from tastemaker.data.sequences import Sequences
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.signals import AUDIO, GRAPH, IMAGE, Signal, Signals
from tastemaker.training.encoder import Spread
from tastemaker.training.graph import GraphChoice, ItemGraph, choose_graph
from tastemaker.training.holdout import Holdout
from tastemaker.training.media import ReadMedia, read_media
from tastemaker.training.reading import ReadTexts, read_texts
from tastemaker.training.together import Launch


@dataclass(frozen=True)
class ReadSignals:
    """What the items became.

    Attributes:
        signals: one vector an item and signal.
        texts: what made the text vectors, and what reads new texts.
        media: what made the vectors of pictures and sounds, and what reads new ones.
        metrics: figures of the reading. notes: sentences for whoever trains.
        graphs: what the edges hold. by_graph: what makes the signal of the graph; None where there is none.
    """

    signals: Signals
    texts: ReadTexts
    media: tuple[ReadMedia, ...] = ()
    metrics: dict[str, float | int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    graphs: Graphs = field(default_factory=Graphs)
    by_graph: ItemGraph | None = None

    def anew(self, sequences: Sequences) -> Signals:
        """The signals as all events of `sequences` have them: vectors of a graph are handed on from what people met."""
        if self.by_graph is None:
            return self.signals
        found = Signal(GRAPH, self.by_graph.items(sequences))
        return Signals(tuple(found if part.name == GRAPH else part for part in self.signals.parts))


def read_signals(
    dataset: Dataset,
    settings: Settings,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    held: Holdout | None = None,
    run_dir: Path | None = None,
    searches: Searches | None = None,
    launch: Launch | None = None,
    spread: Spread | None = None,
) -> ReadSignals:
    """Reads all that is known of the items besides their events; arguments as those of `reading.read_texts`."""
    catalogue = dataset.catalogue()
    texts = read_texts(catalogue, settings, cache_dir, progress, held, run_dir, searches, launch, spread)
    media = [read_media(name, catalogue, settings, cache_dir, progress, held) for name in (IMAGE, AUDIO)]
    graphs = build_graphs(dataset.edges, dataset.item_ids(), held.train.user_ids if held else [], settings.graph.most_edges)
    chosen = choose_graph(graphs.knowledge, held, texts.vectors, settings, progress, run_dir) if held else GraphChoice()
    metrics, notes = {**texts.metrics, **chosen.metrics}, [*texts.notes, *graphs.notes, *chosen.notes]
    for one in media:
        metrics |= one.metrics
        notes += one.notes
    found = tuple(one for one in media if one.signal is not None)
    others = [one.signal for one in found if one.signal is not None]
    if chosen.found is not None and held is not None:
        others.append(Signal(GRAPH, chosen.found.items(held.train)))
    return ReadSignals(Signals.of(texts.vectors, *others), texts, found, metrics, notes, graphs, chosen.found)
