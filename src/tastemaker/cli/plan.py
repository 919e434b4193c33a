"""`tastemaker plan`: how many machines a load takes, what they cost, and what gives way first when it grows."""

from __future__ import annotations

import json as json_module
import time
from typing import Annotated

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from tastemaker.evaluation.capacity import Assumed, Costs, Machine, Need, Plan, plan

GROWTH = 100.0
RENTED = Machine()


def run(
    items: Annotated[float, typer.Option(help="Items of the catalogue, as in 1e6.")],
    users: Annotated[float, typer.Option(help="Users with a history.")],
    events_per_day: Annotated[float, typer.Option(help="Events on a day.")],
    peak_rps: Annotated[float, typer.Option(help="Requests a second at the peak of the day.")],
    p99: Annotated[float, typer.Option(help="Milliseconds within which 99 of 100 answers must come.")] = 100.0,
    cores: Annotated[int, typer.Option(min=1, help="Cores of a machine.")] = RENTED.cores,
    memory_gib: Annotated[float, typer.Option(help="Memory of a machine.")] = RENTED.memory_gib,
    network_gbit: Annotated[float, typer.Option(help="Network of a machine.")] = RENTED.network_gbit,
    price_hour: Annotated[float, typer.Option(help="Price of a machine an hour, in your currency.")] = RENTED.price_hour,
    measure: Annotated[bool, typer.Option("--measure", help="Measure how fast this machine's cores are first (20 s).")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Machines, memory, network, disk and price of a load, from measured costs; and what gives way first at a hundred times as much."""
    costs, factor = Costs.shipped(), 1.0
    if measure:
        factor = slowness(costs)
        costs = costs.scaled(factor)
    need, machine = Need(items, users, events_per_day, peak_rps, p99), Machine(cores, memory_gib, network_gbit, price_hour)
    now, later = plan(need, machine, costs), plan(need.times(GROWTH), machine, costs)
    if json:
        told = {"need": need, "machine": machine, "plan": now, "bottleneck": now.bottleneck, "at_100_times": later}
        told |= {
            "bottleneck_at_100_times": later.bottleneck,
            "assumed": Assumed(),
            "measured_on": costs.machine,
            "slowness": factor,
        }
        typer.echo(msgspec.json.encode(told).decode())
    else:
        _show(now, later, costs, factor)
    raise typer.Exit(1 if now.impossible else 0)


def _show(now: Plan, later: Plan, costs: Costs, factor: float) -> None:
    console = Console(highlight=False)
    table = Table("", "now", f"{GROWTH:.0f} times as much", box=None)
    rows: list[tuple[str, str, str]] = [
        ("machines", "machines", ",.0f"), ("in cells", "cells", ",.0f"), ("workers on a machine", "workers", ",.0f"),
        ("CPU of an answer, ms", "answer_ms", ",.2f"), ("planned share of a worker's time", "busy", ".0%"),
        ("memory of a machine, GiB", "memory_gib", ",.1f"), ("network of a machine, Gbit/s", "network_gbit", ",.3f"),
        ("disk of a machine, GiB", "disk_gib", ",.0f"), ("Redis of a cell, Gbit/s", "redis_gbit", ",.3f"),
        ("a training on one machine, h", "train_hours", ",.1f"), ("price an hour", "price_hour", ",.2f"), ("price of a million answers", "price_million", ",.4f"),
    ]  # fmt: skip
    for words, name, form in rows:
        table.add_row(words, *("–" if one.impossible else format(getattr(one, name), form) for one in (now, later)))
    console.print(table)
    for words, one in (("Bottleneck", now), (f"At {GROWTH:.0f} times as much", later)):
        share = (
            f" ({one.shares[one.bottleneck]:.0%} of what may be used)"
            if not one.impossible
            else " (no number of such machines does it)"
        )
        console.print(f"{words}: {one.bottleneck}{share}", soft_wrap=True)
    scaled = "" if factor == 1 else f", times {factor:.2f} for this machine's cores"
    console.print(f"Costs measured on {costs.machine}{scaled}. Assumptions: docs/scale.md", soft_wrap=True)
    if now.impossible:
        console.print(f"[bold red]It can't be done like this:[/] {now.impossible}", soft_wrap=True)


def slowness(costs: Costs) -> float:
    """CPU time of this machine's core over that of the measured one: the geometric mean of three things that answers and events are made of."""
    found = speed()
    return float(np.exp(np.mean([np.log(found[name] / costs.speed[name]) for name in found])))


def speed() -> dict[str, float]:
    """CPU of three things: µs of an event's fold, ms of a product of 30,000 x 128, ms of a thousand JSON bodies read."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return {"fold_us": _fold(), "product_ms": _product(), "lines_ms": _lines()}


def _cpu(call: object, times: int) -> float:
    """Median seconds of CPU of a call."""
    found = []
    for _ in range(times):
        began = time.process_time_ns()
        call()  # type: ignore[operator]
        found.append((time.process_time_ns() - began) / 1e9)
    return float(np.median(found))


def _fold() -> float:
    """Microseconds of folding an event into the default features of 10,000 users."""
    import polars as pl

    from tastemaker.features.feature_set import FeatureSet
    from tastemaker.journal.read import EVENT_SCHEMA
    from tastemaker.schema.events import Event
    from tastemaker.schema.settings import FeatureSettings

    items = pl.DataFrame({"item_id": [f"i{place}" for place in range(5_000)], "title": ["a thing"] * 5_000})
    features = FeatureSet.declared(FeatureSettings().use, items, np.zeros((5_000, 8), dtype=np.float32))
    state, places = features.remember(pl.DataFrame(schema=EVENT_SCHEMA)), iter(range(10**9))

    def one() -> None:
        place = next(places)
        features.update(
            state,
            Event(
                user_id=f"u{place * 7 % 10_000}",
                item_id=f"i{place * 13 % 5_000}",
                event_type="view",
                timestamp=1.7e9 + place,
                event_id=f"e{place}",
            ),
        )

    _cpu(one, 10_000)
    return 1e6 * _cpu(one, 20_000)


def _product() -> float:
    """Milliseconds of a product of 30,000 rows of 128 with one row."""
    random = np.random.default_rng(0)
    rows, one = random.standard_normal((30_000, 128), dtype=np.float32), random.standard_normal(128, dtype=np.float32)
    return 1e3 * _cpu(lambda: rows @ one, 500)


def _lines() -> float:
    """Milliseconds of reading a thousand bodies of ten events each."""
    from tastemaker.schema.queries import EventsQuery

    body = json_module.dumps(
        {"events": [{"user_id": f"u{n}", "item_id": f"i{n}", "event_type": "view", "event_id": f"e{n}"} for n in range(10)]}
    ).encode()
    decode = msgspec.json.Decoder(EventsQuery).decode
    return 1e3 * _cpu(lambda: [decode(body) for _ in range(1_000)], 100)
