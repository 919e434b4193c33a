"""Questions to answers: what each route does, without a word of HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from tastemaker.bundle.rollout import CANARY, LIVE
from tastemaker.journal.append import Journal
from tastemaker.journal.incoming import event_of
from tastemaker.journal.served import Served, ServedLog
from tastemaker.pipeline.engine import Found, Timed, Wish, reasons
from tastemaker.pipeline.explore import Explore, draw_of
from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.schema.free_json import check_json, check_text
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import Asker, BoolArray, FloatArray, IntArray
from tastemaker.schema.queries import (
    Answer,
    ExplainQuery,
    ItemBody,
    LeftOut,
    Move,
    RankQuery,
    Recommended,
    RecommendQuery,
    Rejected,
    SearchQuery,
    SessionEvent,
)
from tastemaker.schema.settings import ServingSettings
from tastemaker.schema.unwritten import FILTERS, OfLatest, unwritten
from tastemaker.serving.audience import audience
from tastemaker.serving.explaining import explained, named
from tastemaker.serving.far_encoder import FarEncoder
from tastemaker.serving.record import new_id
from tastemaker.serving.trial import GaveUp, Trial, gave_up, spent
from tastemaker.serving.wire import Live
from tastemaker.streaming.link import Pulse

T = TypeVar("T")
AUDIENCE = 200
"""So many users' lists are made to tell whom an item would be shown to."""
Notice = Callable[[Live, RecommendQuery, Answer, Found, float], None]
Meaning = tuple[str, FloatArray]
"""A text's vector [T], and the fingerprint of the model that read it."""
_EMPTY = np.zeros(0, dtype=np.int32)
MANY_EXCLUDED = 1_000
"""Items that a request excludes are left out one by one up to so many, of more a mask of the whole catalogue is made."""
CATCH_UP_SECONDS = 0.01
"""How long an answer waits at most for events to be folded; what is left is folded beside, and the answer says so."""


class NotFound(InputError):
    """An item or a user that is not there."""


class Answers:
    """Answers questions with the live bundle.

    Args:
        live: the bundle. journal: what is stored, for reading. settings: limits. served: where answers are kept; None: nowhere.
        level: tells how busy the service is, as a rung of the ladder.
        notice: is told of every list. clock: epoch seconds. timed: is told how long each stage took.

    Attributes:
        pulse: of the link to other machines; None where this one is alone.
        trial: a bundle beside the live one, which makes lists that nobody sees or answers some users; None: there is none.
    """

    def __init__(
        self,
        live: Live,
        journal: Journal,
        settings: ServingSettings,
        served: ServedLog | None = None,
        level: Callable[[], int] = lambda: 0,
        notice: Notice | None = None,
        clock: Callable[[], float] = time.time,
        timed: Timed | None = None,
    ) -> None:
        self.journal, self.settings, self.served, self.level = journal, settings, served, level
        self.pulse: Pulse | None = None
        self.trial: Trial | None = None
        self.notice, self.clock, self.timed = notice, clock, timed
        self._open, self._narrowed = OfLatest(_open, FILTERS), OfLatest(_narrowed, FILTERS)
        self.take(live)

    def take(self, live: Live) -> None:
        """From now on this bundle answers."""
        live.road.timed = self.timed
        self.live = live

    def poll(self, seconds: float) -> bool:
        """Folds what happened into every bundle that answers, as much as can be done in some seconds; True if more is left."""
        answering = [self.live, *([self.trial.live] if self.trial is not None and self.trial.answers else [])]
        for live in answering:
            live.poll(seconds)
        return any(live.behind for live in answering)

    def recommend(self, query: RecommendQuery) -> Answer:
        """A list for a user, a session, or nobody in particular; of items, or of people."""
        answer = self.recommend_many([query])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def recommend_many(self, queries: Sequence[RecommendQuery]) -> list[Answer | Exception]:
        """Answers to questions that were asked at the same time, each as if it had been asked alone; for one that can't be answered, why.

        While a bundle is on trial each is made alone, as bundles are compared by what a list takes.
        """
        if self.trial is not None:
            return [_tried(partial(self._alone, query)) for query in queries]
        live, now = self._now(), self.clock()
        told: list[Answer | Exception | _Plan] = [_tried(partial(self._plan, live, query)) for query in queries]
        plans = [plan for plan in told if isinstance(plan, _Plan)]
        askers = [Asker(plan.query.user_id or "", now, plan.query.context) for plan in plans]
        found = iter(live.recommend_together([plan.history for plan in plans], askers, [plan.wish for plan in plans]))
        return [_tried(partial(self._finished, live, one, next(found), now)) if isinstance(one, _Plan) else one for one in told]

    def _alone(self, query: RecommendQuery) -> Answer:
        """The answer by the bundle whose turn it is."""
        if query.target == "users":
            return self._by(query.user_id, lambda live: self._people(live, query))
        return self._by(query.user_id, lambda live: self._recommend(live, query), counts=True)

    def _recommend(self, live: Live, query: RecommendQuery) -> Answer:
        began, now = spent(live), self.clock()
        answer, found = self.list_of(live, query, now)
        if live is not self.live and gave_up(answer, self.level()):
            raise GaveUp(f"{live.version} could not make a list")
        if found is not None:
            cpu, trial = spent(live) - began, self.trial
            self._keep(answer, query.user_id, found, trial)
            if self.notice is not None:
                self.notice(live, query, answer, found, now)
            if trial is not None and live is self.live:
                same = msgspec.structs.replace(query, request_id=answer.request_id)  # chance falls alike for both
                trial.mirror(query, answer, cpu, lambda other: self.list_of(other, same, now)[0])
        return answer

    def _by(self, user_id: str | None, make: Callable[[Live], Answer], counts: bool = False) -> Answer:
        """An answer by the bundle whose turn it is for a user; `counts`: a list, by which bundles are compared."""
        live, trial = self._now(), self.trial
        return (
            make(live) if trial is None else trial.answer(user_id, live, make, counts, lambda other: other.poll(CATCH_UP_SECONDS))
        )

    def rank(self, query: RankQuery) -> Answer:
        """The given items in the order in which they suit a user; unknown ones are left out."""
        return self._by(query.user_id, lambda live: self._rank(live, query))

    def _rank(self, live: Live, query: RankQuery) -> Answer:
        history = live.state.history(query.user_id) if query.user_id is not None else _EMPTY
        places = [live.state.index_of[item] for item in dict.fromkeys(query.items) if item in live.state.index_of]
        items = np.array([place for place in places if not live.state.barred[place]], dtype=np.int32)
        if not len(items):
            return self._answer(live, [])
        state = live.query(history, Asker(query.user_id or "", self.clock()))
        found = live.road.rank(live.channels.score_items(state, items, live.settings.fusion.depth), state)
        return self._answer(live, self._listed(live, found, False))

    async def meaning(self, query: SearchQuery) -> Meaning | None:
        """A query's text, read by another process where there is one for that; None: it is read here, in its turn."""
        encoder = self.live.brain.text
        if not isinstance(encoder, FarEncoder) or not query.query.strip():
            return None
        return encoder.version, (await encoder.read([query.query]))[0]

    def search(self, query: SearchQuery, meaning: Meaning | None = None) -> Answer:
        """Items by words and by meaning, with a user's eyes where one is given; `meaning` of the query where it was read before."""
        return self._by(query.user_id, lambda live: self._search(live, query, meaning))

    def _search(self, live: Live, query: SearchQuery, meaning: Meaning | None) -> Answer:
        k = min(query.k, self.settings.max_k, live.channels.n_items)
        history = live.state.history(query.user_id) if query.user_id is not None else None
        vector = meaning[1] if meaning is not None and meaning[0] == live.brain.text.version else None
        places, scores = live.search(query.query, k, history, vector)
        rows = [self._recommended(live, place, score, "search", None) for place, score in zip(places, scores, strict=True)]
        return self._answer(live, rows)

    def similar(self, item_id: str, k: int) -> Answer:
        """Items like an item."""
        live = self._now()
        place = live.state.index_of.get(item_id)
        if place is None or live.state.rows[place].get("deleted"):
            raise NotFound(f"There is no item {item_id!r}.")
        k = min(k, self.settings.max_k, live.channels.n_items)
        items, scores = live.channels.similar(place, k, ~live.barred())
        pairs = list(zip(items.tolist(), scores.tolist(), strict=True))
        return self._answer(live, [self._recommended(live, near, score, "similar", None) for near, score in pairs])

    def explain(self, query: ExplainQuery) -> dict[str, Any]:
        """Why an item stands where it does in a user's list."""
        live = self.bundle_of(query.user_id)
        place = live.state.index_of.get(query.item_id)
        if place is None:
            raise NotFound(f"There is no item {query.item_id!r}.")
        return explained(self, live, query, place)

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
        now = self.clock()
        for place, row in enumerate(rows):
            try:
                good.append(event_of(row, now))
            except (msgspec.ValidationError, InputError) as error:
                rejected.append(Rejected(place, str(error)))
        return good, rejected

    def contents(self, items: Sequence[Item]) -> tuple[list[bytes], str]:
        """What the live bundle's models read of items, float32 [C] each as bytes, and the models' version. It may wait for a picture to be fetched."""
        reader = self.live.reader
        return [content.astype(np.float32).tobytes() for content in reader.contents(items)], reader.version

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

    async def audience(self, item_id: str, k: int) -> dict[str, Any]:
        """The users in whose lists an item stands highest, of the latest `AUDIENCE`."""
        live = self._now()
        place = live.state.index_of.get(item_id)
        if place is None:
            raise NotFound(f"There is no item {item_id!r}.")
        users = [row["user_id"] for row in self.users(AUDIENCE)["users"]]
        return {"asked": len(users), "users": await audience(live, place, users, min(k, self.settings.max_k))}

    def items(self, limit: int) -> dict[str, Any]:
        """Some items of the catalogue."""
        live = self._now()
        shown = [place for place in range(live.channels.n_items) if not live.state.barred[place]][:limit]
        return {
            "items": [
                {"item_id": live.state.rows[place]["item_id"], "title": live.state.rows[place].get("title")} for place in shown
            ]
        }

    def _degraded(self, live: Live) -> list[str]:
        """What an answer lacks now: see `Live.behind`; `peers` where other machines can't be heard."""
        return live.behind + (["peers"] if self.pulse is not None and not self.pulse.alive else [])

    def bundle_of(self, user_id: str) -> Live:
        """The bundle that answers a user."""
        live, trial = self._now(), self.trial
        if trial is None or trial.variant(user_id) != CANARY:
            return live
        trial.live.poll(CATCH_UP_SECONDS)
        return trial.live

    def _now(self) -> Live:
        live = self.live
        live.poll(CATCH_UP_SECONDS)
        return live

    def _session(self, live: Live, session: Sequence[SessionEvent]) -> IntArray:
        known = [live.state.index_of[event.item_id] for event in session if event.item_id in live.state.index_of]
        return np.array(known, dtype=np.int32)

    def history_of(self, live: Live, query: RecommendQuery) -> IntArray:
        """What the asker met: the user's history, and the session behind it."""
        if query.session is None:
            return _EMPTY if query.user_id is None else live.state.history(query.user_id)
        history = self._session(live, query.session)
        return history if query.user_id is None else np.concatenate([live.state.history(query.user_id), history])

    def _barred(self, live: Live, spec: dict[str, Any] | None, exclude: Sequence[str]) -> tuple[BoolArray, IntArray]:
        """Which items may not be shown, and a few others that may not be either, as `Wish` has them."""
        barred, excluded = live.barred(), _EMPTY
        if spec is not None:
            check_json(spec)
            barred = self._narrowed(barred, live.fields.matching(spec))
        if exclude:
            known = {place for item_id in exclude if (place := live.state.index_of.get(item_id)) is not None}
            excluded = np.array(sorted(known), dtype=np.int32)
        if len(excluded) > MANY_EXCLUDED:
            barred, excluded = _without(barred, excluded), _EMPTY
        return barred, excluded

    def _nothing_left(self, barred: BoolArray, excluded: IntArray) -> bool:
        """Whether no item may be shown."""
        left = self._open(barred)
        return left <= len(excluded) and left == np.count_nonzero(~barred[excluded])

    def list_of(self, live: Live, query: RecommendQuery, now: float | None = None) -> tuple[Answer, Found | None]:
        """The answer to a question about items, and how it came about; None where nothing was looked for. `now`: epoch seconds; None: those of the clock."""
        plan = self._plan(live, query)
        if not isinstance(plan, _Plan):
            return plan, None
        asker = Asker(query.user_id or "", self.clock() if now is None else now, query.context)
        found = live.recommend_together([plan.history], [asker], [plan.wish])[0]
        if isinstance(found, InputError):
            raise found
        return self._told_of(live, plan, found), found

    def _plan(self, live: Live, query: RecommendQuery) -> _Plan | Answer:
        """What a question asks of the road; the answer where it need not be asked."""
        if query.target == "users":
            return self._people(live, query)
        request_id = query.request_id or new_id()
        check_text(request_id)
        history = self.history_of(live, query)
        barred, excluded = self._barred(live, query.filter, query.exclude)
        k = min(query.k, self.settings.max_k, live.channels.n_items)
        notes: list[str] = []
        rules = live.house.rules(live.state.index_of, k, barred, history, query, notes)
        if k == 0 or self._nothing_left(barred, excluded):
            if k:
                notes.append("Nothing may be shown: every item is hidden, filtered or excluded.")
            return self._answer(live, [], request_id, notes)
        wish = Wish(k, barred, live.state.n_base, rules, self._explore(live, request_id), query.explain, self.level(), excluded)
        return _Plan(query, request_id, history, wish, notes)

    def _finished(self, live: Live, plan: _Plan, found: Found | InputError, now: float) -> Answer:
        """The answer, kept and told of."""
        if isinstance(found, InputError):
            raise found
        answer = self._told_of(live, plan, found)
        self._keep(answer, plan.query.user_id, found, None)
        if self.notice is not None:
            self.notice(live, plan.query, answer, found, now)
        return answer

    def _told_of(self, live: Live, plan: _Plan, found: Found) -> Answer:
        """A list as an answer."""
        explain = plan.query.explain
        rows = self._listed(live, found, explain, plan.history)
        left = self._left_out(live, found) if explain else None
        notes = plan.notes + (found.picked.notes if found.picked is not None else [])
        answer = self._answer(live, rows, plan.request_id, notes, left)
        if found.degraded:
            answer = msgspec.structs.replace(answer, degraded=[*(answer.degraded or []), *found.degraded], level=found.level)
        return answer

    def _people(self, live: Live, query: RecommendQuery) -> Answer:
        """The people whom somebody might know."""
        given = {"filter": query.filter, "pinned": query.pinned, "boost": query.boost, "bury": query.bury, "max_per": query.max_per}
        wrong = [name for name, value in {**given, "diversity": query.diversity}.items() if value]
        if wrong:
            raise InputError(f"{', '.join(wrong)} is about items and can't be asked with target 'users'. Leave it out.")
        if live.people is None:
            raise InputError(
                "This bundle knows no connections between users, so nobody can be recommended to anybody. Import edges such as "
                "user:1, friend, user:2 with `tastemaker import --edges`, then train."
            )
        history = self.history_of(live, query)
        k = min(query.k, self.settings.max_k)
        users = live.people.recommend(query.user_id, history, k, query.exclude, query.explain) if k else []
        return msgspec.structs.replace(self._answer(live, [], query.request_id), users=users)

    def _explore(self, live: Live, request_id: str) -> Explore | None:
        """The fresh slot of a request; None where nothing is fresh."""
        share = min(self.settings.fresh_slots / live.fresh.page, 1.0)
        fresh = live.state.fresh.now(self.clock()) if share > 0 else _EMPTY
        return Explore(fresh, share, live.fresh.temperature, draw_of(request_id)) if len(fresh) else None

    def _left_out(self, live: Live, found: Found) -> list[LeftOut]:
        picked, items = found.picked, found.candidates
        if picked is None or items is None:
            return []
        rows = sorted(picked.left_out.items(), key=lambda one: one[1][1])
        return [LeftOut(live.state.rows[int(items[place])]["item_id"], rule, before + 1) for place, (rule, before) in rows]

    def _keep(self, answer: Answer, user_id: str | None, found: Found, trial: Trial | None) -> None:
        """Keeps an answer with its propensities, if the settings want it, and of those who are compared in a trial every one."""
        chance = found.picked is not None and found.picked.chance
        variant = LIVE if trial is None else trial.variant(user_id)
        wanted = self.settings.record == "all" or chance or variant != LIVE
        if self.served is None or self.settings.record == "none" or not wanted:
            return
        items = [(one.item_id, one.score, one.source, 1.0 if one.propensity is None else one.propensity) for one in answer.items]
        self.served.write(Served(answer.request_id, user_id, self.clock(), answer.model_version, items, variant))

    def _listed(self, live: Live, found: Found, explain: bool, history: IntArray = _EMPTY) -> list[Recommended]:
        words = None
        if explain:
            connected = live.connections.to(history) if live.connections is not None and len(history) else None
            words = reasons(
                found, lambda place: str(live.state.rows[place].get("title") or live.state.rows[place]["item_id"]), connected
            )
        picked, items, scores = found.picked, found.items.tolist(), found.scores.tolist()
        if not explain and not (picked is not None and picked.chance):
            row_of = live.state.rows.__getitem__
            return [
                Recommended(row["item_id"], score, source, None, row.get("title"))
                for row, score, source in zip(map(row_of, items), scores, found.sources, strict=True)
            ]
        chance = picked.propensity.tolist() if picked is not None and picked.chance else [None] * len(found.items)
        moves: Sequence[list[Move] | None] = (
            picked.moves if explain and picked is not None and picked.moves else [None] * len(found.items)
        )
        told = found.chances if explain else None
        return [
            self._recommended(
                live,
                item,
                scores[at],
                found.sources[at],
                words[at] if words else None,
                chance[at],
                None if told is None else named(found.heads, told[at]) or None,
                moves[at] or None,
            )
            for at, item in enumerate(items)
        ]

    def _recommended(
        self,
        live: Live,
        place: int,
        score: float,
        source: str,
        why: str | None,
        propensity: float | None = None,
        chances: dict[str, float] | None = None,
        moves: list[Move] | None = None,
    ) -> Recommended:
        row = live.state.rows[place]
        return Recommended(row["item_id"], score, source, why, row.get("title"), propensity, chances, moves)

    def _answer(
        self,
        live: Live,
        items: list[Recommended],
        request_id: str | None = None,
        notes: list[str] | None = None,
        left_out: list[LeftOut] | None = None,
    ) -> Answer:
        return Answer(
            request_id=request_id or new_id(),
            model_version=live.version,
            items=items,
            degraded=self._degraded(live) or None,
            notes=notes or None,
            left_out=left_out or None,
        )


class _Plan(msgspec.Struct, frozen=True, eq=False):
    """What a question asks of the road.

    Attributes:
        history: what the asker met. notes: rules that can't be kept.
    """

    query: RecommendQuery
    request_id: str
    history: IntArray
    wish: Wish
    notes: list[str]


def _open(barred: BoolArray) -> int:
    """How many items may be shown."""
    return len(barred) - int(np.count_nonzero(barred))


def _without(barred: BoolArray, items: IntArray) -> BoolArray:
    """What may not be shown, these items neither."""
    found = barred.copy()
    found[items] = True
    return found


def _narrowed(barred: BoolArray, matching: BoolArray) -> BoolArray:
    """What may not be shown where only what matches a filter may."""
    return unwritten(barred | ~matching)


def _tried(call: Callable[[], T]) -> T | Exception:
    """What a call gives or raises: a question falls alone."""
    try:
        return call()
    except Exception as error:
        return error


def item_of(item_id: str, body: ItemBody) -> Item:
    """A client's item as it is stored.

    Raises:
        InputError: a text is no valid Unicode.
    """
    for text in (item_id, body.title, body.text, body.image, body.audio, *body.categories):
        check_text(text)
    for number in (body.price, body.created_at):
        check_json(number)
    check_json(body.extra)
    return Item(item_id=item_id, **{name: value for name, value in msgspec.structs.asdict(body).items() if value is not None})
