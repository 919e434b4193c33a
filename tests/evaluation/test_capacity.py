"""The capacity model: more of anything never takes fewer machines, what can't be done says why, and a held-back point is predicted."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.cli.app import call
from tastemaker.cli.plan import slowness
from tastemaker.evaluation.capacity import Assumed, Costs, Curve, Machine, Need, busy_share, held_back, plan
from tastemaker.schema.errors import InputError

SHOP = Need(items=50_000, users=200_000, events_per_day=2e6, peak_rps=200)
BIG = Machine(cores=64, memory_gib=1_024, network_gbit=25, price_hour=5)
COSTS = Costs.shipped()


def test_curves_pass_through_their_points_and_go_on_as_they_grow() -> None:
    power, affine = Curve("power", [(10, 1), (100, 10), (1_000, 100)]), Curve("affine", [(10, 3), (100, 12), (1_000, 102)])
    assert [power.at(size) for size in (10, 100, 1_000)] == pytest.approx([1, 10, 100])
    assert power.at(31.622776) == pytest.approx(3.1622776)
    assert power.at(1e5) == pytest.approx(1e4)
    assert affine.at(55) == pytest.approx(7.5)
    assert affine.at(2_000) == pytest.approx(202)
    assert power.at(1) == power.at(10)
    assert Curve("power", [(10, 5), (100, 4)]).at(1e4) == pytest.approx(4)  # noise does not make larger cheaper


@pytest.mark.parametrize("each_day", [2e6, 1e8])
def test_the_numbers_of_a_plan_by_hand(each_day: float) -> None:
    assumed, need = Assumed(), msgspec.structs.replace(SHOP, events_per_day=each_day, peak_rps=5_000)
    found = plan(need, Machine(), COSTS, assumed)
    answer = COSTS.answer_ms.at(SHOP.items)
    busy = min(assumed.most_busy, 1 - answer * math.log(100) / SHOP.p99_ms)
    events = 3 * each_day / 86_400 / found.cells
    wanted = (5_000 / found.cells * answer / 1e3 + events * COSTS.event_us / 1e6) / (busy - events * COSTS.follow_us / 1e6)
    assert found.busy == pytest.approx(busy)
    assert found.machines == found.cells * (math.ceil(wanted / found.workers) + 1)
    assert found.price_million == pytest.approx(found.machines * Machine().price_hour / (3_600 * 5_000 / 3) * 1e6)
    assert found.shares["CPU of following events"] == pytest.approx(events * COSTS.follow_us / 1e6 / busy)
    assert all(0 <= share <= 1 for share in found.shares.values())
    assert found.memory_gib <= 0.8 * Machine().memory_gib


@settings(max_examples=60, deadline=None)
@given(
    st.floats(4, 6), st.floats(4, 8), st.floats(5, 9), st.floats(1, 5), st.sampled_from(["items", "users", "events_per_day", "peak_rps"]),
    st.floats(1.0, 30.0),
)  # fmt: skip
def test_more_never_takes_fewer_machines(items: float, users: float, events: float, rps: float, name: str, factor: float) -> None:
    need = Need(10**items, 10**users, 10**events, 10**rps)
    more = msgspec.structs.replace(need, **{name: factor * getattr(need, name)})
    first, second = plan(need, BIG), plan(more, BIG)
    assert second.impossible or not first.impossible
    if not second.impossible:
        assert second.machines >= first.machines
        assert first.workers >= 1
        assert max(second.shares.values()) <= 1 + 1e-9


def test_a_shorter_time_takes_more_or_says_what_can_be_had() -> None:
    found = [plan(msgspec.structs.replace(SHOP, peak_rps=20_000, p99_ms=p99)) for p99 in (500.0, 50.0, 25.0)]
    assert found[0].machines <= found[1].machines <= found[2].machines
    impossible = plan(msgspec.structs.replace(SHOP, p99_ms=2.0))
    assert impossible.impossible == impossible.bottleneck
    assert "at best" in impossible.impossible
    least = float(impossible.impossible.split("within ")[1].split()[0])
    assert plan(msgspec.structs.replace(SHOP, p99_ms=math.ceil(least) + 1)).machines > 0
    assert busy_share(1.0, 1e9, 0.7) == 0.7
    assert busy_share(2.0, 20.0, 0.7) == pytest.approx(1 - 2 * math.log(100) / 20)


def test_events_are_divided_by_cells_and_items_by_nothing() -> None:
    calm, busy = plan(SHOP), plan(msgspec.structs.replace(SHOP, events_per_day=2e9))
    assert busy.cells > calm.cells
    too_large = plan(msgspec.structs.replace(SHOP, items=1e8))
    assert too_large.impossible.startswith("memory: one worker takes")
    assert plan(SHOP.times(100)).machines > calm.machines


@pytest.mark.parametrize("change", [{"items": 0}, {"users": -1}, {"peak_rps": math.nan}, {"p99_ms": math.inf}])
def test_a_number_that_is_none_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(change))} is .*expected a number above 0"):
        plan(msgspec.structs.replace(SHOP, **change))


def test_the_shipped_costs_predict_their_largest_points() -> None:
    found = held_back(COSTS)
    assert len(found) >= 4
    for name, size, told, measured in found:
        assert told == pytest.approx(measured, rel=0.25), (name, size)
    bent = msgspec.structs.replace(COSTS, state_gib=Curve("affine", [(1e3, 0.03), (1e5, 0.3), (1e6, 9.0)]))
    assert any(abs(told / measured - 1) > 0.25 for _, _, told, measured in held_back(bent))


def test_slower_cores_take_more() -> None:
    twice = plan(msgspec.structs.replace(SHOP, peak_rps=200_000), costs=COSTS.scaled(2.0))
    once = plan(msgspec.structs.replace(SHOP, peak_rps=200_000))
    assert twice.machines > 1.5 * once.machines
    assert twice.memory_gib == once.memory_gib


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--items", "1e5", "--users", "1e6", "--events-per-day", "1e7", "--peak-rps", "1e3", "--p99", "80"]
    assert call(words) == 0
    told = capsys.readouterr().out
    assert "Bottleneck:" in told
    assert call([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"]["machines"] >= 2
    assert found["bottleneck"] in found["plan"]["shares"]
    assert call([*words[:-1], "1"]) == 1
    assert "It can't be done like this:" in capsys.readouterr().out
    assert call([*words[:2], "0", *words[3:]]) == 2


@pytest.mark.long
def test_this_machine_is_measured() -> None:
    assert 0.1 < slowness(COSTS) < 20
