"""Files of gorse, Metarank and Amazon Personalize through the importer, from their bytes to the journal."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tastemaker.cli.app import call
from tastemaker.journal.append import Journal

MESSAGES = {
    "User": ["user_id s", "labels b", "comment s", "subscribe S"],
    "Item": ["namespace s", "item_id s", "is_hidden ?", "categories S", "timestamp .Time", "labels b", "comment s"],
    "Feedback": ["namespace s", "feedback_type s", "user_id s", "item_id s", "timestamp .Time", "comment s", "value d"],
    "Time": ["seconds i", "nanos n"],
}
KINDS = {"s": 9, "S": 9, "b": 12, "?": 8, "d": 1, "i": 3, "n": 5}


def messages() -> dict[str, Any]:
    """gorse's messages, made by the protocol-buffers library itself."""
    file = descriptor_pb2.FileDescriptorProto(name="gorse.proto", package="p", syntax="proto3")
    for name, fields in MESSAGES.items():
        made = file.message_type.add(name=name)
        for number, text in enumerate(fields, 1):
            field, kind = text.split()
            one = made.field.add(name=field, number=number, label=3 if kind == "S" else 1, type=KINDS.get(kind, 11))
            if kind.startswith("."):
                one.type_name = ".p" + kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"p.{name}")) for name in MESSAGES}


def gorse_dump() -> bytes:
    kinds = messages()
    moment = kinds["Time"](seconds=1_700_000_000, nanos=500_000_000)
    never = kinds["Time"](seconds=-62_135_596_800)
    users = [kinds["User"](user_id="ann", labels=b'{"city":"Graz"}', comment="said"), kinds["User"](user_id="bob", labels=b"null")]
    items = [
        kinds["Item"](
            item_id=f"i{number}", categories=["a", "b"], timestamp=moment, labels=b'{"t":["x","a"]}', comment=f"thing {number} é"
        )
        for number in range(300)
    ]
    items.append(kinds["Item"](item_id="none", is_hidden=True, timestamp=never, labels=b"null"))
    feedback = [kinds["Feedback"](feedback_type="read", user_id="ann", item_id="i1", timestamp=moment, value=3.5, comment="good")]
    feedback += [
        kinds["Feedback"](feedback_type="star", user_id="bob", item_id=f"i{number}", timestamp=moment) for number in range(9)
    ]
    parts = []
    for mark, rows in ((-1, users), (-2, items), (-3, feedback)):
        parts.append(struct.pack("<q", mark))
        parts += [struct.pack("<q", len(body)) + body for body in (row.SerializeToString() for row in rows)]
    return b"".join(parts) + struct.pack("<q", 0)


def space(folder: Path, positive: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tastemaker.toml").write_text(f"[data]\npositive = [{positive}]\n" if positive else "")
    return folder


def imported(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert call(["import", str(folder), *arguments, "--json"]) == code
    said = capsys.readouterr()
    return json.loads(said.out)["imports"] if code == 0 else said.err.replace("\n", " ")


def test_a_gorse_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = tmp_path / "dump.bin.gz"
    dump.write_bytes(gzip.compress(gorse_dump()))
    folder = space(tmp_path / "space")
    reports = imported(folder, capsys, "--dump", str(dump))
    assert [(one["kind"], one["read"], one["accepted"]) for one in reports] == [
        ("items", 301, 301),
        ("users", 2, 2),
        ("events", 10, 10),
    ]
    assert any("gorse" in guess for guess in reports[0]["guesses"])
    journal = Journal.open(folder / "journal")
    item = journal.item("i7")
    assert item is not None
    assert (item.text, item.categories, item.created_at, item.hidden) == ("thing 7 é", ["a", "b", "x"], 1_700_000_000.5, False)
    hidden = journal.item("none")
    assert hidden is not None
    assert (hidden.hidden, hidden.created_at) == (True, None)
    user = journal.user("ann")
    assert user is not None
    assert user.extra == {"city": "Graz", "comment": "said"}
    events = journal.read()
    assert events["event_type"].value_counts(sort=True).rows() == [("star", 9), ("read", 1)]
    first = events.filter(events["event_type"] == "read").row(0, named=True)
    assert (first["user_id"], first["item_id"], first["value"], first["timestamp"]) == ("ann", "i1", 3.5, 1_700_000_000.5)
    assert json.loads(first["context"]) == {"comment": "good"}
    journal.close()
    again = imported(folder, capsys, "--dump", str(dump))
    assert sum(one["accepted"] for one in again) == 0
    assert list((folder / "runs").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "no end", "mark", "record", "endless"])
def test_a_damaged_gorse_dump_adds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    whole = gorse_dump()
    spoiled = {
        "cut": whole[: len(whole) // 2],
        "no end": whole[:-8],
        "mark": whole[:-8] + struct.pack("<q", -9),
        "record": whole[:8] + struct.pack("<q", 3) + b"\xff\xff\xff" + whole[8:],
        "endless": whole[:8] + struct.pack("<q", 1 << 40) + whole[8:],
    }[damage]
    dump = tmp_path / "dump.bin"
    dump.write_bytes(spoiled)
    folder = space(tmp_path / "space")
    assert "Nothing of it was kept" in imported(folder, capsys, "--dump", str(dump), code=2)
    journal = Journal.open(folder / "journal")
    assert (journal.position(), journal.change()) == (0, 0)
    journal.close()


METARANK = [
    {"event": "item", "id": "1", "timestamp": "1599391460000", "item": "p1", "fields": [{"name": "title", "value": "Old name"}]},
    {
        "event": "item",
        "id": "2",
        "timestamp": "1599391461000",
        "item": "p1",
        "fields": [
            {"name": "title", "value": "Cat bed"},
            {"name": "tags", "value": ["cat", "bed"]},
            {"name": "soft", "value": True},
        ],
    },
    {"event": "user", "id": "3", "timestamp": "1599391462000", "user": "u1", "fields": [{"name": "age", "value": 33}]},
    {
        "event": "ranking",
        "id": "r1",
        "timestamp": "1599391463000",
        "user": "u1",
        "session": "s1",
        "items": [{"id": "p2", "relevancy": 2.0}, {"id": "p1"}],
    },
    {
        "event": "interaction",
        "id": "c1",
        "ranking": "r1",
        "timestamp": "1599391464000",
        "user": "u1",
        "session": "s1",
        "type": "click",
        "item": "p1",
        "fields": [{"name": "count", "value": 1}],
    },
    {"event": "interaction", "id": "c2", "timestamp": "1599391465000", "session": "s9", "type": "purchase", "item": "p2"},
]


@pytest.mark.parametrize("positive", ["", '"click", "purchase"'])
def test_metarank_s_events(tmp_path: Path, capsys: pytest.CaptureFixture[str], positive: str) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, METARANK)) + "\n")
    folder = space(tmp_path / "space", positive)
    reports = imported(folder, capsys, "--dump", str(file))
    journal = Journal.open(folder / "journal")
    item = journal.item("p1")
    assert item is not None
    assert (item.title, item.categories, item.extra) == ("Cat bed", ["cat", "bed"], {"soft": "true"})
    user = journal.user("u1")
    assert user is not None
    assert user.extra == {"age": "33"}
    events = journal.read().select("user_id", "item_id", "event_type", "timestamp", "request_id", "position", "event_id").rows()
    clicks = [
        ("u1", "p1", "click", 1599391464.0, "r1", None, "c1"),
        ("s9", "p2", "purchase", 1599391465.0, None, None, "c2"),
    ]
    shown = [
        ("u1", "p2", "impression", 1599391463.0, "r1", 0, "r1-0"),
        ("u1", "p1", "impression", 1599391463.0, "r1", 1, "r1-1"),
    ]
    assert events == (shown + clicks if positive else clicks)
    assert any("left out" in guess for guess in reports[0]["guesses"]) is not bool(positive)
    journal.close()


def test_what_is_no_dump_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = space(tmp_path / "space"), tmp_path / "events.jsonl"
    assert "no such file" in imported(folder, capsys, "--dump", str(file), code=2)
    file.write_text("user_id,item_id\na,b\n")
    assert "neither a gorse dump" in imported(folder, capsys, "--dump", str(file), code=2)
    file.write_text(json.dumps({"event": "interaction", "type": "click", "item": "a", "timestamp": 1}))
    assert "line 1" in imported(folder, capsys, "--dump", str(file), code=2)


def schema(path: Path, name: str, fields: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps({"type": "record", "name": name, "namespace": "com.amazonaws.personalize.schema", "fields": fields}))
    return str(path)


def test_personalize_s_files_with_their_schemas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, maybe = "string", ["null", "string"]
    interactions = schema(
        tmp_path / "interactions.json",
        "Interactions",
        [
            {"name": "USER_ID", "type": text},
            {"name": "ITEM_ID", "type": text},
            {"name": "TIMESTAMP", "type": "long"},
            {"name": "EVENT_TYPE", "type": text},
            {"name": "EVENT_VALUE", "type": ["null", "float"]},
            {"name": "IMPRESSION", "type": maybe},
            {"name": "DEVICE", "type": maybe, "categorical": True},
        ],
    )
    items = schema(
        tmp_path / "items.json",
        "Items",
        [
            {"name": "ITEM_ID", "type": text},
            {"name": "CATEGORY_L1", "type": maybe, "categorical": True},
            {"name": "GENRES", "type": maybe, "categorical": True},
            {"name": "PRODUCT_DESCRIPTION", "type": maybe, "textual": True},
            {"name": "CREATION_TIMESTAMP", "type": "long"},
            {"name": "PRICE", "type": ["null", "float"]},
        ],
    )
    (tmp_path / "interactions.csv").write_text(
        "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE,IMPRESSION,DEVICE\n"
        "u1,i1,1700000000,click,,i2|i1,phone\nu1,i2,1700000100,watch,0.7,,\n"
    )
    (tmp_path / "items.csv").write_text(
        "ITEM_ID,CATEGORY_L1,GENRES,PRODUCT_DESCRIPTION,CREATION_TIMESTAMP,PRICE\n"
        'i1,film,Action|Horror,"A long, dark night",1600000000,9.5\ni2,,Comedy,,1600000001,\n'
    )
    files = ("--events", str(tmp_path / "interactions.csv"), "--items", str(tmp_path / "items.csv"))
    given = (*files, "--schema", interactions, "--schema", items)
    folder = space(tmp_path / "space", '"click", "watch>=0.5"')
    reports = imported(folder, capsys, *given)
    assert any("GENRES" in guess for guess in reports[0]["guesses"])
    journal = Journal.open(folder / "journal")
    item, other = journal.item("i1"), journal.item("i2")
    assert item is not None
    assert other is not None
    assert (item.text, item.categories, item.price, item.created_at) == (
        "A long, dark night",
        ["film", "Action", "Horror"],
        9.5,
        1.6e9,
    )
    assert (other.text, other.categories, other.price) == (None, ["Comedy"], None)
    events = sorted(journal.read().select("user_id", "item_id", "timestamp", "event_type", "value").rows(), key=str)
    assert events == [
        ("u1", "i1", 1.7e9, "click", None),
        ("u1", "i1", 1.7e9, "impression", None),
        ("u1", "i2", 1.7e9, "impression", None),
        ("u1", "i2", 1.7e9 + 100, "watch", 0.7),
    ]
    journal.close()
    plain = space(tmp_path / "plain")
    assert any("left out" in guess for guess in imported(plain, capsys, *given)[0]["guesses"])
    journal = Journal.open(plain / "journal")
    assert journal.read()["event_type"].to_list() == ["click", "watch"]
    journal.close()
    assert "no file of them" in imported(plain, capsys, "--items", str(tmp_path / "items.csv"), "--schema", interactions, code=2)
    with (tmp_path / "items.csv").open("a") as file:
        file.write("i3,,,,,\n")
    assert "CREATION_TIMESTAMP is empty in 1 rows" in imported(plain, capsys, *given, code=2)
    (tmp_path / "items.csv").write_text("ITEM_ID\ni1\n")
    assert "no column CATEGORY_L1" in imported(plain, capsys, *given, code=2)
    (tmp_path / "items.json").write_text('{"type":"record","name":"Actions","fields":[{"name":"A","type":"string"}]}')
    assert "Actions" in imported(plain, capsys, *given, code=2)
