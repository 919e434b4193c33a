"""Rules of a list on a shelf that the eye can follow: items 0 … 11 with falling scores, three kinds, titles and directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tastemaker.pipeline.engine import Road, Wish
from tastemaker.pipeline.explore import Explore, chances, draw_of, drawn, slots_of
from tastemaker.pipeline.rerank import diversify, order
from tastemaker.pipeline.rules import Rules, compile_pushes, joined_caps, plain_title
from tastemaker.pipeline.select import Facts, Picked, pick
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import FloatArray, QueryState
from tastemaker.schema.rules import Cap, Shift

N = 12
KINDS = ["boots", "boots", "boots", "boots", "tea", "boots", "tea", "music", "boots", "music", "tea", "boots"]
ROWS: list[dict[str, Any]] = [
    {"item_id": f"i{place}", "title": f"Thing {place}", "categories": [kind], "price": float(place)}
    for place, kind in enumerate(KINDS)
]
SCORES = np.linspace(3, -3, N).astype(np.float32)
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(N, 8)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def candidates(ranks: Any = None) -> ChannelScores:
    given = np.arange(N, dtype=np.int32)[:, None] if ranks is None else np.asarray(ranks, dtype=np.int32)[:, None]
    return ChannelScores(np.arange(N, dtype=np.int32), ("text",), SCORES[:, None], given, np.ones(N, np.float32), 100)


def facts(vectors: FloatArray = VECTORS, rows: list[dict[str, Any]] = ROWS) -> Facts:
    return Facts(lambda items: vectors[items], lambda items: vectors[items], rows.__getitem__)


def picked(k: int, given: Facts | None = None, explore: Explore | None = None, ranks: Any = None, **rules: Any) -> Picked:
    return pick(candidates(ranks), SCORES, k, Rules(**rules), explore, given or facts())


def moves(found: Picked) -> dict[int, list[tuple[str, int, int]]]:
    return {
        place: [(one.rule, one.before, one.after) for one in told]
        for place, told in zip(found.places.tolist(), found.moves, strict=True)
        if told
    }


def test_neutral_rules_leave_the_order_of_the_scores_and_say_nothing() -> None:
    for scores in (SCORES, RANDOM.permutation(SCORES), np.array([1, np.nan, 1, np.inf, 0, 0, 2, 2, -np.inf, 5, 5, 1], np.float32)):
        found = pick(candidates(), scores, 7, Rules(), None, facts())
        assert found.places.tolist() == order(scores, 7).tolist()
        assert (found.moves, found.left_out, found.notes, found.chance) == ([], {}, [], False)


def test_mmr_is_what_it_was() -> None:
    def reference(scores: FloatArray, k: int, strength: float) -> list[int]:
        pool = order(scores, max(5 * k, 50))
        worth = (scores[pool] - scores[pool].min()) / (scores[pool].max() - scores[pool].min())
        taken: list[int] = []
        while len(taken) < min(k, len(pool)):
            best = max(
                (place for place in range(len(pool)) if place not in taken),
                key=lambda place: (
                    (1 - strength) * worth[place]
                    - strength * max([0.0, *(float(VECTORS[pool[place]] @ VECTORS[pool[other]]) for other in taken)]),
                    -place,
                ),
            )
            taken.append(best)
        return pool[taken].tolist()

    for strength in (0.1, 0.5, 0.9, 1.0):
        assert diversify(SCORES, VECTORS, 6, strength).tolist() == reference(SCORES, 6, strength)
        assert picked(6, diversity=strength).places.tolist() == reference(SCORES, 6, strength)


def test_greedy_dpp_takes_the_item_that_raises_the_objective_most() -> None:
    worth = (SCORES - SCORES.min()) / (SCORES.max() - SCORES.min())
    kernel = (1 + VECTORS.astype(np.float64) @ VECTORS.T.astype(np.float64)) / 2
    np.fill_diagonal(kernel, 1.0)
    for strength in (0.1, 0.4, 0.8, 1.0):
        taken: list[int] = []
        for _ in range(6):
            value = {
                place: (1 - strength) * sum(worth[[*taken, place]])
                + strength * np.linalg.slogdet(kernel[np.ix_([*taken, place], [*taken, place])])[1]
                for place in range(N)
                if place not in taken
            }
            taken.append(max(value, key=lambda place: (round(value[place], 7), -place)))
        assert diversify(SCORES, VECTORS, 6, strength, "dpp").tolist() == taken
    with pytest.raises(InputError, match="mmr or dpp"):
        diversify(SCORES, VECTORS, 6, 0.5, "magic")


@pytest.mark.parametrize("by", ["mmr", "dpp"])
def test_the_dial_turns_from_relevance_to_unlikeness(by: str) -> None:
    twins = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)  # four copies of each of three directions
    assert diversify(SCORES, twins, 3, 0.0, by).tolist() == [0, 1, 2]
    assert diversify(SCORES, twins, 3, 1.0, by).tolist() == [0, 4, 8]
    assert sorted(diversify(SCORES, twins, N, 0.7, by).tolist()) == list(range(N)), "no item is lost where nothing new is left"


def test_caps_and_how_they_give_way() -> None:
    found = picked(6, caps=(Cap(field="categories", count=2),))
    assert found.places.tolist() == [0, 1, 4, 6, 7, 9]
    assert found.notes == []
    assert found.left_out[2] == ("max_per categories: 2 of 'boots' stand in the list", 2)
    assert moves(found)[4] == [("moves of others", 5, 3)]
    more = picked(8, caps=(Cap(field="categories", count=2),))
    assert more.places.tolist() == [0, 1, 4, 6, 7, 9, 2, 10], "the third of a kind where two of each are not enough"
    assert more.notes == ["max_per was raised (categories 2 to 3): too few other candidates."]
    assert sorted(picked(N, caps=(Cap(field="categories", count=1),)).places.tolist()) == list(range(N))


def test_caps_of_a_request_stand_before_those_of_the_service() -> None:
    joined = joined_caps([Cap(field="a", count=1), Cap(field="b", count=5)], [Cap(field="a", count=3), Cap(field="a", count=2)])
    assert {cap.field: cap.count for cap in joined} == {"a": 2, "b": 5}


def test_doubles_leave_and_come_back_only_when_nothing_else_is_left() -> None:
    vectors = np.eye(N, dtype=np.float32)
    vectors[1] = vectors[0] * 0.99
    vectors[1, 5] = np.sqrt(1 - 0.99**2)
    rows = [
        {**row, "title": "The Lion-King!" if place == 3 else "the lion  king" if place == 7 else row["title"]}
        for place, row in enumerate(ROWS)
    ]
    given = facts(vectors, rows)
    found = picked(8, given, near_duplicates=0.95, same_title=True)
    assert found.places.tolist() == [0, 2, 3, 4, 5, 6, 8, 9]
    assert found.left_out == {1: ("near_duplicates: like i0", 1), 7: ("same_title: like i3", 7)}
    whole = picked(N, given, near_duplicates=0.95, same_title=True)
    assert whole.places.tolist() == [0, 2, 3, 4, 5, 6, 8, 9, 10, 11, 1, 7]
    assert whole.notes == ["Doubles were let in: too few other candidates."]
    caps = picked(N, given, near_duplicates=0.95, caps=(Cap(field="categories", count=1),))
    assert caps.places.tolist()[-1] == 1, "caps give way before doubles"
    assert len(caps.notes) == 2
    assert plain_title("  Amélie (2001) ") == "amelie2001" == plain_title("AMELIE, 2001")


def test_pins_stand_where_they_were_put_and_count_for_the_rules() -> None:
    found = picked(5, pins={0: 9, 3: 1}, caps=(Cap(field="categories", count=2),))
    assert found.places.tolist() == [9, 0, 4, 1, 6]
    assert moves(found)[9] == [("pinned", 10, 1)]
    assert found.left_out[2] == ("max_per categories: 2 of 'boots' stand in the list", 2), "the pin below counts already"
    late = picked(N, pins={N - 1: 0})
    assert late.places.tolist() == [*range(1, N), 0]
    assert picked(2 * N, pins={N + 5: 0}).places.tolist() == [*range(1, N), 0], "below the end of what there is"


def test_a_pin_that_no_channel_found_is_scored_and_shown() -> None:
    class Narrow:
        n_items = N

        def candidates(
            self, states: Any, depth: int, allowed: Any = None, filter_seen: bool = True, gather: Any = None, excluded: Any = None
        ) -> list[ChannelScores]:
            return [self.score_items(None, np.arange(3, dtype=np.int32), depth) for _ in states]

        def score_items(self, state: Any, items: Any, depth: int) -> ChannelScores:
            ranks = np.asarray(items)[:, None].astype(np.int32)
            return ChannelScores(items, ("text",), SCORES[items][:, None], ranks, np.ones(len(items), np.float32), depth)

    class Plain:
        def score(self, found: ChannelScores, history_length: int) -> FloatArray:
            return found.scores[:, 0]

        def parts(self, found: ChannelScores, history_length: int) -> FloatArray:
            return found.scores

    road = Road(Narrow(), Plain(), lambda items: VECTORS[items], 3)
    state = QueryState(np.zeros(0, np.int32), None)
    found = road.recommend(state, Wish(3, rules=Rules(pins={1: 9})))
    assert found.items.tolist() == [0, 9, 1]
    assert found.scores.tolist() == SCORES[[0, 9, 1]].tolist()


def test_boosts_and_burials_move_by_places_and_tell() -> None:
    tea = Shift(filter={"field": "categories", "any_of": ["tea"]}, places=3)
    cheap = Shift(filter={"field": "price", "lt": 1})
    found = picked(6, pushes=compile_pushes([tea], [cheap]))
    assert found.places.tolist() == [4, 1, 2, 6, 3, 5], (
        "the fifth goes to the second place, which is the first without the cheap one"
    )
    assert moves(found)[4] == [("boost[0]", 5, 1)]
    assert found.left_out[0] == ("bury[0]", 0)
    both = picked(N, pushes=compile_pushes([Shift(filter=tea.filter)], [Shift(filter=tea.filter)]))
    assert both.places.tolist()[-3:] == [4, 6, 10], "buried all the way wins over boosted all the way"
    nothing = picked(N, pushes=compile_pushes([tea], [tea]))
    assert nothing.places.tolist() == list(range(N)), "equal and opposite"
    assert picked(3, pushes=compile_pushes([Shift(filter=tea.filter)], [])).places.tolist() == [4, 6, 10]
    varied = picked(3, diversity=0.01, pushes=compile_pushes([Shift(filter=tea.filter)], []))
    assert varied.places[0] == 4, "diversity reads the order that boosts made"
    kept = compile_pushes([Shift(filter=tea.filter)], [])
    assert picked(1, pushes=kept).places.tolist() == [4]
    rows = [{**row, "categories": ["tea"]} if place == 2 else row for place, row in enumerate(ROWS)]
    assert picked(1, facts(rows=rows), pushes=kept).places.tolist() == [2], "what is remembered ends with the fields of the item"
    with pytest.raises(InputError, match=r"service boost\[0\]: .*one of"):
        compile_pushes([Shift(filter={"field": "price", "like": 1})], [], "service ")


def test_the_share_of_a_list_and_its_bound() -> None:
    assert [slots_of(k, 0.1) for k in (3, 5, 10, 20)] == [0.0, 0.5, 1.0, 2.0]
    assert slots_of(10, 1.0) == 2.5, "a quarter at most"
    assert slots_of(4, 0.0) == 0.0


@pytest.mark.parametrize("slots", [0.3, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("temperature", [0.0, 2.0, 1e9])
def test_items_are_drawn_as_often_as_their_propensity_says(slots: float, temperature: float) -> None:
    chance = chances(np.array([0, 1, 4, 4, 15]), slots, temperature)
    assert chance.sum() == pytest.approx(min(slots, 5))
    assert ((chance >= 0) & (chance <= 1)).all()
    draws = (np.arange(5_000) + 0.5) / 5_000
    counts, sizes = np.zeros(5), set()
    for draw in draws:
        taken = drawn(chance, float(draw))
        counts[taken] += 1
        sizes.add(len(taken))
    assert np.abs(counts / len(draws) - chance).max() < 5e-4
    assert sizes <= {int(np.floor(slots)), int(np.ceil(slots))}
    if temperature == 2.0 and slots < 1:
        assert chance[0] / chance[1] == pytest.approx(np.exp(0.5))


def test_the_draw_follows_from_the_request_and_is_uniform() -> None:
    draws = np.array([draw_of(f"r{number}") for number in range(4_000)])
    assert draw_of("r7") == draws[7]
    assert np.histogram(draws, 10, (0, 1))[0].min() > 330


def explore(draw: float, share: float = 0.1, temperature: float = 3.0) -> Explore:
    return Explore(np.array([9, 10, 11], dtype=np.int32), share, temperature, draw)


def test_a_fresh_item_takes_the_last_place_by_chance_and_says_how_likely_that_was() -> None:
    ranks = [30] * 9 + [0, 2, 50]  # two fresh items are close to this user, the third is not
    seen: dict[int, float] = {}
    for draw in (np.arange(1_000) + 0.5) / 1_000:
        found = picked(6, explore=explore(float(draw), 1 / 6), ranks=ranks)
        assert found.places[:5].tolist() == [0, 1, 2, 3, 4]
        assert found.propensity[:5].tolist() == [1.0] * 5
        assert found.slot.tolist() == [False] * 5 + [True]
        seen[int(found.places[5])] = float(found.propensity[5])
        assert moves(found)[int(found.places[5])][0][0] == "fresh slot"
        assert found.left_out[5] == ("fresh slot at place 6", 5)
    assert set(seen) == {9, 10}
    far = {int(picked(6, explore=explore(draw / 50, 1 / 6, 1e9), ranks=ranks).places[5]) for draw in range(50)}
    assert far == {9, 10}, "what is not close takes no part, however far chance reaches"
    assert seen[9] + seen[10] == pytest.approx(1)
    assert seen[9] > seen[10]


def test_the_propensities_of_all_places_are_the_frequencies_of_their_items() -> None:
    ranks, told, counts = [30] * 9 + [0, 2, 3], {}, np.zeros(N)
    draws = (np.arange(1_000) + 0.5) / 1_000
    for draw in draws:
        found = picked(8, explore=explore(float(draw), 0.2), ranks=ranks)  # 1.6 places
        counts[found.places] += 1
        for place, propensity in zip(found.places.tolist(), found.propensity.tolist(), strict=True):
            assert told.setdefault(place, propensity) == pytest.approx(propensity)
    for place, propensity in told.items():
        assert counts[place] / len(draws) == pytest.approx(propensity, abs=2e-3)
    assert told[6] == pytest.approx(0.4)
    assert 7 not in told, "one place is fresh for certain"


def test_an_off_policy_estimate_from_the_propensities_is_unbiased() -> None:
    """What the policy 'always the closest' would earn, from answers of the policy that explores (inverse propensity scoring)."""
    ranks, reward = [30] * 9 + [0, 2, 3], {9: 0.3, 10: 0.7, 11: 0.1}
    estimates = []
    for number in range(2_000):
        found = picked(6, explore=explore(draw_of(f"request {number}"), 1 / 6), ranks=ranks)
        item = int(found.places[5])
        estimates.append((item == 9) * reward[item] / found.propensity[5])
    assert np.mean(estimates) == pytest.approx(reward[9], abs=0.03)


def test_the_fresh_slot_keeps_rules_and_pins() -> None:
    ranks = [30] * 9 + [0, 1, 2]
    found = picked(6, explore=explore(0.5, 1 / 6), ranks=ranks, pins={5: 2})
    assert found.places[5] == 2, "a pin is no place for a fresh item"
    assert found.slot.tolist() == [False] * 4 + [True, False]
    caps = picked(6, explore=explore(0.5, 1 / 6), ranks=ranks, caps=(Cap(field="categories", count=1),))
    assert not caps.slot.any(), "each kind stands in the list already"
    listed = picked(N, explore=explore(0.5), ranks=ranks)
    assert not listed.slot.any(), "fresh items that are in the list by themselves need no slot"
    assert not picked(3, explore=explore(0.5), ranks=ranks).slot.any()
