"""Carries what one journal learned to the others and back, in a thread beside the answers: no request ever waits for the link.

Each machine writes three streams, its own events, its own writes of items, and of users and edges, in messages that say after which number they begin. A reader that finds a
message beginning later than what it has asks the writer, who leaves what is missing from its journal, however old: the link may forget everything
(a killed or emptied Redis) and nothing is lost, as the journals are the truth and the link only carries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tastemaker.journal.append import Journal
from tastemaker.journal.stores import sole
from tastemaker.schema.errors import JournalError
from tastemaker.streaming.link import Entry, Link, Pulse, Unreachable

BATCH, ITEMS = 500, 100
"""Events and items in one message."""
FILL = 4
"""How many messages' worth is left at once for a reader that has missed some."""
WINDOW = 20_000
"""Own events that a link is filled with when it has forgotten everything; who lacks more asks for it."""
WAIT, LOOK = 0.01, 0.25
"""Seconds for which new messages are waited for, and between looks at who is there and what is missing."""
KINDS = ("log", "items", "facts")
"""The streams, in the order of `Peers.heard`."""

Count = Callable[[int, int], None]


class Relay:
    """One at a time for each journal, whichever worker comes first; the others stand by.

    Args:
        journal: opened for this alone. link: made in the thread. pulse: told that the link works. count: takes how many rows were sent and received.
    """

    def __init__(self, journal: Journal, link: Link, pulse: Pulse, count: Count = lambda sent, received: None) -> None:
        self._journal, self._link, self._pulse, self._count = journal, link, pulse, count
        self._peers, self._stop = journal.peers(), threading.Event()
        self._sent: dict[str, int] = {}
        self._after: dict[str, int] = {}
        self._looked: dict[str, int] = {}
        self._others: list[str] = []
        self._next_look = 0.0
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> Relay:
        """Begins."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends, after the call under way."""
        self._stop.set()
        if self._thread.ident is None:  # it was asked for turns alone
            self._link.close()
            self._journal.close()
        elif self._thread.is_alive():
            self._thread.join(1)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with sole(self._journal.path / "relay.lock", "another worker relays"):
                    self._relay()
            except JournalError:
                self._stop.wait(0.5)
        self._link.close()
        self._journal.close()

    def _relay(self) -> None:
        while not self._stop.is_set():
            try:
                self.turn()
            except Unreachable:
                self._sent.clear()  # whatever was sent last may have been lost: look anew
                self._stop.wait(0.05)
            except JournalError:  # a full disk here: nothing received counts as heard
                self._stop.wait(0.5)

    def turn(self) -> None:
        """Sends what is new here, takes what is new there, and now and then looks after gaps.

        Raises:
            Unreachable: the link does not work.
        """
        if time.monotonic() >= self._next_look or not self._sent:
            self._look()
        for kind in KINDS:
            self._send(kind)
        self._take()
        self._pulse.beat()

    def _look(self) -> None:
        """Who is there, how far the own streams are, and who misses what."""
        self._link.name("nodes", self._peers.name, str(int(time.time())))
        self._others = [name for name in self._link.names("nodes") if name != self._peers.name]
        for kind in KINDS:
            there = self._link.last(f"{kind}:{self._peers.name}")
            if self._sent.get(kind) != there:  # begun, emptied, or an answer was a lie
                self._sent[kind] = there
                self._after[kind] = self._looked[kind] = there or max(self._peers.marks()[KINDS.index(kind)] - WINDOW, 0)
            want = f"want:{kind}:{self._peers.name}"
            for reader, number in self._link.names(want).items():
                self._link.leave(f"fill:{kind}:{self._peers.name}:{reader}", self._own(kind, int(number), FILL), 60)
                self._link.unname(want, reader)
        self._next_look = time.monotonic() + LOOK

    def _own(self, kind: str, after: int, size: int = 1) -> Entry:
        if kind == "log":
            upto, events = self._peers.own_events(after, BATCH * size)
            return Entry(self._peers.name, after, upto, events=events)
        if kind == "facts":
            upto, facts = self._peers.own_facts(after, BATCH * size)
            return Entry(self._peers.name, after, upto, facts=facts)
        upto, changes = self._peers.own_changes(after, ITEMS * size)
        return Entry(self._peers.name, after, upto, changes=changes)

    def _send(self, kind: str) -> None:
        mark = self._peers.marks()[KINDS.index(kind)]
        while self._looked[kind] < mark and not self._stop.is_set():
            entry = self._own(kind, self._looked[kind])
            if rows := entry.rows:
                self._link.put(f"{kind}:{self._peers.name}", msgspec.structs.replace(entry, after=self._after[kind]))
                self._sent[kind] = self._after[kind] = entry.upto
                self._count(rows, 0)
            self._looked[kind] = entry.upto

    def _take(self) -> None:
        if not self._others:
            self._stop.wait(WAIT)
            return
        heard = {node: dict(zip(KINDS, self._peers.heard(node), strict=True)) for node in self._others}
        after = {f"{kind}:{node}": heard[node][kind] for node in self._others for kind in KINDS}
        gaps: set[tuple[str, str]] = set()
        for stream, entry in self._link.read(after, WAIT):
            kind, _, node = stream.partition(":")
            if entry.node != node or node not in heard or (kind, node) in gaps:
                continue
            if entry.after > heard[node][kind]:
                gaps.add((kind, node))
            elif entry.upto > heard[node][kind]:
                self._keep(kind, entry)
                heard[node][kind] = entry.upto
        for kind, node in gaps:
            self._ask(kind, node, heard[node][kind])

    def _ask(self, kind: str, node: str, after: int) -> None:
        """Takes what a writer has left for this reader, and says what is missing still."""
        place, want = f"fill:{kind}:{node}:{self._peers.name}", f"want:{kind}:{node}"
        entry = self._link.fetch(place)
        if entry is not None and entry.node == node and entry.after <= after < entry.upto:
            self._keep(kind, entry)
            after = entry.upto
        self._link.name(want, self._peers.name, str(after))
        self._stop.wait(WAIT)

    def _keep(self, kind: str, entry: Entry) -> None:
        if kind == "log":
            new = self._peers.receive_events(entry.node, entry.upto, entry.events)
        elif kind == "facts":
            new = self._peers.receive_facts(entry.node, entry.upto, entry.facts)
        else:
            new = self._peers.receive_changes(entry.node, entry.upto, entry.changes)
        self._count(0, new)


def link_of(url: str) -> Link:
    """The link of an address: `redis://…` (also `rediss`, `unix`) or `kafka://…`. Whether somebody is there is told by its calls.

    Raises:
        InputError: the address can't be read. ModuleNotFoundError: the extra `redis` or `kafka` is not installed.
    """
    if url.startswith("kafka:"):
        from tastemaker.streaming._kafka import KafkaLink

        return KafkaLink(url)
    from tastemaker.streaming._redis import RedisLink

    return RedisLink(url)


def relay_of(url: str, journal: Path, pulse: Pulse, count: Count) -> Relay:
    """A relay over the link of an address. Raises as `link_of`."""
    return Relay(Journal.open(journal), link_of(url), pulse, count)
