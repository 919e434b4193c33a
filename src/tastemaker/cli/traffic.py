"""People who visit the demo's service while somebody looks at its console: made up, with tastes of their own, by the simulator of `evaluation.replay`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tastemaker.cli.workspace import Workspace
from tastemaker.schema.errors import TastemakerError

if TYPE_CHECKING:
    from tastemaker.evaluation.replay import Crowd
    from tastemaker.schema.events import Event

VISITORS, RATE, STEP = 40, 1.5, 1.0
"""How many people, lists a second over a day's mean, and seconds between two looks at who comes."""
Call = Callable[[str, Any], dict[str, Any]]
"""One call with JSON in and out: path and body."""


@contextmanager
def visited(workspace: Workspace, call: Call) -> Iterator[None]:
    """People come and go until the block ends; a service that does not answer is left alone for a moment."""
    crowd, over = visitors(workspace, call), threading.Event()

    def come() -> None:
        while not over.wait(STEP):
            with suppress(TastemakerError, OSError):
                crowd.step(time.time(), STEP)

    thread = threading.Thread(target=come, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


def visitors(workspace: Workspace, call: Call) -> Crowd:
    """Strangers who each like two or three categories of the catalogue."""
    import numpy as np

    from tastemaker.evaluation.replay import Crowd, Tastes
    from tastemaker.journal.append import Journal

    journal = Journal.open(workspace.journal)
    try:
        rows = journal.items().select("item_id", "categories").rows()
    finally:
        journal.close()
    kinds = sorted({kind for _, of in rows for kind in of or ()}) or [""]
    traits = np.zeros((len(rows), len(kinds)))
    for place, (_, of) in enumerate(rows):
        for kind in of or ():
            traits[place, kinds.index(kind)] = 1.0
    likes = np.random.default_rng(0).dirichlet(np.full(len(kinds), 0.15), VISITORS)
    people = {f"visitor-{number + 1}": number for number in range(VISITORS)}
    tastes = Tastes(people, {item: place for place, (item, _) in enumerate(rows)}, likes, traits)

    def ask(user: str, k: int) -> tuple[str, Sequence[str]]:
        answer = call("/v1/recommend", {"user_id": user, "k": k})
        return answer["request_id"], [one["item_id"] for one in answer["items"]]

    def tell(events: Sequence[Event]) -> None:
        told = [{name: value for name, value in _fields(event).items() if value not in (None, "")} for event in events]
        call("/v1/events", {"events": told})

    return Crowd(tastes, ask, tell, RATE)


def _fields(event: Event) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.structs.asdict(event))
