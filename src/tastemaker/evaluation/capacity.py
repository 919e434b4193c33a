"""How many machines a load takes: a model of the measured costs of one answer, one event, one item and one user. Arithmetic only; what was measured is in `capacity.json`.

A *cell* is a group of machines with a Redis of its own that serves a share of the users: every worker of a cell follows all events of its users, so events and users are what
cells divide, requests are what machines divide, and items are what nothing divides. Assumptions are `Assumed`, each with its number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from tastemaker.schema.errors import InputError

COSTS = Path(__file__).with_name("capacity.json")
LEAST_BUSY = 0.05
"""A worker that has less than this share of its time left for answers is not worth its memory."""
MOST_CELLS = 2**20


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measured cost over a size.

    Attributes:
        kind: `power` grows as size ** e between its points and beyond them, `affine` as a + b * size.
        points: (size, value), by growing size; beyond a single one nothing grows.
    """

    kind: Literal["power", "affine"]
    points: list[tuple[float, float]]

    def at(self, size: float) -> float:
        """The value at a size; beyond the last point as the last two or three grow, below the first one as the first."""
        sizes, values = np.array(self.points, dtype=float).T
        size = max(size, float(sizes[0]))
        if self.kind == "power":
            sizes, values, size = np.log(sizes), np.log(np.maximum(values, 1e-12)), math.log(size)
        if size > sizes[-1]:
            last = min(len(sizes), 3 if self.kind == "power" else 2)
            away = sizes[-last:] - sizes[-last:].mean()
            slope = float(away @ values[-last:] / max(float(away @ away), 1e-12))
            found = values[-1] + max(slope, 0.0) * (size - sizes[-1])
        else:
            found = float(np.interp(size, sizes, values))
        return math.exp(found) if self.kind == "power" else float(found)

    def without_last(self) -> Curve:
        """Without its largest point."""
        return msgspec.structs.replace(self, points=self.points[:-1])


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured, made by `benchmarks/scale.py --constants`. CPU is that of one core of `machine`.

    Attributes:
        answer_ms: CPU of an answer by items. answer_bytes: of a request and its answer.
        worker_gib: memory that a worker has for itself, by items; state_gib: and for its users' features and histories, by users.
        bundle_gib: mapped files that the workers of a machine share, by items. history_bytes: of a user in them.
        event_us: CPU of storing an event that comes in a batch of ten, by one worker; follow_us: CPU of knowing it, by every worker of the cell.
        relay_bytes: of an event on its way through Redis; relay_rate: events a second that one Redis carries, once for each machine that reads.
        journal_bytes: of an event on disk. import_us: CPU of an event through import, split and features.
        speed: CPU of the three things by which `tastemaker plan --measure` tells how fast a core is, on `machine`.
        step_ms: CPU of a training step of 128 histories, by items. build_s: CPU of building the index, by items.
    """

    machine: str
    measured: str
    answer_ms: Curve
    answer_bytes: float
    worker_gib: Curve
    state_gib: Curve
    bundle_gib: Curve
    history_bytes: float
    event_us: float
    follow_us: float
    relay_bytes: float
    relay_rate: float
    journal_bytes: float
    import_us: float
    speed: dict[str, float]
    step_ms: Curve
    build_s: Curve

    @classmethod
    def shipped(cls) -> Costs:
        """Those that come with the package."""
        return msgspec.json.decode(COSTS.read_bytes(), type=cls)

    def scaled(self, factor: float) -> Costs:
        """All CPU times multiplied: another machine's cores."""

        def slower(curve: Curve) -> Curve:
            return msgspec.structs.replace(curve, points=[(size, factor * value) for size, value in curve.points])

        changes = {name: slower(getattr(self, name)) for name in ("answer_ms", "step_ms", "build_s")}
        numbers = {name: factor * getattr(self, name) for name in ("event_us", "follow_us", "import_us")}
        return msgspec.structs.replace(self, **changes, **numbers)


class Need(msgspec.Struct, frozen=True):
    """What is to be served: counts, events a day, requests a second at the peak, milliseconds within which 99 of 100 answers must come."""

    items: float
    users: float
    events_per_day: float
    peak_rps: float
    p99_ms: float = 100.0

    def times(self, factor: float) -> Need:
        """So many times as much of everything but the time."""
        return Need(self.items * factor, self.users * factor, self.events_per_day * factor, self.peak_rps * factor, self.p99_ms)


class Machine(msgspec.Struct, frozen=True):
    """What is rented: cores, GiB of memory, Gbit/s of network, and its price an hour in any currency."""

    cores: int = 16
    memory_gib: float = 64.0
    network_gbit: float = 10.0
    price_hour: float = 0.7


class Assumed(msgspec.Struct, frozen=True):
    """What was not measured.

    Attributes:
        peak_to_mean: of requests and events over a day. most_busy: share of a worker's time that may be planned for.
        spare: machines of a cell that may be down at its peak. usable: share of memory, network and Redis that may be planned for.
        keep_days: of events in the journal. bundles: kept on each machine. epochs: passes of a training with its refit. train_users: most histories that a training reads.
    """

    peak_to_mean: float = 3.0
    most_busy: float = 0.7
    spare: int = 1
    usable: float = 0.8
    keep_days: float = 365.0
    bundles: int = 3
    epochs: float = 8.0
    train_users: float = 2e7


class Plan(msgspec.Struct, frozen=True):
    """What a need takes.

    Attributes:
        machines, cells, workers: in all, groups of machines, workers on a machine.
        busy: share of a worker's time that is planned for, by p99. shares: by resource, how much of what may be used is used, 1 is all; the largest is the bottleneck.
        memory_gib, network_gbit, disk_gib: of a machine. redis_gbit: of a cell's Redis. train_hours: of a learning on one machine. price_million: of a million answers.
        impossible: why no number of machines does it; empty: it can be done.
    """

    machines: int = 0
    cells: int = 0
    workers: int = 0
    answer_ms: float = 0.0
    busy: float = 0.0
    shares: dict[str, float] = {}
    memory_gib: float = 0.0
    network_gbit: float = 0.0
    disk_gib: float = 0.0
    redis_gbit: float = 0.0
    train_hours: float = 0.0
    price_hour: float = 0.0
    price_million: float = 0.0
    impossible: str = ""

    @property
    def bottleneck(self) -> str:
        """What is used up first."""
        return self.impossible or max(self.shares, key=lambda name: self.shares[name])


def plan(need: Need, machine: Machine | None = None, costs: Costs | None = None, assumed: Assumed | None = None) -> Plan:
    """The fewest machines that do it.

    Raises:
        InputError: a number is not positive.
    """
    machine, costs, assumed = machine or Machine(), costs or Costs.shipped(), assumed or Assumed()
    for name, value in {**msgspec.structs.asdict(need), **msgspec.structs.asdict(machine)}.items():
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}; expected a number above 0.")
    answer = costs.answer_ms.at(need.items)
    busy = busy_share(answer, need.p99_ms, assumed.most_busy)
    if busy <= LEAST_BUSY:
        least = answer * math.log(100) / (1 - 2 * LEAST_BUSY)
        return Plan(
            answer_ms=answer,
            impossible=f"an answer takes {answer:.1f} ms of a core, so 99 of 100 can come within {least:.0f} ms at best, not {need.p99_ms:.0f}",
        )
    found, cells, why = None, 1, ""
    while cells <= MOST_CELLS:
        one = _cells(need, machine, costs, assumed, answer, busy, cells)
        if not one.impossible and (found is None or one.machines < found.machines):
            found = one
        why = one.impossible
        cells *= 2
    return found or Plan(answer_ms=answer, busy=busy, impossible=why)


def busy_share(answer_ms: float, p99_ms: float, most: float) -> float:
    """How busy a worker may be: in a queue of one (M/M/1) 99 of 100 stay at most answer * ln(100) / (1 - busy) (L. Kleinrock, 1975)."""
    return min(most, 1 - answer_ms * math.log(100) / p99_ms)


def _cells(need: Need, machine: Machine, costs: Costs, assumed: Assumed, answer: float, busy: float, cells: int) -> Plan:
    """With so many cells."""
    users, rate = need.users / cells, need.peak_rps / cells
    events = assumed.peak_to_mean * need.events_per_day / 86_400 / cells
    own = costs.worker_gib.at(need.items) + (costs.state_gib.at(users) if users >= 1 else 0.0)
    mapped = costs.bundle_gib.at(need.items) + costs.history_bytes * users / 2**30
    workers = min(machine.cores, int((assumed.usable * machine.memory_gib - mapped) / own))
    if workers < 1:
        return Plan(
            impossible=f"memory: one worker takes {own:,.0f} GiB for {need.items:,.0f} items and {users:,.0f} users besides {mapped:,.0f} GiB of files, of {machine.memory_gib:,.0f} GiB"
        )
    left = busy - events * costs.follow_us / 1e6
    if left <= LEAST_BUSY:
        return Plan(impossible=f"events: {events:,.0f} a second take {events * costs.follow_us / 1e6:.2f} cores of every worker")
    wanted = (rate * answer / 1e3 + events * costs.event_us / 1e6) / left
    each = max(math.ceil(wanted / workers), 1) + assumed.spare
    traffic = 8e-9 * rate / (each - assumed.spare) * costs.answer_bytes
    relayed = 8e-9 * events * costs.relay_bytes * (1 + each)
    shares = {
        "CPU of answers": rate * answer / 1e3 / (busy * workers * (each - assumed.spare)),
        "CPU of following events": events * costs.follow_us / 1e6 / busy,
        "memory": (mapped + workers * own) / (assumed.usable * machine.memory_gib),
        "network": (traffic + relayed / each) / (assumed.usable * machine.network_gbit),
        "Redis": max(events * (1 + each) / costs.relay_rate, relayed / machine.network_gbit) / assumed.usable,
    }
    over = next((name for name in ("network", "Redis") if shares[name] > 1), None)
    if over:
        return Plan(impossible=f"{over}: {shares[over]:.1f} times what one gives")
    trained = min(need.users, assumed.train_users)
    hours = (
        trained / 128 * assumed.epochs * costs.step_ms.at(need.items) / 1e3
        + costs.build_s.at(need.items)
        + need.events_per_day * 30 * costs.import_us / 1e6
    ) / 3_600
    total, disk = (
        cells * each,
        assumed.bundles * mapped + need.events_per_day / cells * assumed.keep_days * costs.journal_bytes / 2**30,
    )
    price = total * machine.price_hour
    return Plan(
        total, cells, workers, answer, busy, shares, mapped + workers * own, traffic + relayed / each, disk, relayed, hours / machine.cores, price,
        price / (3_600 * need.peak_rps / assumed.peak_to_mean) * 1e6,
    )  # fmt: skip


def held_back(costs: Costs, names: Mapping[str, str] | None = None) -> list[tuple[str, float, float, float]]:
    """Each curve with more than two points, made without its largest one: name, that size, what is predicted there, what was measured."""
    found = []
    for name in names or [name for name in Costs.__struct_fields__ if isinstance(getattr(costs, name), Curve)]:
        curve: Curve = getattr(costs, name)
        if len(curve.points) > 2:
            size, value = curve.points[-1]
            found.append((name, size, curve.without_last().at(size), value))
    return found
