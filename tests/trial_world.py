"""People before a real service while a bundle is on trial, and bundles that look good offline and are bad in their hands."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from live_service import JSON, Service
from tastemaker.bundle.registry import Registry
from toy_bundle import KINDS, USER_TOWER, fusion, graph, write_workspace

USERS, SHORT = 60, 6
"""Users of the bundle, whose histories have 8 events; what is short for a planted fault."""
VISITORS = itertools.count()
"""Visitors ask ten times and do not come back, so that histories stay short however fast the machine is."""
KNOWN_BAD = range(30, 60)


class Crowd:
    """Clients that ask for lists and click what they like, in threads.

    Attributes:
        failures: what was not answered with 200. answers: (user, model version, variant, request id) of each list.
    """

    def __init__(self, service: Service, threads: int = 3) -> None:
        self.failures: list[str] = []
        self.answers: list[tuple[str, str, str, str]] = []
        self._port, self._over = service.port, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        while not self._over.is_set():
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=30
            )  # a new one now and then: any worker may answer
            visitor = next(VISITORS)
            try:
                for _ in range(10):
                    self._visit(connection, random, visitor)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            finally:
                connection.close()

    def _visit(self, connection: http.client.HTTPConnection, random: np.random.Generator, visitor: int) -> None:
        known = random.random() < 0.3
        number = int(random.integers(USERS)) if known else visitor
        user = f"{'u' if known else 'v'}{number}"
        told = self._ask(connection, "/v1/recommend", {"user_id": user, "k": 10})
        if told is None:
            return
        self.answers.append((user, told["model_version"], told.get("variant", "live"), told["request_id"]))
        kind = list(KINDS)[number % 3]
        liked = next((one["item_id"] for one in told["items"][:5] if one["item_id"].startswith(kind)), None)
        if liked is not None and random.random() < 0.6 and not known:
            event = {"user_id": user, "item_id": liked, "request_id": told["request_id"]}
            self._ask(connection, "/v1/events", {"events": [event]})

    def _ask(self, connection: http.client.HTTPConnection, path: str, body: Any) -> Any:
        connection.request("POST", path, json.dumps(body), JSON)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            self.failures.append(f"{answer.status} {text[:200]!r}")
            return None
        return json.loads(text)


def by_sequence(folder: Path) -> None:
    """Lists are ordered by the user tower."""
    old = fusion()
    linear = np.zeros_like(old.linear)
    linear[1], linear[21] = 1.0, 0.01
    (folder / "fusion.json").write_bytes(msgspec.json.encode(replace(old, linear=linear).to_dict()))


def write_world(folder: Path, release: str = "") -> str:
    """A workspace whose gates ask for histories of the bundle, which are longer than a visitor's; gives the live version."""
    version = write_workspace(folder, users=USERS, besides=by_sequence)
    (folder / "tastemaker.toml").write_text(
        "[release]\nleast = 1000000\nmirror = 1.0\nmirror_busy = 1.0\nstep_lists = 150\nstep_seconds = 0.5\nslower = 3.0\nslower_tail = 5.0\n"
        f"overlap = 0.1\n{release}"
    )
    return version


def tower(change: str, constants: dict[str, Any]) -> Callable[[Path], None]:
    """A user tower that is another one for short histories: `change` makes `vector` of `right` and `short` (0 or 1, float [b, 1])."""
    known = {
        "zero": np.array(0),
        "one": np.array(1),
        "last": np.array([-1]),
        "middle": np.array([1]),
        "six": np.array(SHORT),
        "flat": np.array([1]),
    }
    body = USER_TOWER.replace("    vector = LpNormalization", "    right = LpNormalization").rstrip().removesuffix("}")
    text = f"{body}    less = Less (ends, six)\n    short = Cast <to = 1> (less)\n{change}}}"

    def spoil(folder: Path) -> None:
        onnx.save(graph(text, {**known, **constants}), folder / "user_tower" / "model.onnx")

    return spoil


loses_clicks = tower(
    "    twice = Mul (short, two)\n    sign = Sub (onef, twice)\n    vector = Mul (right, sign)\n",
    {"two": np.array(2, np.float32), "onef": np.array(1, np.float32)},
)
"""Visitors are shown what they like least."""
slow = tower(
    "    some = ReduceMax <keepdims = 0> (short)\n    many = Mul (some, size)\n    count = Cast <to = 7> (many)\n    length_of = Reshape (count, flat)\n"
    "    nothing = ConstantOfShape (length_of)\n    work = Sin (nothing)\n    burned = ReduceSum <keepdims = 0> (work)\n    vector = Add (right, burned)\n",
    {"size": np.array(6_000_000, np.float32)},
)
"""Visitors wait ten times as long."""
lacks = tower(
    "    place = Cast <to = 7> (short)\n    far = Mul (place, wide_of)\n    row = Gather (oneline, far)\n    gone = ReduceSum <keepdims = 0> (row)\n"
    "    vector = Add (right, gone)\n",
    {"wide_of": np.array(1_000), "oneline": np.zeros(1, np.float32)},
)
"""The user tower fails for visitors, so that their lists lack it."""


def raises(folder: Path) -> None:
    """Histories of some users name items that there are not."""
    offsets, items = np.load(folder / "users" / "offsets.npy"), np.load(folder / "users" / "items.npy")
    for user in KNOWN_BAD:
        items[offsets[user] : offsets[user + 1]] = 1_000_000
    np.save(folder / "users" / "items.npy", items)


def until(condition: Callable[[], bool], seconds: float, words: Callable[[], str] = lambda: "") -> float:
    """Waits; gives the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, words()
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def asked(service: Service, threads: int = 3) -> Iterator[Crowd]:
    """The crowd, of whom nobody may have been let down."""
    with Crowd(service, threads) as crowd:
        yield crowd
    assert not crowd.failures, crowd.failures[:5]


def stage_of(space: Path) -> str:
    """`none`, `shadow` or `canary SHARE`."""
    rollout = Registry(space / "bundles").stages().rollout
    return "none" if rollout is None else rollout.stage if rollout.stage == "shadow" else f"canary {rollout.share:g}"
