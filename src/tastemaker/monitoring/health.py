"""How the data is: what people did and what they were shown in the last hour, against what the bundle knew.

It reads nothing and knows no clock: it is told what happened, and the time. So a day of simulated traffic takes seconds.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.evaluation.ranking import gini
from tastemaker.journal.sampled import Sampled
from tastemaker.models.ranker import NEXT
from tastemaker.monitoring import drift
from tastemaker.monitoring.changes import PageHinkley
from tastemaker.monitoring.drift import Bins, Drift
from tastemaker.monitoring.feature_health import FRESH_SLOT, FeatureHealth, FeatureReference
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.baseline import Baseline, NumberBaseline
from tastemaker.schema.events import Event
from tastemaker.schema.labels import Label, parse_label
from tastemaker.schema.settings import AlertSettings

LEAST_ITEMS = 20
"""Fewer new items are not judged."""
LATEST_ITEMS, ITEM_SECONDS = 30, 86_400.0
"""New items come in bursts: the latest of a day are judged, whatever the window."""
LEAST_EVENTS = 50.0
"""Fewer events of a head say nothing of its calibration. Chances are those at a question of training, not at an impression: only their change tells."""
PATIENCE = 300.0
"""Seconds that people have to take what they were shown before it counts as left."""


@dataclass(frozen=True)
class Reference:
    """What the bundle answers when its own users ask, and what its data was like.

    Attributes:
        items: size of the catalogue. exposures: item ids by how often they stood in the lists. scores: of the places. features: by name.
        vectors: text vectors of items, float32 [n, T]; zero rows left out. popularity: training events of items, by id.
        baseline: of the data; None: not known. labels: of the events that the baseline counts.
    """

    items: int = 0
    exposures: Mapping[str, float] = field(default_factory=dict)
    scores: Bins | None = None
    features: Mapping[str, FeatureReference] = field(default_factory=dict)
    vectors: NDArray[np.float32] | None = None
    popularity: Mapping[str, float] = field(default_factory=dict)
    baseline: Baseline | None = None
    labels: Sequence[Label] = ()


@dataclass(frozen=True)
class NewItem:
    """An item that was added or changed: text vector, price, and whether the bundle has not known it."""

    item_id: str
    vector: NDArray[np.float32]
    price: float | None
    new: bool


class Health:
    """Figures of a window.

    Args:
        settings: thresholds and window. metrics: where figures go. bot_events_per_minute: more events of one user in one minute are suspicious.
    """

    def __init__(self, settings: AlertSettings, metrics: Metrics, bot_events_per_minute: int = 60) -> None:
        self.settings, self.metrics, self._bot = settings, metrics, bot_events_per_minute
        self.reference = Reference()
        self._features = FeatureHealth(settings, metrics)
        self._lists: deque[Sampled] = deque()
        self._events: deque[tuple[float, Event]] = deque()
        self._items: deque[tuple[float, NewItem]] = deque(maxlen=LATEST_ITEMS)
        self._born: dict[str, float] = {}
        self._first: deque[float] = deque(maxlen=1_000)
        self._open: dict[str, tuple[Sampled, set[str]]] = {}
        self._due: deque[Sampled] = deque()
        self._happened: deque[tuple[float, str, float, float]] = deque()
        self._first_chances: dict[str, float] = {}
        self._marks: deque[tuple[float, int]] = deque()
        self._last_list: dict[str, set[str]] = {}
        self._repeats: deque[tuple[float, float]] = deque()
        self.taken = PageHinkley()

    def begin(self, reference: Reference) -> None:
        """A bundle goes live: what it answers is compared with its own reference, and nothing of before counts."""
        self.reference = reference
        self._features.begin(reference.features)
        self._lists.clear()
        self._happened.clear()
        self._first_chances.clear()
        self._items.clear()
        self.taken.reset()

    def event(self, event: Event, now: float) -> None:
        """Something happened; `now` is when it came to be known."""
        self._events.append((now, event))
        waiting = self._open.get(event.request_id or "")
        if waiting is None or event.item_id not in waiting[0].items:
            return
        answer, done = waiting
        place = answer.items.index(event.item_id)
        if event.item_id not in done:
            done.add(event.item_id)
            self.metrics.click(answer.sources[place], place + 1)
        for head in answer.chances:
            if head != NEXT and parse_label(head).holds(event.event_type, event.value):
                self._happened.append((now, head, 0.0, 1.0))

    def shown(self, answer: Sampled) -> None:
        """A list of the sample."""
        self._features.shown(answer)
        answer = msgspec.structs.replace(answer, names=[], values=[])
        self._lists.append(answer)
        self._open[answer.request_id] = (answer, set())
        self._due.append(answer)
        self.metrics.sampled(answer.sources)
        if answer.user_id:
            before, now = self._last_list.get(answer.user_id), set(answer.items)
            if before is not None and now:
                self._repeats.append((answer.time, len(before & now) / len(now)))
            self._last_list[answer.user_id] = now
        for item in answer.items:
            born = self._born.pop(item, None)
            if born is not None:
                self._first.append(answer.time - born)

    def item(self, item: NewItem, now: float) -> None:
        """An item was added or changed."""
        self._items.append((now, item))
        if item.new:
            self._born.setdefault(item.item_id, now)

    def mark(self, position: int, now: float) -> None:
        """The journal's last number at a moment."""
        if not self._marks or self._marks[-1][1] != position:
            self._marks.append((now, position))

    def lag(self, answer: Sampled) -> float:
        """Seconds by which the worker that gave a list was behind the journal."""
        later = next((time for time, position in self._marks if position > answer.position), None)
        return 0.0 if later is None else max(0.0, answer.time - later)

    def look(self, now: float) -> list[Drift]:
        """Computes all figures of the window that ends now; gives the checks of drift."""
        self._forget(now)
        found = [*self._of_lists(), *self._features.look(now), *self._of_events(), *self._of_items(), *self._of_stream()]
        for one in found:
            self.metrics.set("tastemaker_drift_statistic", one.statistic, check=one.check)
            self.metrics.set("tastemaker_drift_threshold", one.threshold, check=one.check)
            self.metrics.set("tastemaker_drift_rows", one.rows, check=one.check)
        self._calibration(now)
        self.metrics.set("tastemaker_watch_timestamp_seconds", now)
        return found

    def _forget(self, now: float) -> None:
        begin = now - self.settings.window_seconds
        while self._lists and self._lists[0].time < begin:
            self._lists.popleft()
        while self._items and self._items[0][0] < now - ITEM_SECONDS:
            self._items.popleft()
        pairs: tuple[deque[Any], ...] = (self._events, self._happened, self._repeats)
        for queue in pairs:
            while queue and queue[0][0] < begin:
                queue.popleft()
        while len(self._marks) > 1 and self._marks[1][0] < begin:
            self._marks.popleft()
        while self._due and self._due[0].time < now - PATIENCE:
            answer = self._due.popleft()
            done = self._open.pop(answer.request_id, (answer, set[str]()))[1]
            self.taken.add(len(done) / max(len(answer.items), 1))
            for head, chances in answer.chances.items():
                if head == NEXT:
                    continue
                self._happened.append((answer.time, head, float(sum(chance or 0.0 for chance in chances)), 0.0))
        if len(self._last_list) > 100_000:
            self._last_list.clear()

    def _enough(self, owners: Sequence[str]) -> bool:
        return drift.independent(owners) >= self.settings.drift_rows

    def _of_lists(self) -> list[Drift]:
        lists, set_ = [one for one in self._lists if one.items], self.metrics.set
        if not lists:
            return []
        set_("tastemaker_feature_lag_seconds", max(self.lag(one) for one in list(lists)[-50:]))
        self._shares(lists)
        recalls = [one.recall for one in lists if one.recall is not None]
        if recalls:
            set_("tastemaker_index_recall_ratio", float(np.mean(recalls)))
        known = [one for one in lists if one.known and one.user_id]
        places = [place for one in known for place in zip(one.items, one.scores, one.sources, itertools.repeat(one.user_id))]
        places = [place for place in places if place[2] != FRESH_SLOT]
        owners = [owner for _, _, _, owner in places]
        if not self._enough(owners):
            return []
        found = []
        effect, chance = self.settings.drift_effect, self.settings.drift_chance
        if self.reference.scores is not None:
            scores = [np.nan if score is None else score for _, score, _, _ in places]
            found.append(drift.numbers("scores", self.reference.scores, scores, owners, effect, chance))
        if self.reference.exposures:
            items = [item for item, _, _, _ in places]
            found.append(_of_names("exposures", self.reference.exposures, items, owners, effect, chance))
        return found

    def _shares(self, lists: Sequence[Sampled]) -> None:
        """Coverage, concentration, novelty, repeats and strangers."""
        shown = Counter(item for one in lists for item in one.items)
        counts, total = np.array(list(shown.values()), dtype=np.float64), float(sum(shown.values()))
        if self.reference.items:
            self.metrics.set("tastemaker_catalogue_coverage_ratio", len(shown) / max(self.reference.items, len(shown)))
        self.metrics.set("tastemaker_exposure_gini_ratio", gini(counts))
        if len(lists) >= self.settings.drift_rows:
            lengths = np.mean([len(one.items) for one in lists])
            self.metrics.set("tastemaker_top_share_ratio", float(counts.max() * lengths / total))
            self.metrics.set("tastemaker_cold_askers_ratio", float(np.mean([one.known == 0 for one in lists])))
        events = sum(self.reference.popularity.values())
        if events:
            n = max(self.reference.items, 1)
            bits = [-np.log2((self.reference.popularity.get(item, 0.0) + 1) / (events + n)) * c for item, c in shown.items()]
            self.metrics.set("tastemaker_novelty_bits", float(sum(bits) / total))
        if self._repeats:
            self.metrics.set("tastemaker_repeat_ratio", float(np.mean([share for _, share in self._repeats])))
        if self._first:
            self.metrics.set("tastemaker_first_impression_seconds", float(np.median(self._first)))

    def _of_events(self) -> list[Drift]:
        self._suspects()
        baseline, effect, chance = self.reference.baseline, self.settings.drift_effect, self.settings.drift_chance
        events = [event for _, event in self._events]
        labels = self.reference.labels
        counted = [one for one in events if not labels or any(label.holds(one.event_type, one.value) for label in labels)]
        owners = [one.user_id for one in counted]
        if baseline is None or not self._enough(owners):
            return []
        types, items = baseline.event_types, baseline.popularity.items
        found = [
            drift.names(
                "event types", _floats(types.counts), types.other, [one.event_type for one in counted], owners, effect, chance
            ),
            drift.names(
                "events by item", _floats(items.counts), items.other, [one.item_id for one in counted], owners, effect, chance
            ),
        ]
        valued = [(one.value, one.user_id) for one in counted if one.value is not None]
        if _judged(baseline.value) and self._enough([user for _, user in valued]):
            values, whose = zip(*valued, strict=True)
            found.append(drift.numbers("event values", _bins(baseline.value), values, whose, effect, chance))
        return found

    def _suspects(self) -> None:
        """Share of the events of users who were too fast in some minute."""
        if len(self._events) < self._bot:
            self.metrics.set("tastemaker_suspect_events_ratio", 0.0)
            return
        minutes = Counter((event.user_id, int(now // 60)) for now, event in self._events)
        fast = {user for (user, _), count in minutes.items() if count > self._bot}
        mine = sum(event.user_id in fast for _, event in self._events)
        self.metrics.set("tastemaker_suspect_events_ratio", mine / len(self._events))

    def _of_items(self) -> list[Drift]:
        items, found = [item for _, item in self._items], list[Drift]()
        known = self.reference.vectors
        if len(items) >= LEAST_ITEMS and known is not None and len(known):
            found.append(drift.vectors("text vectors", known, np.stack([one.vector for one in items]), self.settings.drift_chance))
        baseline = self.reference.baseline
        prices = [one.price for one in items if one.price is not None]
        price = baseline.numbers.get("price") if baseline is not None else None
        if price is not None and _judged(price) and len(prices) >= LEAST_ITEMS:
            names = [str(place) for place in range(len(prices))]
            found.append(
                drift.numbers("prices", _bins(price), prices, names, 2 * self.settings.drift_effect, self.settings.drift_chance)
            )
        return found

    def _of_stream(self) -> list[Drift]:
        """Whether people take more or less of what they are shown than they did when the bundle went live."""
        limit = self.taken.limit
        return [Drift("clicks a list", self.taken.statistic / limit, 1.0, 1.0)]

    def _calibration(self, now: float) -> None:
        expected, happened = Counter[str](), Counter[str]()
        for _, head, chance, was in self._happened:
            expected[head] += chance  # type: ignore[assignment]
            happened[head] += was  # type: ignore[assignment]
        for head, told in expected.items():
            if told > 0 and happened[head] >= LEAST_EVENTS:
                ratio = told / happened[head]
                self.metrics.set("tastemaker_calibration_ratio", ratio / self._first_chances.setdefault(head, ratio), head=head)


def _of_names(
    check: str, reference: Mapping[str, float], values: Sequence[str], owners: Sequence[str], effect: float, chance: float
) -> Drift:
    first = dict(Counter(dict(reference)).most_common(50))
    return drift.names(check, first, sum(reference.values()) - sum(first.values()), values, owners, effect, chance)


def _floats(counts: Mapping[str, int]) -> dict[str, float]:
    return {name: float(count) for name, count in counts.items()}


def _judged(baseline: NumberBaseline) -> bool:
    return baseline.count > 0 and bool(baseline.counts)


def _bins(baseline: NumberBaseline) -> Bins:
    return Bins(baseline.edges, np.array(baseline.counts, dtype=np.float64), baseline.low, baseline.high)
