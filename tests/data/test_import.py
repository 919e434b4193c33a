"""Every row of every format ends somewhere, and the counts say where."""

from __future__ import annotations

import gzip
import json
import time
import zipfile
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.dataset import Dataset
from tastemaker.data.import_page import write_import_page
from tastemaker.data.intake import Intake, warn_about_links
from tastemaker.data.quarantine import Quarantine
from tastemaker.journal.append import Journal
from tastemaker.schema.errors import InputError
from tastemaker.schema.reports import ImportReport
from tastemaker.schema.settings import DataSettings


class World:
    def __init__(self, folder: Path, **data: object) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.journal = Journal.open(folder / "journal")
        self.quarantine = Quarantine(folder)
        self.intake = Intake(self.journal, DataSettings(**data), self.quarantine)  # type: ignore[arg-type]

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def refused(self) -> list[dict[str, object]]:
        self.quarantine.close()
        return [json.loads(line) for path in self.folder.glob("quarantine/*.jsonl") for line in path.read_text().splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def balanced(report: ImportReport) -> bool:
    return report.read == report.accepted + report.duplicates + sum(report.quarantined.values())


CSV = "userId,movieId,rating,timestamp\n1,10,4.5,964982703\n1,11,3,964981247\n2,10,5,964982224\n"


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".csv.zst", ".tsv", ".jsonl", ".jsonl.gz", ".parquet", ".inter"])
def test_formats(world: World, ending: str) -> None:
    rows = [line.split(",") for line in CSV.split()]
    objects = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    text = CSV.encode()
    if ending == ".tsv":
        text = CSV.replace(",", "\t").encode()
    elif ending.startswith(".jsonl"):
        text = "\n".join(json.dumps(row) for row in objects).encode()
    elif ending == ".inter":
        text = (
            CSV.replace("userId,movieId,rating,timestamp", "user_id:token,item_id:token,rating:float,timestamp:float")
            .replace(",", "\t")
            .encode()
        )
    if ending.endswith(".gz"):
        text = gzip.compress(text)
    if ending.endswith(".zst"):
        text = zstandard.compress(text)
    path = world.write(f"events{ending}", text)
    if ending == ".parquet":
        pl.DataFrame(
            {
                "userId": [1, 1, 2],
                "movieId": [10, 11, 10],
                "rating": [4.5, 3.0, 5.0],
                "timestamp": [964982703, 964981247, 964982224],
            }
        ).write_parquet(path)
    report = world.intake.events([path])
    assert (report.read, report.accepted, balanced(report)) == (3, 3, True)
    table = world.journal.read().sort("timestamp")
    assert table.select("user_id", "item_id", "value", "timestamp").rows() == [
        ("1", "11", 3.0, 964981247.0), ("2", "10", 5.0, 964982224.0), ("1", "10", 4.5, 964982703.0),
    ]  # fmt: skip
    assert "epoch seconds" in report.guesses[0]


def test_every_kind_of_bad_row_is_counted_and_kept(world: World) -> None:
    future = int(time.time()) + 10 * 86_400
    good = ["u1,i1,view,1600000000,1", "u1,i2,view,1600000001,"]
    bad = {
        "missing user_id": ",i1,view,1600000000,1", "missing item_id": "u1,,view,1600000000,1",
        "unparsable timestamp": "u1,i1,view,yesterday,1", "timestamp in the future": f"u1,i1,view,{future},1",
        "value is no number": "u1,i1,view,1600000000,many", "impossible value (NaN or infinite)": "u1,i1,view,1600000000,nan",
        "too many fields": "u1,i1,view,1600000000,1,2", "too few fields": "u1,i1",
    }  # fmt: skip
    path = world.write(
        "events.csv", "\n".join(["user_id,item_id,event_type,timestamp,value", *good, *bad.values(), good[0]]) + "\n"
    )
    report = world.intake.events([path])
    assert report.quarantined == dict.fromkeys(bad, 1)
    assert (report.read, report.accepted, report.duplicates) == (11, 2, 1)
    refused = world.refused()
    assert {row["reason"] for row in refused} == set(bad)
    assert {row["line"] for row in refused} == set(range(4, 12))
    assert all(row["file"] == "events.csv" for row in refused)


def test_the_same_file_and_the_same_rows_add_nothing(world: World) -> None:
    path = world.write("events.csv", CSV)
    world.intake.events([path])
    again = world.intake.events([path])
    assert (again.read, again.accepted) == (0, 0)
    assert "imported before" in again.guesses[0]
    more = world.intake.events([world.write("more.csv", CSV + "3,12,1,964982800\n")])
    assert (more.accepted, more.duplicates) == (1, 3)
    assert world.journal.position() == 4


def test_own_event_ids_win(world: World) -> None:
    text = "event_id,user_id,item_id\nx,u,i\ny,u,i\nx,v,j\n"
    report = world.intake.events([world.write("events.csv", text)])
    assert (report.accepted, report.duplicates) == (2, 1)
    assert world.journal.read()["event_id"].to_list() == ["x", "y"]
    again = world.intake.events([world.write("again.csv", text + "z,u,i\n")])
    assert (again.accepted, again.duplicates) == (1, 3)


def test_bots_are_put_aside(tmp_path: Path) -> None:
    world = World(tmp_path, bot_events_per_day=50)
    lines = [f"bot,i{number},{1_600_000_000 + number}" for number in range(80)] + [
        f"u,i{number},{1_600_000_000 + 90_000 * number}" for number in range(80)
    ]
    report = world.intake.events([world.write("events.csv", "\n".join(["user_id,item_id,timestamp", *lines]))])
    assert report.quarantined == {"inhuman rate of events (bot)": 80}
    assert balanced(report)
    assert world.journal.read()["user_id"].unique().to_list() == ["u"]


def test_times(world: World) -> None:
    iso = "user_id,item_id,datetime\nu,a,2024-01-02T03:04:05Z\nu,b,2024-01-02 03:04:05.5\nu,c,2024-01-02T05:04:05+02:00\nu,d,2024-01-02\n"
    world.intake.events([world.write("iso.csv", iso)])
    assert world.journal.read()["timestamp"].to_list() == [1704164645.0, 1704164645.5, 1704164645.0, 1704153600.0]
    report = world.intake.events([world.write("ms.csv", "user_id,item_id,ts\nu,e,1704164645123\n")])
    assert "milliseconds" in report.guesses[0]
    assert world.journal.read()["timestamp"][-1] == pytest.approx(1704164645.123, abs=1e-6)
    other = World(world.folder / "other")
    report = other.intake.events([other.write("order.csv", "user_id,item_id,ts\nu,f,0\nu,g,1\n")])
    assert "an order, not a time" in report.guesses[0]


def test_wrong_encoding_is_read_and_counted(world: World) -> None:
    report = world.intake.items([world.write("items.csv", "item_id,title\n1,Caf\xe9\n2,Tea\n".encode("latin-1"))])
    assert report.accepted == 2
    assert list(report.warnings.values()) == [1]
    assert world.journal.items()["title"].to_list() == ["Café", "Tea"]
    events = world.intake.events([world.write("events.csv", b"user_id,item_id\nu\xff,1\nu,2\n")])
    assert events.quarantined == {"id is no valid UTF-8": 1}


def test_of_several_reasons_the_first_is_told(world: World) -> None:
    lines = b"user_id,item_id,timestamp,value\n,,1600000000,inf\nu,,1600000000,inf\nu,i,1600000000,inf\nu,i,1600000000,1\n"
    report = world.intake.events([world.write("events.csv", lines)])
    assert report.quarantined == {"missing user_id": 1, "missing item_id": 1, "impossible value (NaN or infinite)": 1}


def test_events_keep_further_columns_beside_a_context_of_their_own(world: World) -> None:
    rows = [
        {"user_id": "u", "item_id": "a", "query": "boots", "context": json.dumps({"device": "phone"})},
        {"user_id": "u", "item_id": "b", "query": "shoes", "context": json.dumps({"query": "mine"})},
        {"user_id": "v", "item_id": "c", "query": "tea", "context": "front page"},
        {"user_id": "v", "item_id": "d", "query": "cups"},
    ]
    pl.DataFrame(rows).write_parquet(world.folder / "events.parquet")
    assert world.intake.events([world.folder / "events.parquet"]).accepted == 4
    assert [json.loads(text) for text in world.journal.read().sort("item_id")["context"]] == [
        {"query": "boots", "device": "phone"},
        {"query": "mine"},
        {"query": "tea", "context": "front page"},
        {"query": "cups"},
    ]


def test_items_keep_unknown_columns_and_lists(world: World) -> None:
    lines = [
        {
            "asin": "A",
            "title": "Boots",
            "category": ["Shoes", ["Hiking"]],
            "description": ["Warm.", "Dry."],
            "price": "$1,299.50",
            "brand": "Fjord",
        },
        {"asin": "", "title": "No id"},
    ]
    report = world.intake.items([world.write("meta.jsonl", "\n".join(map(json.dumps, lines)))])
    assert report.quarantined == {"missing item_id": 1}
    row = world.journal.items().row(0, named=True)
    assert (row["categories"], row["text"], row["price"], json.loads(row["extra"])) == (
        ["Shoes", "Hiking"],
        "Warm. Dry.",
        1299.5,
        {"brand": "Fjord"},
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "who,what\n1,2\n", "no column for user_id, item_id. Found: who, what"),
        ("a.csv", "", "is empty"),
        ("a.xlsx", "x", "ending .xlsx is unknown"),
        ("a.csv.gz", "this is no gzip", "can't be read to its end"),
        ("a.parquet", "this is no parquet", "can't be read to its end"),
    ],
)
def test_files_that_make_no_sense_are_explained_and_add_nothing(world: World, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        world.intake.events([world.write(name, text)])
    assert world.journal.position() == 0
    with pytest.raises(InputError, match="no such file"):
        world.intake.events([world.folder / "nothing-*.csv"])


def test_one_bad_file_of_several_keeps_all_out(world: World) -> None:
    good, bad = world.write("a.csv", CSV), world.write("b.csv", "x,y\n1,2\n")
    with pytest.raises(InputError):
        world.intake.events([good, bad])
    assert world.journal.position() == 0
    assert world.intake.events([good]).accepted == 3


def test_warnings_and_page(world: World) -> None:
    world.intake.items([world.write("items.csv", "item_id,title\n10,One\n12,\n")])
    report = world.intake.events([world.write("events.csv", CSV)])
    warn_about_links(world.journal, report)
    assert report.warnings == {"events whose item is not in the catalogue": 1, "items without title and text": 1}
    page = write_import_page(world.journal, [report], world.folder / "reports").read_text()
    assert "<svg" in page
    assert "events whose item is not in the catalogue" in page
    assert "http" not in page


ID = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters='",\r\n'), min_size=0, max_size=6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(ID, ID, st.sampled_from(["", "1600000000", "x", "1600000001", "nan"])), max_size=30))
def test_law_read_is_accepted_plus_duplicates_plus_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    world = World(tmp_path_factory.mktemp("law"))
    path = world.write("events.csv", "\n".join(["user_id,item_id,timestamp", *(",".join(row) for row in rows)]) + "\n")
    report = world.intake.events([path])
    assert report.read == len(rows)
    assert balanced(report)
    assert world.journal.position() == report.accepted
    assert len(world.refused()) == sum(report.quarantined.values())
    world.journal.close()


def test_real_sets(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "movielens-latest-small" / "ml-latest-small.zip") as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "ml-latest-small"
    movies = Dataset.read(folder / "ratings.csv", folder / "movies.csv")
    assert (movies.events.height, movies.items.height, movies.time_is_order) == (100_836, 9_742, False)
    assert movies.items.row(0, named=True)["categories"] == ["Adventure", "Animation", "Children", "Comedy", "Fantasy"]
    gifts = Dataset.read(
        shared_data / "amazon-gift-cards/Gift_Cards_5.json.gz", shared_data / "amazon-gift-cards/meta_Gift_Cards.json.gz"
    )
    assert (gifts.events.height + 0, gifts.items.height) == (2_972, 1_547)
    beauty = Dataset.read(shared_data / "amazon-beauty/events.parquet", shared_data / "amazon-beauty/items.parquet")
    assert (beauty.events.height, beauty.items.height, beauty.time_is_order) == (198_502, 12_101, True)
    friends = Dataset.read(
        shared_data / "lastfm-hetrec2011/events.parquet", shared_data / "lastfm-hetrec2011/items.parquet",
        edges=shared_data / "lastfm-hetrec2011/edges.parquet",
    )  # fmt: skip
    assert (friends.events.height, friends.edges.height, friends.time_is_order) == (92_834, 25_434, True)
