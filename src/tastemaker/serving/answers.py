"""Questions to answers: what each route does, without a word of HTTP."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from tastemaker.journal.append import Journal
from tastemaker.pipeline.engine import Found, Wish, reasons
from tastemaker.pipeline.filters import compile_filter
from tastemaker.schema.columns import DEFAULT_EVENT_TYPE
from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import BoolArray, IntArray
from tastemaker.schema.queries import (
    Answer,
    ExplainQuery,
    IncomingEvent,
    ItemBody,
    RankQuery,
    Recommended,
    RecommendQuery,
    Rejected,
    SearchQuery,
    SessionEvent,
)
from tastemaker.schema.settings import ServingSettings
from tastemaker.serving.free_json import check_json, check_text
from tastemaker.serving.wire import Live

_EMPTY = np.zeros(0, dtype=np.int32)


class NotFound(InputError):
    """An item or a user that is not there."""


class Answers:
    """Answers questions with the live bundle.

    Args:
        live: the bundle. journal: what is stored, for reading. settings: limits.
    """

    def __init__(self, live: Live, journal: Journal, settings: ServingSettings) -> None:
        self.live, self.journal, self.settings = live, journal, settings

    def recommend(self, query: RecommendQuery) -> Answer:
        """A list for a user, a session, or nobody in particular."""
        live = self._now()
        history = self._session(live, query.session) if query.session is not None else _EMPTY
        if query.user_id is not None:
            history = np.concatenate([live.state.history(query.user_id), history])
        barred = self._barred(live, query.filter, query.exclude)
        k = min(query.k, self.settings.max_k, live.channels.n_items)
        if k == 0 or barred.all():
            return self._answer(live, [])
        wish = Wish(k, barred, query.diversity, live.state.n_base, self.settings.fresh_slots)
        return self._answer(live, self._listed(live, live.road.recommend(live.query(history), wish), query.explain))

    def rank(self, query: RankQuery) -> Answer:
        """The given items in the order in which they suit a user; unknown ones are left out."""
        live = self._now()
        history = live.state.history(query.user_id) if query.user_id is not None else _EMPTY
        places = [live.state.index_of[item] for item in dict.fromkeys(query.items) if item in live.state.index_of]
        items = np.array([place for place in places if not live.state.barred[place]], dtype=np.int32)
        if not len(items):
            return self._answer(live, [])
        state = live.query(history)
        found = live.road.rank(live.channels.score_items(state, items, live.settings.fusion.depth), state)
        return self._answer(live, self._listed(live, found, False))

    def search(self, query: SearchQuery) -> Answer:
        """Items by words and by meaning, with a user's eyes where one is given."""
        live = self._now()
        k = min(query.k, self.settings.max_k, live.channels.n_items)
        history = live.state.history(query.user_id) if query.user_id is not None else None
        places, scores = live.search(query.query, k, history)
        rows = [self._recommended(live, place, score, "search", None) for place, score in zip(places, scores, strict=True)]
        return self._answer(live, rows)

    def similar(self, item_id: str, k: int) -> Answer:
        """Items like an item."""
        live = self._now()
        place = live.state.index_of.get(item_id)
        if place is None or live.state.rows[place].get("deleted"):
            raise NotFound(f"There is no item {item_id!r}.")
        k = min(k, self.settings.max_k, live.channels.n_items)
        items, scores = live.channels.similar(place, live.channels.n_items)
        keep = ~live.barred()[items]
        pairs = list(zip(items[keep][:k].tolist(), scores[keep][:k].tolist(), strict=True))
        return self._answer(live, [self._recommended(live, near, score, "similar", None) for near, score in pairs])

    def explain(self, query: ExplainQuery) -> dict[str, Any]:
        """Why an item stands where it does in a user's list."""
        live = self._now()
        place = live.state.index_of.get(query.item_id)
        if place is None:
            raise NotFound(f"There is no item {query.item_id!r}.")
        history = live.state.history(query.user_id)
        state = live.query(history)
        found = live.channels.score_items(state, np.array([place], dtype=np.int32), live.settings.fusion.depth)
        parts = live.road.fusion.parts(found, len(history))[0]
        dropped = [
            name for name, holds in (("hidden or deleted", live.barred()[place]), ("seen", place in set(history.tolist()))) if holds
        ]
        channels = {
            name: {"score": float(found.scores[0, at]), "rank": int(found.ranks[0, at]), "share": float(parts[at])}
            for at, name in enumerate(found.channels)
        }
        return {
            "item_id": query.item_id,
            "user_id": query.user_id,
            "score": float(live.road.fusion.score(found, len(history))[0]),
            "channels": channels,
            "in_candidates": bool((found.ranks < found.depth).any()) and not dropped,
            "dropped_by": dropped,
            "features": self._told(live, query.user_id, query.item_id),
            "model_version": live.version,
        }

    def checked(self, rows: Sequence[Any]) -> tuple[list[Event], list[Rejected]]:
        """A batch of events as they will be stored, and the rows that can't be, each with its reason.

        Raises:
            InputError: more rows than one request may bring.
        """
        if len(rows) > self.settings.max_events:
            raise InputError(
                f"{len(rows):,} events in one request; at most {self.settings.max_events:,} are taken. Send smaller batches."
            )
        good: list[Event] = []
        rejected: list[Rejected] = []
        now = time.time()
        for place, row in enumerate(rows):
            try:
                event = msgspec.convert(row, IncomingEvent)
                _check(event)
            except (msgspec.ValidationError, InputError) as error:
                rejected.append(Rejected(place, str(error)))
                continue
            fields = {name: value for name, value in msgspec.structs.asdict(event).items() if value is not None}
            good.append(Event(**{"event_type": DEFAULT_EVENT_TYPE, "timestamp": now, **fields}))
        return good, rejected

    def put_items_with(self, journal: Journal, items: Sequence[Item]) -> None:
        """Stores items durably, with the text vectors that this worker computed."""
        reader = self.live.reader
        vectors = [vector.astype(np.float32).tobytes() for vector in reader.text_vectors(items)]
        journal.put_items(items, vectors, reader.version)

    def item(self, item_id: str) -> dict[str, Any]:
        """An item as it is stored."""
        item = self.journal.item(item_id)
        if item is None:
            raise NotFound(f"There is no item {item_id!r}.")
        return dict(msgspec.to_builtins(item))

    def patched(self, item_id: str, changes: dict[str, Any]) -> Item:
        """A stored item with some fields changed."""
        fields = self.item(item_id) | changes
        fields.pop("item_id")
        return item_of(item_id, msgspec.convert(fields, ItemBody))

    def user(self, user_id: str, limit: int = 20) -> dict[str, Any]:
        """A user's attributes and latest events, newest first."""
        live = self._now()
        stored = self.journal.user(user_id)
        if stored is None and not live.state.known_user(user_id):
            raise NotFound(f"There is no user {user_id!r}: no attributes and no events are known.")
        history = [{"item_id": row["item_id"], "title": row.get("title")} for row in live.state.recent(user_id, limit)]
        return {"user_id": user_id, "extra": stored.extra if stored else {}, "history": history}

    def users(self, limit: int) -> dict[str, Any]:
        """Some users with histories: the latest first, then those of the bundle."""
        live = self._now()
        names = live.state.latest_users(limit)[::-1]
        names += [name for name in list(live.brain.users)[: limit + len(names)] if name not in set(names)]
        return {"users": [{"user_id": name, "events": len(live.state.history(name))} for name in names[:limit]]}

    def items(self, limit: int) -> dict[str, Any]:
        """Some items of the catalogue."""
        live = self._now()
        shown = [place for place in range(live.channels.n_items) if not live.state.barred[place]][:limit]
        return {
            "items": [
                {"item_id": live.state.rows[place]["item_id"], "title": live.state.rows[place].get("title")} for place in shown
            ]
        }

    def _now(self) -> Live:
        live = self.live
        live.poll()
        return live

    def _session(self, live: Live, session: Sequence[SessionEvent]) -> IntArray:
        known = [live.state.index_of[event.item_id] for event in session if event.item_id in live.state.index_of]
        return np.array(known, dtype=np.int32)

    def _barred(self, live: Live, spec: dict[str, Any] | None, exclude: Sequence[str]) -> BoolArray:
        barred = live.barred()
        if spec is None and not exclude:
            return barred
        barred = barred.copy()
        for item_id in exclude:
            if item_id in live.state.index_of:
                barred[live.state.index_of[item_id]] = True
        if spec is not None:
            check_json(spec)
            test = compile_filter(spec)
            for place in np.flatnonzero(~barred).tolist():
                barred[place] = not test(live.state.rows[place])
        return barred

    def _told(self, live: Live, user_id: str, item_id: str) -> dict[str, float]:
        """The features of a user and an item at this moment, by name; none where the bundle has none."""
        features = live.state.features
        if features is None:
            return {}
        numbers = features.told(user_id, [item_id], time.time())[0]
        return dict(zip(features.features.names, numbers.tolist(), strict=True))

    def _listed(self, live: Live, found: Found, explain: bool) -> list[Recommended]:
        words = (
            reasons(found, lambda place: str(live.state.rows[place].get("title") or live.state.rows[place]["item_id"]))
            if explain
            else None
        )
        return [
            self._recommended(live, int(item), float(found.scores[place]), found.sources[place], words[place] if words else None)
            for place, item in enumerate(found.items)
        ]

    def _recommended(self, live: Live, place: int, score: float, source: str, why: str | None) -> Recommended:
        row = live.state.rows[place]
        return Recommended(row["item_id"], score, source, why, row.get("title"))

    def _answer(self, live: Live, items: list[Recommended]) -> Answer:
        return Answer(request_id=secrets.token_hex(8), model_version=live.version, items=items)


def item_of(item_id: str, body: ItemBody) -> Item:
    """A client's item as it is stored.

    Raises:
        InputError: a text is no valid Unicode.
    """
    for text in (item_id, body.title, body.text, body.image, *body.categories):
        check_text(text)
    for number in (body.price, body.created_at):
        check_json(number)
    check_json(body.extra)
    return Item(item_id=item_id, **{name: value for name, value in msgspec.structs.asdict(body).items() if value is not None})


def _check(event: IncomingEvent) -> None:
    for text in (event.user_id, event.item_id, event.event_type, event.event_id, event.request_id, event.session_id):
        check_text(text)
    check_json(event.context)
    check_json(event.position)
    for name in ("timestamp", "value", "propensity"):
        number = getattr(event, name)
        if number is not None and not np.isfinite(number):
            raise InputError(f"{name} is {number}; expected a finite number.")
