"""Who stands where: from scored candidates to a list that keeps the rules, with every choice told.

In this order: boosts and burials make a new order of the candidates; pinned items take their places; the other places go, one after the other, to the
candidate that is worth most by the dial of diversity among those that caps and doubles leave free; the fresh slot takes the last places. A list has k
items while there are k candidates: caps are raised, then doubles let in, and the list says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.pipeline.explore import Explore, chances, drawn, slots_of
from tastemaker.pipeline.rerank import order, taste_of
from tastemaker.pipeline.rules import Guard, RowOf, Rules, shifted
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray
from tastemaker.schema.queries import Move

FRESH_RANK = 20
"""A fresh item suits a user if fewer than this many items of the whole catalogue stand closer to the user in some channel."""
FRESH_SLOT = "fresh slot"

Vectors = Callable[[IntArray], FloatArray]


class Facts(msgspec.Struct, frozen=True, eq=False):
    """What selection reads of items.

    Attributes:
        vectors: unit rows by item index, for diversity. texts: unit rows by which doubles are known. row_of: fields.
    """

    vectors: Vectors
    texts: Vectors
    row_of: RowOf


class Picked(msgspec.Struct, eq=False):
    """A list, as places among the candidates, and how it came about.

    Attributes:
        places: int64 [k], best first.
        propensity: chance that each of these items stands in the list, float64 [k].
        chance: whether chance took part in this list at all.
        slot: bool [k], items that stand in a fresh slot.
        moves: for each place the rules that moved its item, in order.
        left_out: for candidates that would stand in the list by score: the rule, and the place they would have (0 is the top).
        notes: rules that were relaxed.
    """

    places: NDArray[np.int64]
    propensity: NDArray[np.float64]
    chance: bool
    slot: BoolArray
    moves: list[list[Move]] = msgspec.field(default_factory=list)
    left_out: dict[int, tuple[str, int]] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)


def pick(found: ChannelScores, scores: FloatArray, k: int, rules: Rules, explore: Explore | None, facts: Facts) -> Picked:
    """The list of k items, fewer only where there are fewer candidates.

    Args:
        found: the candidates, those that are pinned among them. scores: of the candidates, float32 [M].
        rules: what the list obeys. explore: the fresh slot; None: there is none.
    """
    fresh = explore is not None and len(explore.fresh) > 0
    if rules.neutral and not fresh:
        places = order(scores, k)
        return Picked(places, np.ones(len(places)), False, np.zeros(len(places), dtype=bool))
    plain = order(scores, len(scores))
    ranked, pushed = shifted(plain, found.items, rules.pushes, facts.row_of) if rules.pushes else (plain, {})
    worth = _resorted(scores, plain, ranked) if pushed else scores
    pins = _pinned(found.items, rules, k)
    guard = Guard(found.items, rules, facts.row_of, facts.texts) if rules.guarded else None
    places = _filled(worth, ranked, k, rules, pins, guard, facts.vectors(found.items) if rules.diversity > 0 else None)
    told = _Told(found, plain, ranked, pushed, rules, pins, facts.row_of)
    notes = guard.notes() if guard is not None else []
    left = told.left_out(places, guard)
    if explore is None or not fresh:
        return Picked(places, np.ones(len(places)), False, np.zeros(len(places), dtype=bool), told.moves(places), left, notes)
    return _with_fresh(places, found, explore, rules, pins, facts, told, left, notes)


def _filled(
    scores: FloatArray,
    ranked: NDArray[np.int64],
    k: int,
    rules: Rules,
    pins: dict[int, int],
    guard: Guard | None,
    vectors: FloatArray | None,
) -> NDArray[np.int64]:
    """Places of the list without the fresh slot."""
    if guard is None and not pins and vectors is None:
        return ranked[: max(k, 0)]
    taste = taste_of(scores, ranked, vectors if vectors is not None else scores[:, None], k, rules.diversity, rules.diversity_by)
    left = np.ones(len(scores), dtype=bool)
    for place in pins.values():  # what is pinned below counts for what may stand above
        left[place] = False
        taste.take(place)
        if guard is not None:
            guard.take(place)
    chosen: list[int] = []
    while len(chosen) < k and (left.any() or len(chosen) in pins):
        pinned = pins.get(len(chosen))
        if pinned is not None:
            chosen.append(pinned)
            continue
        worth = taste.worth()
        if guard is not None:
            best = guard.best(ranked, worth, left)
        else:
            best = int(ranked[np.argmax(np.where(left[ranked], worth[ranked], -np.inf))])
        chosen.append(best)
        left[best] = False
        taste.take(best)
        if guard is not None:
            guard.take(best)
    standing = set(chosen)
    late = [place for _, place in sorted(pins.items()) if place not in standing]  # pinned below the end of a short list
    return np.array([*chosen, *late][:k], dtype=np.int64)


def _with_fresh(
    places: NDArray[np.int64],
    found: ChannelScores,
    explore: Explore,
    rules: Rules,
    pins: dict[int, int],
    facts: Facts,
    told: _Told,
    left: dict[int, tuple[str, int]],
    notes: list[str],
) -> Picked:
    """The last places that are not pinned go to fresh candidates that are not in the list yet, each with its own chance."""
    fixed = set(pins.values())
    movable = np.array([at for at, place in enumerate(places.tolist()) if place not in fixed], dtype=np.int64)
    slots = min(slots_of(len(places), explore.share), float(len(movable)))
    most = int(np.ceil(slots - 1e-9))
    fresh = _eligible(found, explore, places, movable[: len(movable) - most], fixed, most, rules, facts) if most else []
    if not fresh:
        return Picked(places, np.ones(len(places)), False, np.zeros(len(places), dtype=bool), told.moves(places), left, notes)
    closest = found.ranks[fresh].min(axis=1)
    chance = chances(closest, slots, explore.temperature)
    taken = drawn(chance, explore.draw)
    expected = float(chance.sum())
    propensity = np.ones(len(places))
    for back, at in enumerate(movable[::-1].tolist()):  # the last place is lost if one is drawn, the one before if two are
        propensity[at] = 1.0 - min(max(expected - back, 0.0), 1.0)
    slot = np.zeros(len(places), dtype=bool)
    after = places.copy()
    for at, which in zip(movable[len(movable) - len(taken) :].tolist(), taken.tolist(), strict=True):
        left[int(places[at])] = (f"{FRESH_SLOT} at place {at + 1}", told.plain_rank(int(places[at])))
        after[at], propensity[at], slot[at] = fresh[which], chance[which], True
    return Picked(after, propensity, bool((propensity < 1).any() or (chance < 1).any()), slot, told.moves(after, slot), left, notes)


def _eligible(
    found: ChannelScores,
    explore: Explore,
    places: NDArray[np.int64],
    kept: NDArray[np.int64],
    fixed: set[int],
    most: int,
    rules: Rules,
    facts: Facts,
) -> list[int]:
    """Fresh candidates that suit this user, are not in the list and break no rule beside what stays in it, the closest first."""
    closest = found.ranks.min(axis=1)
    fresh = np.flatnonzero(np.isin(found.items, explore.fresh) & (closest < FRESH_RANK))
    standing = set(places.tolist())
    near = [place for place in fresh[np.argsort(closest[fresh], kind="stable")].tolist() if place not in standing]
    if not near or not rules.guarded:
        return near
    guard = Guard(found.items, rules, facts.row_of, facts.texts)
    for place in [*fixed, *places[kept].tolist()]:
        guard.take(place)
    good = []
    for place in near:
        if guard.why(place) is None:
            good.append(place)
            if most > 1:  # two of them can stand side by side
                guard.take(place)
    return good


class _Told:
    """Tells what moved an item: from its place by score, by pushes, pins, diversity and what others left free, to where it stands."""

    def __init__(
        self,
        found: ChannelScores,
        plain: NDArray[np.int64],
        ranked: NDArray[np.int64],
        pushed: dict[int, str],
        rules: Rules,
        pins: dict[int, int],
        row_of: RowOf,
    ) -> None:
        self._found, self._rules, self._pushed, self._pins = found, rules, pushed, set(pins.values())
        self._row_of = row_of
        self._by_score, self._by_push = plain, ranked
        self._touched = bool(pushed or pins or rules.guarded or rules.diversity > 0)

    @cached_property
    def _plain(self) -> NDArray[np.int64]:
        return _ranks(self._by_score)

    @cached_property
    def _ranked(self) -> NDArray[np.int64]:
        return _ranks(self._by_push)

    def plain_rank(self, place: int) -> int:
        """Where a candidate would stand by score alone, 0 is the top."""
        return int(self._plain[place])

    def moves(self, places: NDArray[np.int64], slot: BoolArray | None = None) -> list[list[Move]]:
        """For each place of the list what moved its item; empty where it stands by its score."""
        if not self._touched and slot is None:
            return []
        return [self._of(place, at, slot is not None and bool(slot[at])) for at, place in enumerate(places.tolist())]

    def left_out(self, places: NDArray[np.int64], guard: Guard | None) -> dict[int, tuple[str, int]]:
        """Candidates that would stand in the list by score, with the rule that left them out."""
        if not self._touched:
            return {}
        standing = set(places.tolist())
        found = {}
        for place in np.flatnonzero(self._plain < len(places)).tolist():
            if place not in standing:
                found[place] = (self._why_out(place, guard, len(places)), int(self._plain[place]))
        return found

    def _why_out(self, place: int, guard: Guard | None, k: int) -> str:
        blocked = guard.why(place) if guard is not None else None
        if blocked is not None:
            name, like = blocked
            return name if like is None else f"{name}: like {self._row_of(int(self._found.items[like]))['item_id']}"
        if place in self._pushed and self._ranked[place] >= k:
            return self._pushed[place]
        if self._rules.diversity > 0:
            return self._dial()
        return "pins or boosts of others"

    def _of(self, place: int, at: int, in_slot: bool) -> list[Move]:
        now, moves = int(self._plain[place]), []

        def move(rule: str, to: int) -> None:
            nonlocal now
            if to != now:
                moves.append(Move(rule, now + 1, to + 1))
            now = to

        if place in self._pushed:
            move(self._pushed[place], int(self._ranked[place]))
        if in_slot:
            moves.append(Move(FRESH_SLOT, now + 1, at + 1))
        elif place in self._pins:
            moves.append(Move("pinned", now + 1, at + 1))
        else:
            move(self._dial() if self._rules.diversity > 0 else "moves of others", at)
        return moves

    def _dial(self) -> str:
        return f"diversity {self._rules.diversity_by} {self._rules.diversity:g}"


def _ranks(ranked: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.empty(len(ranked), dtype=np.int64)
    found[ranked] = np.arange(len(ranked))
    return found


def _resorted(scores: FloatArray, plain: NDArray[np.int64], ranked: NDArray[np.int64]) -> FloatArray:
    """The scores dealt out anew along another order, so that what reads scores follows it."""
    found = np.empty_like(scores)
    found[ranked] = scores[plain]
    return found


def _pinned(items: IntArray, rules: Rules, k: int) -> dict[int, int]:
    """Place in the list to place among the candidates, for the pins inside the list."""
    if not rules.pins:
        return {}
    number = {int(item): place for place, item in enumerate(items)}
    return {at: number[item] for at, item in sorted(rules.pins.items()) if at < k and item in number}
