"""Live state: what the journal says is what the next answer knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tastemaker.journal.append import Journal
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.serving.wire import Live, open_live
from toy_bundle import write_workspace


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    write_workspace(tmp_path)
    return Journal.open(tmp_path / "journal")


def _live(journal: Journal) -> Live:
    return open_live(journal.path.parent / "bundles", journal)


def test_events_lengthen_histories_in_order(journal: Journal) -> None:
    live = _live(journal)
    before = live.state.history("u0")
    journal.append([Event(user_id="u0", item_id="coffee-1"), Event(user_id="u0", item_id="guitar-1")])
    live.poll()
    after = live.state.history("u0")
    assert after[: len(before)].tolist() == before.tolist()
    assert [live.state.rows[place]["item_id"] for place in after[-2:]] == ["coffee-1", "guitar-1"]
    assert not live.state.known_user("nobody")
    assert _live(journal).state.history("u0").tolist() == after.tolist(), "a restart knows the same"


def test_an_event_of_an_unknown_item_waits_for_the_item(journal: Journal) -> None:
    live = _live(journal)
    journal.append([Event(user_id="x", item_id="later")])
    live.poll()
    place = live.state.index_of["later"]
    assert live.state.barred[place]
    journal.put_items([Item(item_id="later", title="hiking boots")])
    live.poll()
    assert not live.state.barred[place]
    assert live.state.history("x").tolist() == [place]
    assert np.isclose(np.linalg.norm(live.channels.text.rows(np.array([place]))), 1, atol=1e-5)


def test_another_workers_vector_is_taken_only_if_the_encoder_is_the_same(journal: Journal) -> None:
    live = _live(journal)
    mark = np.zeros(live.brain.text.width, np.float32)
    mark[3] = 1
    item = Item(item_id="a", title="hiking boots")
    journal.put_items([item], [mark.tobytes()], live.reader.version)
    journal.put_items([Item(item_id="b", title="hiking boots")], [mark.tobytes()], "another encoder")
    live.poll()
    rows = live.channels.text.rows(np.array([live.state.index_of["a"], live.state.index_of["b"]]))
    assert np.allclose(rows[0], mark)
    assert not np.allclose(rows[1], mark)


def test_a_changed_text_changes_the_vectors_and_a_deleted_item_can_return(journal: Journal) -> None:
    live = _live(journal)
    place = live.state.index_of["boots-3"]
    old = live.channels.text.rows(np.array([place]))
    journal.put_items([Item(item_id="boots-3", title="espresso machine")])
    live.poll()
    assert not np.allclose(old, live.channels.text.rows(np.array([place])))
    assert place in live.search("espresso", 60)[0]
    journal.delete_items(["boots-3"])
    live.poll()
    assert live.state.barred[place]
    assert place not in live.search("espresso", 60)[0]
    journal.put_items([Item(item_id="boots-3", title="espresso machine")])
    live.poll()
    assert live.state.index_of["boots-3"] == place
    assert place in live.search("espresso", 60)[0]


def test_ten_thousand_new_items_are_folded_and_an_idle_poll_changes_nothing(journal: Journal) -> None:
    live = _live(journal)
    width = live.brain.text.width
    rows = np.random.default_rng(0).normal(size=(10_000, width)).astype(np.float32)
    new = [Item(item_id=f"n{number}", title=f"thing {number}") for number in range(10_000)]
    journal.put_items(new, [row.tobytes() for row in rows], live.reader.version)
    live.poll()
    assert live.channels.n_items == 60 + 10_000
    for _ in range(1_000):
        live.poll()
    assert live.channels.n_items == 60 + 10_000
