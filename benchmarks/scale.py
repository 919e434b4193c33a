"""How cost and memory grow with items, events and users: curves with their exponents, one part at a time; writes benchmarks/scale.md.

    python benchmarks/scale.py [--part index events training state ingest answers] [--sizes 1e4 1e5 1e6] [--work DIR]
    python benchmarks/scale.py --page        the page again, of what is known
    python benchmarks/scale.py --check       the capacity model, made without the largest point of each curve, against that point: within 25 %
    python benchmarks/scale.py --constants   what `tastemaker plan` reckons with, and the tables of docs/scale.md, made of the known points

A finished point is kept in benchmarks/scale.json and not measured again (`--again` does). Every point is a process of its own; its memory is watched from outside. `anonymous` is what
only it can hold; `resident` adds pages of mapped files, which the system takes back when it needs them.

index     unit vectors of 128 numbers around one centre for about 200 of them (cosines of .8), streamed to disk as bytes (int8), built and asked from there: milliseconds, recall@100, memory
events    a log whose popular items change weekly (Zipf), 1 % malformed, through import, cleaning, split, histories and features (benchmarks/data.py)
training  steps of the sequence model over a catalogue of so many items with text vectors, in a mapped file (benchmarks/catalogue_size.py)
state     features and histories of so many users: memory, the cost of folding one event, and of what one request reads
ingest    durable events over HTTP in batches of so many, by one worker and by two (benchmarks/events.py)
answers   a served bundle of so many items, users with 200 events, a ranker over 200 candidates: CPU of an answer, memory of a worker, time of the start
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "scale.json", HERE / "scale.md"
DIM, BLOCK, QUESTIONS = 128, 100_000, 300
SPREAD = 0.5
"""Length of what sets a row apart from its centre, and a question from its row, in lengths of the rows: cosines of .8 among neighbours. With 1.0 (cosines of .5) the closest of ten
million strangers reach .5 as well, so that the best hundred are mostly chance there, and nothing but a look at all rows finds them."""
TOLERANCE = 0.25
SIZES = {
    "index": [1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7],
    "events": [1e5, 3e5, 1e6, 1e7, 1e8],
    "training": [1e4, 1e5, 3e5, 1e6, 1e7],
    "state": [1e3, 1e4, 1e5, 1e6, 1e7],
    "ingest": [1, 10, 100],
    "answers": [1e4, 3e4, 1e5, 3e5, 5e5, 7e5, 1e6],
}
"""Sizes of each part: items, events, items, users, events in a batch, items."""
Point = dict[str, float]


def resident() -> tuple[float, float]:
    """GiB of this process: anonymous, and with mapped pages."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return tuple(int(lines[name].split()[0]) / 2**20 for name in ("RssAnon", "VmRSS"))  # type: ignore[return-value]


def settled() -> float:
    """Anonymous GiB after everything that was freed has been given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()[0]


# ---------------------------------------------------------------- index


def blocks(items: int, seed: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Where a block begins, and unit rows float32 [n, DIM]; the same whenever it is asked."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(items // 200, 64), DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    for begin in range(0, items, BLOCK):
        part = centres[random.integers(0, len(centres), min(BLOCK, items - begin))]
        part += SPREAD / math.sqrt(DIM) * random.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        yield begin, part


def write_bytes(folder: Path, items: int) -> None:
    """The rows as bytes and one scale for each dimension, as a compressed bundle holds them; two passes, a block in memory at a time."""
    longest = np.zeros(DIM, dtype=np.float32)
    for _, part in blocks(items):
        np.maximum(longest, np.abs(part).max(axis=0), out=longest)
    scale = longest / 127
    codes = np.lib.format.open_memmap(folder / "items.int8.npy", mode="w+", dtype=np.int8, shape=(items, DIM))
    for begin, part in blocks(items):
        codes[begin : begin + len(part)] = np.rint(part / scale)
    codes.flush()
    np.save(folder / "items.scale.npy", scale)


def index(items: int, folder: Path) -> Point:
    """Builds in a process and asks in another one."""
    if not (folder / "items.scale.npy").is_file():
        write_bytes(folder, items)
    built = child("index-build", items, folder)
    asked = child("index-ask", items, folder)
    return {f"build_{name}": value for name, value in built.items()} | asked


def index_build(items: int, folder: Path) -> Point:
    """Builds from the file; recall is chosen as a bundle chooses it."""
    from tastemaker.index.build import _truth, build, usual_recall
    from tastemaker.index.coded import load
    from tastemaker.index.exact import DenseIndex
    from tastemaker.schema.settings import IndexSettings

    exact, random = DenseIndex(load(folder, "items")), np.random.default_rng(5)
    asked = exact.rows(np.sort(random.integers(0, items, QUESTIONS)))
    asked += SPREAD / math.sqrt(DIM) * random.standard_normal(asked.shape, dtype=np.float32)
    began, cpu = time.perf_counter(), time.process_time()
    build(exact, folder, "items", IndexSettings(), asked[: QUESTIONS // 2])
    told = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu, "asked": usual_recall(items)}
    np.save(folder / "questions.npy", asked[QUESTIONS // 2 :])  # others than those by which the lists were chosen
    np.save(folder / "truth.npy", np.array(_truth(exact, asked[QUESTIONS // 2 :], 100)))
    (folder / "built.json").write_text("{}")
    return told


def index_ask(items: int, folder: Path) -> Point:
    """As benchmarks/index.py asks."""
    from index import ask

    told = ask(folder)
    bytes_ = sum(path.stat().st_size for path in folder.glob("items.*"))
    return {name: told[name] for name in ("ms", "p99", "recall", "lists", "probes")} | {"disk_gib": bytes_ / 2**30}


# ---------------------------------------------------------------- events, training


def events(rows: int, folder: Path) -> Point:
    """The road of benchmarks/data.py; the journal's bytes are those of the files that it seals."""
    import data

    (folder / "log").mkdir()
    data.write_log(folder / "log", rows, "parquet")
    program = data.OURS.replace(
        "begun = time.perf_counter() - whole",
        "disk = sum(path.stat().st_size for path in (work / 'journal').rglob('*') if path.is_file())\nstaged = sum(path.stat().st_size for path in (work / 'stage').rglob('*') if path.is_file())\nbegun = time.perf_counter() - whole",
    )
    program = program.replace("imported=imported)", "imported=imported, disk=disk, staged=staged)")
    found = data.run(sys.executable, program, folder / "log", folder / "ours")
    assert found is not None
    shutil.rmtree(folder / "log")
    names = ("seconds", "cpu", "imported", "gib", "accepted", "users", "disk", "staged")
    return {name: float(found[name]) for name in names}  # type: ignore[arg-type]


def training(items: int, folder: Path) -> Point:
    """A few steps of benchmarks/catalogue_size.py."""
    import catalogue_size

    catalogue_size.Short = catalogue_size.short_task()
    return catalogue_size.one(items, 8, int(os.environ.get("OMP_NUM_THREADS", "2")))


# ---------------------------------------------------------------- state

EACH = 2
"""Events of a user before anything is measured."""
STATE_ITEMS = 50_000


def state(users: int, folder: Path) -> Point:
    """Default features of so many users, and the histories that a bundle maps; then single events and requests."""
    import polars as pl

    from tastemaker.features.base import FeatureQuery
    from tastemaker.features.feature_set import FeatureSet
    from tastemaker.schema.events import Event
    from tastemaker.schema.settings import Settings

    random = np.random.default_rng(0)
    items = pl.DataFrame(
        {"item_id": [f"i{place}" for place in range(STATE_ITEMS)], "title": [f"Thing {place}" for place in range(STATE_ITEMS)]}
    )
    features = FeatureSet.declared(Settings().features.use, items, random.standard_normal((STATE_ITEMS, 8)).astype(np.float32))
    before, cpu = settled(), time.process_time()
    known = features.remember(state_log(users, random))
    learned = time.process_time() - cpu
    held = settled() - before
    asked, folds, gives = 300 + min(users, 3_000), [], []
    for place in range(asked):
        user = f"u{int(random.integers(0, users * 1.1))}"  # a tenth of them are new
        event = Event(
            user_id=user,
            item_id=f"i{int(random.integers(STATE_ITEMS))}",
            event_type="view",
            timestamp=1.71e9 + place,
            event_id=f"e{place}",
            value=1.0,
        )
        began = time.process_time_ns()
        features.update(known, event)
        folds.append(time.process_time_ns() - began)
        if place % 10 == 0:
            query = FeatureQuery(
                user, [f"i{number}" for number in random.integers(0, STATE_ITEMS, 200).tolist()], 1.71e9 + place + 0.5
            )
            began = time.process_time_ns()
            features.gives(known, query)
            gives.append(time.process_time_ns() - began)
    return {
        "held_gib": held,
        "bytes_a_user": 2**30 * held / users,
        "learn_cpu": learned,
        "fold_us": float(np.median(folds)) / 1e3,
        "fold_p99_us": float(np.percentile(folds, 99)) / 1e3,
        "read_ms": float(np.median(gives)) / 1e6,
    }


def state_log(users: int, random: np.random.Generator):
    """Events of so many users: Zipf over items, drifting by the week."""
    import polars as pl

    rows = EACH * users
    user = np.concatenate([np.arange(users), random.integers(0, users, rows - users)])
    moment = np.sort(random.random(rows))
    rank = np.minimum(random.zipf(1.2, rows), STATE_ITEMS) - 1
    item = (rank + (moment * 12).astype(np.int64) * 7) % STATE_ITEMS
    kinds = np.array(["view", "cart", "purchase"])[random.choice(3, rows, p=[0.9, 0.07, 0.03])]
    return pl.DataFrame({"number": np.arange(rows), "user": user, "item": item, "event_type": kinds, "timestamp": 1.7e9 + moment * 7e6}).select(
        pl.format("l{}", "number").alias("event_id"), pl.format("u{}", "user").alias("user_id"), pl.format("i{}", "item").alias("item_id"),
        "timestamp", "event_type", pl.lit(1.0).alias("value"),
    )  # fmt: skip


# ---------------------------------------------------------------- answers


def answers(items: int, folder: Path) -> Point:
    """One worker of a served bundle, asked by eight clients on the same cores."""
    from _served_world import USERS, write

    import serving

    child("answers-write", items, folder)
    write(folder / "space", items)
    began = time.perf_counter()
    with serving.serving(folder / "space", "--workers", "1", "--set", "serving.busy_ms=0", "--set", "serving.deadline_ms=0") as (
        port,
        pid,
    ):
        started = time.perf_counter() - began
        users = [f"u{user}" for user in range(USERS)]
        serving.clients(port, users, 8, 2.0)
        cpu, begun = serving.cpu_seconds(pid), time.perf_counter()
        times = serving.clients(port, users, 8, 8.0)
        cpu, took = serving.cpu_seconds(pid) - cpu, time.perf_counter() - begun
        one = serving.clients(port, users, 1, 3.0)
        size = answer_bytes(port)
        anonymous, mapped = memory_of(pid, own=False)
    bundle = sum(path.stat().st_size for path in (folder / "space" / "bundles").rglob("*") if path.is_file())
    return {
        "cpu_ms": 1e3 * cpu / len(times),
        "answers_s": len(times) / took,
        "p50": float(np.median(one)),
        "p99": float(np.percentile(times, 99)),
        "started": started,
        "worker_gib": anonymous,
        "worker_mapped_gib": mapped - anonymous,
        "bundle_gib": bundle / 2**30,
        "answer_bytes": size,
    }


def answer_bytes(port: int) -> float:
    """Bytes of one request and its answer on the wire, heads included, without those of the packets."""
    body = b'{"user_id": "u1", "k": 10}'
    asked = (
        b"POST /v1/recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + body
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(asked)
        found = b""
        while not found.endswith(b"}"):
            found += connection.recv(65_536)
    return float(len(asked) + len(found))


def answers_write(items: int, folder: Path) -> Point:
    from _served_world import write

    write(folder / "space", items)
    return {}


def ingest(batch: int, folder: Path) -> Point:
    """Batches of so many events to one worker and to two: what an event costs, and what each further worker pays to know it; features not counted."""
    import events
    from _served_world import USERS, write

    import serving

    write(folder / "space", 10_000)
    paid, rates = [], []
    for workers in (1, 2):
        with serving.serving(folder / "space", "--workers", str(workers), "--set", "serving.busy_ms=0") as (port, pid):
            sender = events.Sender(
                port, 16, batch, f"w{workers}", [f"u{user}" for user in range(USERS)], [f"i{item}" for item in range(10_000)]
            )
            sender.run(1.0)
            sent, cpu, began = sender.accepted, serving.cpu_seconds(pid), time.perf_counter()
            sender.run(5.0)
            rates.append((sender.accepted - sent) / (time.perf_counter() - began))
            time.sleep(0.5)
            paid.append(1e6 * (serving.cpu_seconds(pid) - cpu) / (sender.accepted - sent))
    return {"cpu_us": paid[0], "follow_us": max(paid[1] - paid[0], 0.0), "events_s": rates[0], "events_s_two": rates[1]}


# ---------------------------------------------------------------- processes and results

POINTS: dict[str, Callable[[int, Path], Point]] = {
    "index": index, "index-build": index_build, "index-ask": index_ask, "events": events, "training": training, "state": state,
    "ingest": ingest, "answers": answers, "answers-write": answers_write,
}  # fmt: skip


def memory_of(parent: int, own: bool = True) -> tuple[float, float]:
    """GiB of a process and all below it, anonymous and resident; without `own` only of those below it."""
    below, found = {parent}, [0.0, 0.0]
    while True:
        more = set()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) not in below:
                try:
                    if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) in below:
                        more.add(int(folder.name))
                except (OSError, IndexError):
                    continue
        if not more:
            break
        below |= more
    for pid in below - (set() if own else {parent}):
        try:
            lines = (Path("/proc") / str(pid) / "status").read_text()
        except OSError:
            continue
        for place, name in enumerate(("RssAnon:", "VmRSS:")):
            if name in lines:
                found[place] += int(lines.partition(name)[2].split()[0]) / 2**20
    return found[0], found[1]


def child(part: str, size: int, folder: Path) -> Point:
    """A point in a process of its own, with its largest memory as it is seen from here."""
    command = [sys.executable, __file__, "--point", part, "--sizes", str(size), "--work", str(folder)]
    most, over = [0.0, 0.0], threading.Event()
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def watch() -> None:
            while not over.wait(0.1):
                now = memory_of(process.pid)
                most[0], most[1] = max(most[0], now[0]), max(most[1], now[1])

        watcher = threading.Thread(target=watch)
        watcher.start()
        text = process.communicate()[0]
        over.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"{part} of {size:,} failed")
    told: Point = json.loads(text.strip().splitlines()[-1])
    return told | {"anonymous_gib": most[0], "resident_gib": most[1], "whole_s": time.perf_counter() - began}


def known() -> dict[str, dict[str, Point]]:
    """All finished points by part and size."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def measure(part: str, size: int, work: Path | None, again: bool) -> Point:
    """A point: the kept one, or a new one, which is kept."""
    kept = known().get(part, {}).get(str(size))
    if kept is not None and not again:
        return kept
    with tempfile.TemporaryDirectory(dir=work) as place:
        load = os.getloadavg()[0]
        found = child(part, size, Path(place)) | {"load": load, "at": time.time()}
    results = known()
    results.setdefault(part, {})[str(size)] = found
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return found


def curve(part: str, name: str, without: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and values of a column, growing; the `without` largest left out."""
    points = sorted((int(size), point[name]) for size, point in known().get(part, {}).items() if name in point)
    points = points[: len(points) - without]
    return np.array([size for size, _ in points], dtype=float), np.array([value for _, value in points], dtype=float)


def exponent(part: str, name: str, least: float = 0.0) -> float:
    """The power of the size with which a column grows, over the sizes from `least` on."""
    sizes, values = curve(part, name)
    sizes, values = sizes[sizes >= least], values[sizes >= least]
    good = values > 0
    return float(np.polyfit(np.log(sizes[good]), np.log(values[good]), 1)[0]) if good.sum() > 1 else math.nan


def machine() -> str:
    """The processor, its cores and the memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {name}, {gib:.0f} GiB"


# ---------------------------------------------------------------- page

COLUMNS: dict[str, list[tuple[str, str, str]]] = {
    "index": [("ms", "ms a search", ".3f"), ("p99", "p99 ms", ".3f"), ("recall", "recall@100", ".4f"), ("build_asked", "asked for", ".2f"), ("probes", "lists read", ",.0f"), ("build_cpu", "build CPU s", ",.1f"), ("build_anonymous_gib", "build anonymous GiB", ".2f"), ("build_resident_gib", "resident", ".2f"), ("disk_gib", "disk GiB", ".3f"), ("peak_gib", "asked: resident GiB", ".2f")],
    "events": [("seconds", "s", ",.1f"), ("cpu", "CPU s", ",.1f"), ("imported", "of it import s", ",.1f"), ("gib", "peak GiB", ".2f"), ("disk", "journal bytes", ",.0f"), ("staged", "stage bytes", ",.0f")],
    "training": [("seconds", "s a step", ".2f"), ("peak_gib", "peak GiB", ".2f"), ("before_gib", "before the model", ".2f"), ("anonymous_gib", "anonymous GiB", ".2f")],
    "state": [("fold_us", "an event µs", ".1f"), ("fold_p99_us", "p99 µs", ".1f"), ("read_ms", "200 items ms", ".2f"), ("held_gib", "held GiB", ".3f"), ("bytes_a_user", "bytes a user", ",.0f"), ("learn_cpu", "made in CPU s", ",.1f"), ("anonymous_gib", "peak anonymous GiB", ".2f")],
    "ingest": [("cpu_us", "CPU µs an event", ",.0f"), ("follow_us", "in each further worker", ",.0f"), ("events_s", "events/s, one worker", ",.0f"), ("events_s_two", "two", ",.0f")],
    "answers": [("cpu_ms", "CPU ms an answer", ".2f"), ("p50", "one client p50 ms", ".2f"), ("worker_gib", "a worker anonymous GiB", ".2f"), ("worker_mapped_gib", "mapped", ".2f"), ("bundle_gib", "bundle GiB", ".2f"), ("started", "start s", ".1f")],
}  # fmt: skip
"""Name, heading and form of the columns of each part; each gets its exponent."""
UNITS = {"index": "items", "events": "events", "training": "items", "state": "users", "ingest": "a batch", "answers": "items"}
LIMITS = {
    "index": "Asked for: recall .95 in 1 ms at 1 M, .90 in 5 ms and 2 GiB at 10 M; building 10 M within 4 GiB.",
    "events": "Asked for: 100 M within 4 GiB.",
    "training": "Asked for: bounded memory at 1 M and 10 M.",
    "state": "Asked for: the cost of an event does not grow with the users (exponent near 0).",
    "ingest": "",
    "answers": "",
}


def page() -> str:
    """The page of everything that is known."""
    text = ["# Growth", "", "Made by `python benchmarks/scale.py`; what is measured is told at the top of that file. The last line of a table is the exponent e of size^e, fitted over all sizes",
            "(straight lines in logarithms), and over the sizes from 100,000 on. Times were taken on a machine that was shared with other work: CPU seconds tell more than wall clock.", "", f"{machine()}.", ""]  # fmt: skip
    for part, columns in COLUMNS.items():
        points = sorted((int(size), point) for size, point in known().get(part, {}).items())
        if not points:
            continue
        text += [f"## {part}", *([LIMITS[part]] if LIMITS[part] else []), "", f"| {UNITS[part]} | " + " | ".join(heading for _, heading, _ in columns) + " | load |", "|---:|" + "---:|" * (len(columns) + 1)]  # fmt: skip
        text += [f"| {size:,} | " + " | ".join(format(point[name], form) if name in point else "" for name, _, form in columns) + f" | {point['load']:.0f} |" for size, point in points]  # fmt: skip
        for words, least in (("exponent", 0.0), ("from 100,000", 1e5)):
            powers = [exponent(part, name, least) for name, _, _ in columns]
            text.append(f"| {words} | " + " | ".join("" if math.isnan(power) else f"{power:.2f}" for power in powers) + " | |")
        text.append("")
    return "\n".join(text)


# ---------------------------------------------------------------- the capacity model

CURVES = {
    "answer_ms": ("power", "answers", "cpu_ms"),
    "worker_gib": ("affine", "answers", "worker_gib"),
    "bundle_gib": ("affine", "answers", "bundle_gib"),
    "state_gib": ("affine", "state", "held_gib"),
    "step_ms": ("power", "training", "seconds"),
    "build_s": ("power", "index", "build_cpu"),
}
"""Kind, part and column of each curve of the model."""
RELAY_BYTES, RELAY_RATE = 300.0, 31_000.0
"""Bytes of an event on its way through Redis, and events a second that one carries end to end: 31,000 to 42,000 where it was tried, events and state of 200 events a user."""


@cache
def costs():
    """What `tastemaker plan` reckons with, of the known points."""
    from tastemaker.evaluation.capacity import Costs, Curve

    curves = {}
    for name, (kind, part, column) in CURVES.items():
        sizes, values = curve(part, column)
        if name == "step_ms":  # below, the full softmax
            sizes, values = sizes[sizes > 1e5], 1e3 * values[sizes > 1e5]
        if name in ("build_s", "answer_ms"):  # below, no index is built and every answer reads all items
            sizes, values = sizes[sizes > 5e4], values[sizes > 5e4]
        if (
            name == "build_s"
        ):  # beyond, less recall is asked for (`index.recall`), and building costs less than a curve from below foretells
            sizes, values = sizes[sizes <= 5e6], values[sizes <= 5e6]
        curves[name] = Curve(kind, [(float(size), float(f"{value:.4g}")) for size, value in zip(sizes, values, strict=True)])
    fold = float(np.median(curve("state", "fold_us")[1]))
    sizes, cpu = curve("events", "cpu")
    _, disk = curve("events", "disk")
    batch = known()["ingest"]["10"]
    from tastemaker.cli.plan import speed

    return Costs(
        machine=machine(), measured=time.strftime("%Y-%m-%d"), answer_bytes=float(np.median(curve("answers", "answer_bytes")[1])), history_bytes=200 * 12 + 40,
        event_us=round(batch["cpu_us"], 1), follow_us=round(batch["follow_us"] + fold, 1), relay_bytes=RELAY_BYTES, relay_rate=RELAY_RATE,
        journal_bytes=round(float(disk[-1] / sizes[-1]), 1), import_us=round(1e6 * float(cpu[-1] / sizes[-1]), 2), speed={name: float(f"{value:.4g}") for name, value in speed().items()}, **curves,
    )  # fmt: skip


def write_constants() -> None:
    """The file that the package ships."""
    import msgspec

    from tastemaker.evaluation.capacity import COSTS

    COSTS.write_bytes(msgspec.json.format(msgspec.json.encode(costs()), indent=1) + b"\n")


def check() -> tuple[str, bool]:
    """Each held-back point beside what the model says of it without it; whether all are within the tolerance."""
    from tastemaker.evaluation.capacity import held_back

    good, lines = True, ["| cost | held-back size | predicted | measured | off | |", "|---|---:|---:|---:|---:|---|"]
    for name, size, told, found in held_back(costs()):
        off = told / found - 1
        good &= abs(off) <= TOLERANCE
        words = "ok" if abs(off) <= TOLERANCE else f"more than {TOLERANCE:.0%}"
        lines.append(f"| {name} | {size:,.0f} | {told:.4g} | {found:.4g} | {off:+.0%} | {words} |")
    return "\n".join(lines), good


LOADS = {
    "a shop": ((5e4, 2e5, 2e6, 200), (16, 64, 10, 0.7)),
    "a large shop": ((1e6, 1e7, 5e7, 5e3), (16, 64, 10, 0.7)),
    "the internet": ((1e8, 1e9, 1e10, 1e6), (64, 2_048, 50, 12.0)),
}
"""Items, users, events a day, requests a second; cores, GiB, Gbit/s, price an hour."""


def plans() -> str:
    """What the model says of three loads, and of a hundred times as much."""
    from tastemaker.evaluation.capacity import Machine, Need, plan

    lines = ["| | items, users, events a day, requests/s | a machine | machines | cells | workers each | a million answers | bottleneck | at 100 times |", "|---|---|---|---:|---:|---:|---:|---|---|"]  # fmt: skip
    for name, (load, rented) in LOADS.items():
        need, machine = Need(*load), Machine(*rented)
        now, later = plan(need, machine, costs()), plan(need.times(100), machine, costs())
        told = f"{now.machines:,} | {now.cells:,} | {now.workers} | {now.price_million:.3f} | {now.bottleneck} {now.shares[now.bottleneck]:.0%}" if not now.impossible else f"– | – | – | – | {now.impossible}"  # fmt: skip
        after = (
            later.impossible
            or f"{later.machines:,} machines in {later.cells:,} cells; {later.bottleneck} {later.shares[later.bottleneck]:.0%}"
        )
        lines.append(
            f"| {name} | {', '.join(f'{one:.0e}'.replace('e+0', 'e') for one in load)} | {rented[0]} cores, {rented[1]:,} GiB, {rented[3]} an hour | {told} | {after} |"
        )
    return "\n".join(lines)


def write_docs() -> None:
    """The two tables of docs/scale.md."""
    path = HERE.parent / "docs" / "scale.md"
    text = path.read_text()
    for name, made in (("plans", plans()), ("check", check()[0])):
        begin = text.index(f"<!-- {name} -->") + len(f"<!-- {name} -->")
        text = text[:begin] + f"\n{made}\n" + text[text.index("<!-- end -->", begin) :]
    path.write_text(text)


def main() -> None:
    """Measures what is missing, writes the page and prints it."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--part", nargs="+", choices=list(SIZES), default=list(SIZES))
    reader.add_argument("--sizes", nargs="+", type=float)
    reader.add_argument("--work", type=Path, help="folder for temporary files")
    reader.add_argument("--again", action="store_true")
    for name in ("page", "check", "constants"):
        reader.add_argument(f"--{name}", action="store_true")
    reader.add_argument("--point", choices=list(POINTS), help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.point:
        told = POINTS[asked.point](int(asked.sizes[0]), asked.work)
        told["peak_gib"] = told.get("peak_gib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        print(json.dumps(told))
        return
    if not (asked.page or asked.check or asked.constants):
        for part in asked.part:
            for size in asked.sizes or [one for one in SIZES[part] if one <= 1e6]:
                found = measure(part, int(size), asked.work, asked.again)
                print(part, f"{int(size):,}", {name: round(value, 4) for name, value in found.items()}, flush=True)
    PAGE.write_text(page())
    if asked.page:
        print(page())
    if asked.constants:
        write_constants()
        write_docs()
    if asked.check:
        text, good = check()
        print(text)
        if not good:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
