"""What a service has folded event by event is what the journal gives when it is counted anew, and what training counts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import EVENTS, IDS, features, table

from tastemaker.features.state import State
from tastemaker.journal.append import Journal
from tastemaker.schema.events import Event
from tastemaker.streaming.features import LiveFeatures

MADE = features()
USERS = ["u", "v", "用户", "nobody"]
ASKED = [*IDS, "unlisted"]


def law(events: list[Event], cut: int, folder: Path) -> list[str]:
    """Columns that differ between a state folded in pieces, after a restart, and the journal counted at once."""
    journal = Journal.open(folder / "journal")
    journal.append_batches([events[:cut], events[cut:], events[:cut]])  # the last again: as a client that did not hear the answer
    learned = MADE.remember(table(events[:cut]))  # what training has seen
    MADE.save(learned, folder / "features")
    live = LiveFeatures.open(folder / "features")
    for stored in journal.tail(len(events[:cut])):
        live.fold_event(stored.event)
    rebuilt, batch = live.rebuilt(journal.read()), LiveFeatures(MADE, MADE.remember(journal.read()))
    journal.close()
    now = 9 * 86_400.0
    return live.differing(rebuilt, USERS, ASKED, now) + live.differing(batch, USERS, ASKED, now)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, share=st.floats(0, 1))
def test_law_rebuilt_is_folded_is_counted(events: list[Event], share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert law(events, int(share * len(events)), Path(folder)) == []


def test_an_event_that_is_folded_twice_or_left_out_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [Event(event_id=f"e{n}", user_id="u", item_id=IDS[n % 3], event_type="view", timestamp=86_400.0 + n) for n in range(9)]
    assert law(events, 4, tmp_path / "right") == []
    plain = State.update

    def twice(state: State, rows: object, event_id: str, item_id: str) -> None:
        for _ in range(2 if event_id == "e6" else 1):
            plain(state, rows, event_id, item_id)  # type: ignore[arg-type]

    monkeypatch.setattr(State, "update", twice)
    assert "item_events" in law(events, 4, tmp_path / "twice")
    monkeypatch.setattr(State, "update", lambda state, rows, event_id, item_id: None)
    assert "item_events" in law(events, 4, tmp_path / "never")
