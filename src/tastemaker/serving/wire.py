"""Wires a bundle and the journal to the request road."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tastemaker.bundle.read import open_bundle
from tastemaker.bundle.registry import Registry
from tastemaker.index.channels import Channels
from tastemaker.index.lexical import Lexicon
from tastemaker.index.tokens import words_of
from tastemaker.inference.brain import Brain
from tastemaker.journal.append import Journal
from tastemaker.models.fusion import Fusion
from tastemaker.pipeline.engine import Road
from tastemaker.pipeline.rerank import order
from tastemaker.schema.errors import BundleError
from tastemaker.schema.items import Item
from tastemaker.schema.labels import parse_label
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray, QueryState
from tastemaker.streaming.consume import Consumer
from tastemaker.streaming.features import LiveFeatures
from tastemaker.streaming.state import LiveState

WORDS_SHARE = 0.5
"""Weight of the words in a search; the rest is the meaning's. Measured by benchmarks/search.py."""
PERSONAL_DEPTH, PERSONAL_SHARE = 100, 0.15
"""How many found items are looked at with a user's eyes, and how much of its score the best of them may gain."""


class Live:
    """One bundle, answering: models, channels, road, and the state that follows the journal.

    Args:
        folder: the bundle's folder.
        journal: what happened; None: nothing but the bundle.
        threads: of the models.
        check: compare every file with its checksum first.

    Raises:
        BundleError: the bundle is not whole.
    """

    def __init__(self, folder: Path, journal: Journal | None = None, threads: int = 1, check: bool = True) -> None:
        self.bundle = open_bundle(folder, check)
        self.brain = Brain(folder, threads)
        self.settings = self.brain.settings
        self.channels = Channels.load(folder / "channels")
        fusion = Fusion.from_dict(msgspec.json.decode((folder / "fusion.json").read_bytes()))
        self.road = Road(self.channels, fusion, self.channels.items.rows, self.settings.fusion.depth)
        rows = [_row(row) for row in self.brain.catalogue.iter_rows(named=True)]
        labels = [parse_label(text) for text in self.settings.data.positive]
        self.reader = BundleReader(self.brain)
        told = LiveFeatures.open(folder / "features") if (folder / "features").is_dir() and journal is not None else None
        self.state = LiveState(
            rows, self.channels.counts, self.brain.history, self.channels, self.reader, labels, self.brain.text.width, told
        )
        lexicon = folder / "lexicon"
        self.lexicon = Lexicon.load(lexicon) if lexicon.is_dir() else Lexicon(words_of(row) for row in rows)
        data = self.bundle.manifest.data
        self._consumer = Consumer(journal, self.state, data.position, data.change) if journal is not None else None
        self.poll()

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.bundle.version

    def poll(self) -> None:
        """Folds what happened since the last look."""
        if self._consumer is None or not self._consumer.poll():
            return
        for place, words in self.state.take_changed():
            self.lexicon.put(place, words_of(words))

    def query(self, history: IntArray) -> QueryState:
        """The state of somebody with this history."""
        return self.queries([history])[0]

    def queries(self, histories: Sequence[IntArray]) -> list[QueryState]:
        """The states of many, their user vectors computed together."""
        if not histories:
            return []
        vectors = self.brain.user.vectors(histories, self.channels.items.rows)
        return [QueryState(history, vector if len(history) else None) for history, vector in zip(histories, vectors, strict=True)]

    def best(self, states: Sequence[QueryState], k: int, filter_seen: bool = True) -> list[tuple[IntArray, FloatArray]]:
        """The k best items and their scores for many queries at once, best first: no reasons, no fresh slots."""
        allowed = ~self.state.barred if self.state.barred.any() else None
        found = self.channels.candidates(states, max(self.settings.fusion.depth, k), allowed, filter_seen)
        lists = []
        for one, state in zip(found, states, strict=True):
            scores = self.road.fusion.score(one, len(state.history))
            places = order(scores, k)
            lists.append((one.items[places], scores[places]))
        return lists

    def search(self, text: str, k: int, history: IntArray | None = None) -> tuple[list[int], list[float]]:
        """Items by words and by meaning, best first, for somebody with a history where one is given.

        Words and meaning are fused as shares of the most that each can reach (S. Bruch, S. Gai and A. Ingber, 2023, "An Analysis of Fusion Functions
        for Hybrid Retrieval"): BM25 over its bound, and the cosine. What suits the history moves up among the best of them.
        """
        n, barred = self.channels.n_items, self.state.barred
        text = text.encode("utf-8", "replace").decode("utf-8")
        if k <= 0 or n == 0 or not text.strip():
            return [], []
        words, bound = self.lexicon.match(text, n)
        meaning = np.maximum(self.text_query(text), 0.0)
        fused = np.asarray(WORDS_SHARE / bound * words + (1 - WORDS_SHARE) * meaning, dtype=np.float32)
        fused[barred] = 0
        places = [
            place for place in order(fused, max(k, PERSONAL_DEPTH if history is not None else k)).tolist() if fused[place] > 0
        ]
        if history is not None and len(history) and len(places) > 1:
            places, fused = self._personal(places, fused, history)
        return places[:k], [float(fused[place]) for place in places[:k]]

    def _personal(self, places: list[int], fused: FloatArray, history: IntArray) -> tuple[list[int], FloatArray]:
        """The found items anew, each with up to `PERSONAL_SHARE` of its score added by its rank among them for this history."""
        state = self.query(history)
        best = np.array(places[:PERSONAL_DEPTH], dtype=np.int32)
        found = self.channels.score_items(state, best, self.settings.fusion.depth)
        liked = np.argsort(np.argsort(-self.road.fusion.score(found, len(history)), kind="stable"), kind="stable")
        fused = fused.copy()
        fused[best] *= 1 + PERSONAL_SHARE * (1 - liked.astype(np.float32) / len(best))
        return [*best[order(fused[best], len(best))].tolist(), *places[PERSONAL_DEPTH:]], fused

    def text_query(self, text: str) -> FloatArray:
        """Similarity of every item's text to a text, float32 [N]."""
        return np.asarray(self.channels.text.scores(self.brain.text.encode([text]))[0])

    def barred(self) -> BoolArray:
        """Items that may not appear now: hidden, deleted, or unknown to the catalogue."""
        return self.state.barred


class BundleReader:
    """Reads new items with a bundle's models."""

    def __init__(self, brain: Brain) -> None:
        self._brain = brain

    @property
    def version(self) -> str:
        """The encoder's fingerprint."""
        return self._brain.text.version

    def text_vectors(self, items: Sequence[Item]) -> FloatArray:
        """Whitened text vectors, float32 [n, T]."""
        return self._brain.text.encode([self._brain.item_text(item.title, item.text, item.categories) for item in items])

    def item_vector(self, text: FloatArray) -> FloatArray:
        """The item vector, float32 [D], of a text vector [T]."""
        return self._brain.new_item(text)


def open_live(bundles: Path, journal: Journal | None, version: str | None = None, threads: int = 1) -> Live:
    """The live bundle of a workspace, or the named one; where the live one is not whole, the previous one.

    Raises:
        BundleError: nothing is live, the name is unknown, or no bundle is whole.
    """
    registry = Registry(bundles)
    if version:
        return Live(registry.folder(version), journal, threads)
    try:
        return Live(registry.live(), journal, threads)
    except BundleError as error:
        previous = registry.stages().previous
        if previous is None:
            raise
        print(f"the live bundle was refused, the previous one answers: {error}", flush=True)
        return Live(registry.folder(previous), journal, threads)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    extra = row.get("extra")
    return {**row, "extra": msgspec.json.decode(extra) if extra else {}, "categories": row.get("categories") or []}
