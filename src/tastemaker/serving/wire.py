"""Wires a bundle and the journal to the request road."""

from __future__ import annotations

import calendar
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tastemaker.bundle.read import open_bundle
from tastemaker.bundle.registry import Registry
from tastemaker.index.channels import Channels
from tastemaker.index.lexical import Lexicon
from tastemaker.index.tokens import words_of
from tastemaker.inference.brain import Brain, Texts
from tastemaker.inference.engine import TextEncoder
from tastemaker.journal.append import Journal
from tastemaker.journal.erase import Asked, asked_since
from tastemaker.models.fusion import Fusion
from tastemaker.models.segments import Segments, newcomer_scores, with_profile
from tastemaker.pipeline.engine import Found, Road, Wish
from tastemaker.pipeline.fields import Fields
from tastemaker.pipeline.gather import FAILED
from tastemaker.pipeline.rerank import order
from tastemaker.pipeline.select import pick
from tastemaker.schema.errors import BundleError, InputError
from tastemaker.schema.items import Item
from tastemaker.schema.labels import parse_label
from tastemaker.schema.manifest import DataFingerprint, Manifest
from tastemaker.schema.protocols import Asker, BoolArray, FloatArray, IntArray, QueryState
from tastemaker.schema.queries import FEWER, PRECOMPUTED
from tastemaker.schema.settings import FreshSettings, ListSettings, Settings
from tastemaker.schema.signals import GRAPH
from tastemaker.serving.connections import Connections
from tastemaker.serving.house import House
from tastemaker.serving.people import People
from tastemaker.serving.ranking import LiveRanker
from tastemaker.streaming.consume import Consumer
from tastemaker.streaming.features import LiveFeatures
from tastemaker.streaming.state import LiveState

ProfileOf = Callable[[str], Mapping[str, Any] | None]
"""Attributes of a user by id; None where none are known."""
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
        service: the settings of now, of which `lists`, `fresh` and `ranker` are read; None: no rules, and the ranker's settings of the bundle.
        profile_of: attributes of a user by id; None: the journal's.
        texts: opens what reads texts.

    Raises:
        BundleError: the bundle is not whole. SettingsError: the ranker's weights name a head that the bundle's ranker has not.
        InputError: a rule of the service makes no sense.
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal | None = None,
        threads: int = 1,
        check: bool = True,
        service: Settings | None = None,
        profile_of: ProfileOf | None = None,
        texts: Texts = TextEncoder,
    ) -> None:
        self.bundle = open_bundle(folder, check)
        self.brain = Brain(folder, threads, texts)
        self.settings = self.brain.settings
        self.channels = Channels.load(folder / "channels", (service or self.settings).index.kind != "exact")
        fusion = Fusion.from_dict(msgspec.json.decode((folder / "fusion.json").read_bytes()))
        now = service or msgspec.structs.replace(self.settings, lists=ListSettings(), fresh=FreshSettings())
        self.house, self.fresh = House(now.lists), now.fresh
        self.segments = Segments.load(folder / "segments") if (folder / "segments").is_dir() else None
        self._profile_of = profile_of or (_profiles(journal) if journal is not None else None)
        labels = [parse_label(text) for text in self.settings.data.positive]
        self.reader = BundleReader(self.brain)
        ranks = (folder / "ranker").is_dir() and now.ranker.mode != "off"
        features = (folder / "features").is_dir() and (journal is not None or ranks)
        told = LiveFeatures.open(folder / "features", self.brain.latest) if features else None
        self.state = LiveState(
            self.brain.items, self.channels.counts, self.brain.history, self.channels, self.reader, labels, self.brain.text.width, told,
            self.settings.sampling.shown, self.house.admitted, self.fresh, self.reader.part(GRAPH),
        )  # fmt: skip
        self.ranker = LiveRanker(folder / "ranker", fusion, self.channels, self.state, now.ranker) if ranks else None
        vectors, depth = self.channels.items.rows, self.settings.fusion.depth
        self.road = Road(
            self.channels, fusion, vectors, depth, self._texts, self.state.rows.__getitem__, self.ranker,
            lambda: self.channels.popular, now.serving.deadline_ms / 1e3, now.serving.source_threads, True,
        )  # fmt: skip
        lexicon = folder / "lexicon"
        self.lexicon = Lexicon.load(lexicon) if lexicon.is_dir() else Lexicon(words_of(row) for row in self.brain.items)
        self.connections = Connections.open(folder / "graph", self.state)
        self.people = People.open(folder / "friends", self.channels.companions, depth)
        data = self.bundle.manifest.data
        self.fields = Fields(self.state.rows)
        self._consumer = _consumer(journal, self.state, data) if journal is not None else None
        if journal is not None:
            self.forget(asked_since(journal))
        self.poll()

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.bundle.version

    @property
    def known(self) -> tuple[int, int]:
        """Up to which event and which change of the catalogue the journal is known."""
        return (self._consumer.position, self._consumer.change) if self._consumer is not None else (0, 0)

    @property
    def behind(self) -> list[str]:
        """What the newest stored events are missing from, in a burst of them: `events` (histories), `features`; empty as a rule."""
        missing = {"events": self._consumer is not None and self._consumer.behind, "features": self.state.waiting}
        return [name for name, count in missing.items() if count]

    def poll(self, seconds: float = math.inf) -> None:
        """Folds what happened since the last look, as much as can be done in some seconds."""
        if self._consumer is None or not self._consumer.poll(seconds):
            return
        changed = self.state.take_changed()
        self.fields.changed([place for place, _ in changed])
        for place, words in changed:
            self.lexicon.put(place, words_of(words))
        if self.ranker is not None:
            self.ranker.changed([place for place, _ in changed])

    def forget(self, erasures: Sequence[Asked]) -> None:
        """Of people who were erased after this bundle was made, nothing of before counts in an answer."""
        made = trained_at(self.bundle.manifest) or 0.0
        self.state.forget({one.digest for one in erasures if one.time >= made})

    def query(self, history: IntArray, asker: Asker | None = None) -> QueryState:
        """The state of somebody with this history and the asker's friends; without a history, of somebody with the asker's attributes."""
        return self.queries([history], None if asker is None else [asker])[0]

    def recommend_together(
        self, histories: Sequence[IntArray], askers: Sequence[Asker], wishes: Sequence[Wish]
    ) -> list[Found | InputError]:
        """Lists for people with these histories who ask at the same time; where the user tower is late or fails, without what it would say.

        What is wrong with a question is given back in its place.
        """
        states = [QueryState(history, None, asker=asker) for history, asker in zip(histories, askers, strict=True)]
        wanted = [place for place, wish in enumerate(wishes) if wish.level < PRECOMPUTED]
        lacking = self._know(states, wanted)
        found = self.road.recommend_together(states, wishes)
        for place, why in lacking.items():
            one = found[place]
            if isinstance(one, Found):
                one.level = max(one.level, FEWER)
                one.degraded.insert(0, f"user vector: {why}")
        return found

    def _know(self, states: list[QueryState], wanted: Sequence[int]) -> dict[int, str]:
        """Completes some of the states, in place; tells by place why one could not be: if it was for a failure, one that fails alone."""
        if not wanted:
            return {}
        askers = [asker for place in wanted if (asker := states[place].asker) is not None]
        histories = [states[place].history for place in wanted]
        known, why = self.road.gatherer.one("user", lambda: self.queries(histories, askers))
        if known is None and why == FAILED and len(wanted) > 1:
            return {place: words for one in wanted for place, words in self._know(states, [one]).items()}
        if known is None:
            return dict.fromkeys(wanted, str(why))
        for place, state in zip(wanted, known, strict=True):
            states[place] = state
        return {}

    def queries(self, histories: Sequence[IntArray], askers: Sequence[Asker] | None = None) -> list[QueryState]:
        """The states of many, their user vectors computed together; who asks, and when, where that is known.

        Askers have friends, and those without a history are known by their attributes, if by any.
        """
        if not histories:
            return []
        vectors, companions = self.brain.user.vectors(histories, self.channels.items.rows), self.channels.companions
        if askers is None:
            return self.channels.states(histories, vectors)
        users = None if companions is None else np.array([companions.row(one.user_id) for one in askers], dtype=np.int32)
        states = self.channels.states(histories, vectors, users, askers)
        if self.segments is None or self._profile_of is None:
            return states
        return [
            with_profile(state, self.segments, self._profile_of(asker.user_id))
            if asker.user_id and not len(state.history)
            else state
            for state, asker in zip(states, askers, strict=True)
        ]

    def best(
        self, states: Sequence[QueryState], k: int, filter_seen: bool = True, rank: bool = True
    ) -> list[tuple[IntArray, FloatArray]]:
        """The k best items and their scores for many queries at once, best first, by the rules of the house: no reasons, no fresh slots.

        Without `rank` by the fusion alone.
        """
        allowed = ~self.state.barred if self.state.barred.any() else None
        found = self.channels.candidates(states, max(self.settings.fusion.depth, k), allowed, filter_seen)
        lists = []
        for one, state in zip(found, states, strict=True):
            rules = None
            if not self.house.neutral:
                met = state.history if filter_seen else state.history[:0]
                rules = self.house.rules(self.state.index_of, k, self.state.barred, met)
                one = self.road.with_pins(one, state, rules)
            scores = self.road.scored(one, state).scores if rank else self.road.fusion.score(one, len(state.history))
            scores = newcomer_scores(scores, one, state)
            places = order(scores, k) if rules is None else pick(one, scores, k, rules, None, self.road.facts).places
            lists.append((one.items[places], scores[places]))
        return lists

    def answers_to(self, histories: Sequence[IntArray], profiles: Sequence[Mapping[str, Any] | None], k: int) -> list[IntArray]:
        """The k best items for people of whom only this is known: what they met, and their attributes."""
        states = [with_profile(state, self.segments, told) for state, told in zip(self.queries(histories), profiles, strict=True)]
        return [items for items, _ in self.best(states, k)]

    def search(
        self, text: str, k: int, history: IntArray | None = None, vector: FloatArray | None = None
    ) -> tuple[list[int], list[float]]:
        """Items by words and by meaning, best first, for somebody with a history where one is given; `vector` of the text where it was read before.

        Words and meaning are fused as shares of the most that each can reach (S. Bruch, S. Gai and A. Ingber, 2023, "An Analysis of Fusion Functions
        for Hybrid Retrieval"): BM25 over its bound, and the cosine. What suits the history moves up among the best of them.
        """
        n, barred = self.channels.n_items, self.state.barred
        text = text.encode("utf-8", "replace").decode("utf-8")
        if k <= 0 or n == 0 or not text.strip():
            return [], []
        words, bound = self.lexicon.match(text, n)
        meaning = np.maximum(self.text_query(text, vector), 0.0)
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

    def text_query(self, text: str, vector: FloatArray | None = None) -> FloatArray:
        """Similarity of every item's text to a text, float32 [N]; `vector` [T] of the text where it was read before."""
        query = np.zeros((1, self.channels.text.dim), dtype=np.float32)
        query[:, : self.brain.text.width] = (
            self.brain.text.encode([text]) if vector is None else vector
        )  # says nothing of other signals
        return np.asarray(self.channels.text.scores(query)[0])

    def _texts(self, indices: IntArray) -> FloatArray:
        """Unit vectors by which doubles are known, float32 [n, T]: of texts (zero for an item without one), or of the item tower without any texts."""
        if self.brain.text.version == "none":
            return self.channels.items.rows(indices)
        return self.channels.text.rows(indices)[:, : self.brain.text.width]

    def barred(self) -> BoolArray:
        """Items that may not appear now: hidden, deleted, unknown to the catalogue, or against the service's filter."""
        return self.state.barred


class BundleReader:
    """Reads new items with a bundle's models."""

    def __init__(self, brain: Brain) -> None:
        self._brain = brain

    @property
    def version(self) -> str:
        """The encoders' fingerprint."""
        return self._brain.content_version

    @property
    def width(self) -> int:
        """Length C of a content."""
        return sum(self._brain.item.widths.values())

    def part(self, name: str) -> slice | None:
        """Where a content holds a signal; None where it does not."""
        begin = 0
        for signal, width in self._brain.item.widths.items():
            if signal == name:
                return slice(begin, begin + width)
            begin += width
        return None

    def contents(self, items: Sequence[Item], quick: bool = False) -> FloatArray:
        """What the item tower reads of items, float32 [n, C]; `quick` leaves out pictures and sounds."""
        return self._brain.contents(items, quick)

    def item_vector(self, content: FloatArray) -> FloatArray:
        """The item vector, float32 [D], of a content [C]."""
        return self._brain.new_item(content)


def open_live(
    bundles: Path,
    journal: Journal | None,
    version: str | None = None,
    threads: int = 1,
    service: Settings | None = None,
    texts: Texts = TextEncoder,
) -> Live:
    """The live bundle of a workspace, or the named one; where the live one is not whole, the previous one. Arguments as of `Live`.

    Raises:
        BundleError: nothing is live, the name is unknown, or no bundle is whole.
    """
    registry = Registry(bundles)
    if version:
        return Live(registry.folder(version), journal, threads, service=service, texts=texts)
    try:
        return Live(registry.live(), journal, threads, service=service, texts=texts)
    except BundleError as error:
        previous = registry.stages().previous
        if previous is None:
            raise
        print(f"the live bundle was refused, the previous one answers: {error}", flush=True)
        return Live(registry.folder(previous), journal, threads, service=service, texts=texts)


def trained_at(manifest: Manifest) -> float | None:
    """When a bundle was written, epoch seconds."""
    try:
        return float(calendar.timegm(time.strptime(manifest.created, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return None


def _consumer(journal: Journal, state: LiveState, data: DataFingerprint) -> Consumer:
    """Goes on where the bundle's knowledge ends."""
    position, change, known = journal.since(data.position, data.change, data.clock or {})
    return Consumer(journal, state, position, change, known)


def _profiles(journal: Journal) -> ProfileOf:
    def of(user_id: str) -> dict[str, Any] | None:
        try:
            user = journal.user(user_id)
        except UnicodeEncodeError:  # half of a surrogate pair: nobody of that name can be stored
            return None
        return None if user is None else user.extra

    return of
