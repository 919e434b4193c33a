"""Durable, idempotent, in order, for several processes at once."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.journal.append import LOOK_SECONDS, Journal
from tastemaker.schema.errors import InputError, JournalError
from tastemaker.schema.events import AppendResult, Event
from tastemaker.schema.items import Item, User


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "journal")


def event(name: str, user: str = "u", item: str = "i") -> Event:
    return Event(user_id=user, item_id=item, event_id=name, timestamp=1.5)


def test_append_is_idempotent_and_ordered(journal: Journal) -> None:
    assert journal.append([event("a"), event("b"), event("a")]) == AppendResult(2, 1)
    assert journal.append([event("b"), event("c")]) == AppendResult(1, 1)
    assert [(row.seq, row.event.event_id) for row in journal.tail(0)] == [(1, "a"), (2, "b"), (3, "c")]
    assert journal.position() == 3
    assert journal.tail(3) == []
    assert [row.event.event_id for row in journal.tail(1, limit=1)] == ["b"]


def test_events_without_id_are_all_kept(journal: Journal) -> None:
    assert journal.append([event(""), event("")]) == AppendResult(2, 0)


def test_batches_share_a_transaction_and_know_their_own_counts(journal: Journal) -> None:
    assert journal.append_batches([[event("a")], [event("a"), event("b")], []]) == [
        AppendResult(1, 0),
        AppendResult(1, 1),
        AppendResult(0, 0),
    ]


def test_columns_keep_everything(journal: Journal) -> None:
    full = Event(
        user_id="u", item_id="i", event_type="click", timestamp=2.0, value=0.5, event_id="x", request_id="r", session_id="s",
        position=3, propensity=0.25, context={"device": "phone"},
    )  # fmt: skip
    journal.append([full, event("plain")])
    table = journal.read()
    assert table.row(0, named=True) | {"seq": 0} == {
        "seq": 0, "event_id": "x", "user_id": "u", "item_id": "i", "timestamp": 2.0, "event_type": "click", "value": 0.5,
        "request_id": "r", "session_id": "s", "position": 3, "propensity": 0.25, "context": '{"device":"phone"}',
    }  # fmt: skip
    assert table["event_type"].to_list() == ["click", "event"]
    assert journal.tail(0)[0].event == full


def test_half_a_surrogate_is_refused_and_nothing_kept(journal: Journal) -> None:
    with pytest.raises(InputError, match="surrogate"):
        journal.append([event("good"), event("bad", user="\ud800")])
    assert journal.position() == 0


def test_imported_segments_and_live_rows_are_one_sequence(journal: Journal, tmp_path: Path) -> None:
    journal.append([event("live-1")])
    part = tmp_path / "part.parquet"
    columns = {
        "event_id": ["s1", "s2"],
        "user_id": ["u", "v"],
        "item_id": ["i", "j"],
        "timestamp": [1.0, None],
        "event_type": ["e", "e"],
    }
    rest = {
        "value": pl.Float64,
        "request_id": pl.String,
        "session_id": pl.String,
        "position": pl.Int64,
        "propensity": pl.Float64,
        "context": pl.String,
    }
    pl.DataFrame(columns).with_columns(pl.lit(None, dtype=kind).alias(name) for name, kind in rest.items()).write_parquet(part)
    journal.commit_import("events", [("sha", "file.csv")], [part], [2])
    journal.append([event("live-2")])
    assert journal.read()["event_id"].to_list() == ["live-1", "s1", "s2", "live-2"]
    assert [row.event.event_id for row in journal.tail(1)] == ["s1", "s2", "live-2"]
    assert journal.read(after=3)["event_id"].to_list() == ["live-2"]
    assert journal.imported("sha")
    assert not journal.imported("other")


def test_another_process_sees_what_was_appended(journal: Journal, tmp_path: Path) -> None:
    other = Journal.open(tmp_path / "journal")
    journal.append([event("a")])
    assert other.marks() == (1, 0)
    assert other.append([event("a"), event("b")]) == AppendResult(1, 1)
    assert [row.event.event_id for row in journal.tail(0)] == ["a", "b"]


def test_marks_ask_the_database_only_when_something_changed(journal: Journal, tmp_path: Path) -> None:
    other, asked = Journal.open(tmp_path / "journal"), list[str]()
    for number in range(30):
        journal.append([event(f"e{number}")])
        assert other.marks() == (number + 1, 0)
    other._database.set_trace_callback(asked.append)
    began, looks = time.monotonic(), 2_000
    for _ in range(looks):
        assert other.marks() == (30, 0)
    assert len(asked) <= 1 + (time.monotonic() - began) / LOOK_SECONDS
    journal._database.stamp = None  # as a process that dies after its commit, or of an older version
    journal.append([event("unstamped")])
    end = time.monotonic() + 5
    while other.marks() != (31, 0):
        assert time.monotonic() < end


def test_catalogue_changes_are_numbered(journal: Journal) -> None:
    assert journal.put_items([Item(item_id="i", title="One"), Item(item_id="j")]) == (2, 0)
    assert journal.put_items([Item(item_id="i", title="One")]) == (0, 1)
    assert journal.put_items([Item(item_id="i", title="Two")], [b"\0\0\0\0"], "v1") == (1, 0)
    assert journal.delete_items(["j", "unknown"]) == 1
    assert [(change.item_id, change.item and change.item.title) for change in journal.item_changes(2)] == [
        ("i", "Two"),
        ("j", None),
    ]
    assert journal.item_changes(2)[0].vector_version == "v1"
    assert journal.item("j") is None
    assert journal.items()["item_id"].to_list() == ["i"]


def test_users_and_edges(journal: Journal) -> None:
    assert journal.put_users([User(user_id="u", extra={"age": "3"})]) == (1, 0)
    assert journal.put_users([User(user_id="u", extra={"age": "3"})]) == (0, 1)
    assert journal.user("u") == User(user_id="u", extra={"age": "3"})
    edges = pl.DataFrame({"head": ["user:1"], "relation": ["friend"], "tail": ["user:2"], "weight": [1.0]})
    assert journal.put_edges(edges) == (1, 0)
    assert journal.put_edges(edges) == (0, 1)
    assert journal.edges().rows() == [("user:1", "friend", "user:2", 1.0)]


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "live.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(JournalError, match="can't be opened"):
        Journal.open(tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=5), max_size=6))
def test_law_each_id_is_stored_exactly_once(tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]]) -> None:
    journal = Journal.open(tmp_path_factory.mktemp("law"))
    results = [journal.append([event(name) for name in batch]) for batch in batches]
    stored = [row.event.event_id for row in journal.tail(0)]
    first_met = list(dict.fromkeys(name for batch in batches for name in batch))
    assert stored == first_met
    assert sum(result.accepted for result in results) == len(first_met)
    assert sum(result.accepted + result.duplicates for result in results) == sum(map(len, batches))
    journal.close()
