"""A log that was made dirty is, once cleaned, the clean log: the same events in the same order, and every other row is accounted for."""

from __future__ import annotations

import csv
import io
import json
import random
import resource
import time
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tastemaker.data import clean, delimited
from tastemaker.data.dataset import Dataset
from tastemaker.data.delimited import Lines, read_lines
from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.data.sequences import build
from tastemaker.journal.append import Journal
from tastemaker.journal.identity import content_numbers, hexadecimal, id_numbers, text_numbers
from tastemaker.schema.errors import InputError
from tastemaker.schema.reports import ImportReport
from tastemaker.schema.settings import DataSettings


def taken_in(folder: Path, *files: Path) -> tuple[Dataset, ImportReport, list[dict[str, object]]]:
    journal, quarantine = Journal.open(folder / "journal"), Quarantine(folder)
    report = Intake(journal, DataSettings(), quarantine).events(files)
    quarantine.close()
    refused = [json.loads(line) for path in folder.glob("quarantine/*.jsonl") for line in path.read_text().splitlines()]
    assert report.read == report.accepted + report.duplicates + sum(report.quarantined.values())
    return Dataset.from_journal(journal), report, refused


def same(one: Dataset, other: Dataset) -> bool:
    """Equal once ties in time, of which arrival decides, are put in one order."""
    one, other = (data.with_events(data.events.sort("timestamp", "event_id")) for data in (one, other))
    if not one.events.drop("seq").equals(other.events.drop("seq")):
        return False
    first, second = build(one), build(other)
    arrays = ("offsets", "items", "times", "event_types")
    return (first.user_ids, first.item_ids) == (second.user_ids, second.item_ids) and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in arrays
    )


def spoiled(rows: list[str], rng: random.Random, future: int) -> tuple[list[str], dict[str, int]]:
    """1 % malformed, 10 % repeats, 20 % out of order, times in the future, and a bot with 100,000 clicks in a day."""
    wrong = {
        "missing user_id": ",10,4.0,964982703", "missing item_id": "1,,4.0,964982703", "unparsable timestamp": "1,10,4.0,soon",
        "value is no number": "1,10,good,964982703", "impossible value (NaN or infinite)": "1,10,inf,964982703",
        "too few fields": "1,10", "too many fields": "1,10,4.0,964982703,more", "timestamp in the future": f"1,10,4.0,{future}",
        "id is no valid UTF-8": "\udcff,10,4.0,964982703",
    }  # fmt: skip
    each = len(rows) // 100 // len(wrong)
    dirty = [*rows, *rng.sample(rows, len(rows) // 10), *(row for row in wrong.values() for _ in range(each))]
    dirty += [f"bot,{1 + n % 9000},1.0,{1_500_000_000 + n % 80_000}.{n}" for n in range(100_000)]
    moved = rng.sample(range(len(dirty)), len(dirty) // 5)
    for place, row in zip(moved, rng.sample([dirty[place] for place in moved], len(moved)), strict=True):
        dirty[place] = row
    return dirty, {**dict.fromkeys(wrong, each), "inhuman rate of events (bot)": 100_000}


def test_movielens_made_dirty_is_movielens(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "movielens-latest-small" / "ml-latest-small.zip") as archive:
        text = archive.read("ml-latest-small/ratings.csv").decode()
    head, *rows = text.split()
    (tmp_path / "clean.csv").write_text(text)
    dirty, refused_rows = spoiled(rows, random.Random(0), int(time.time()) + 10**7)
    (tmp_path / "dirty.csv").write_text("\n".join([head, *dirty]) + "\n", errors="surrogateescape")
    expected, report, _ = taken_in(tmp_path / "a", tmp_path / "clean.csv")
    assert (report.read, report.accepted) == (100_836, 100_836)
    data, report, refused = taken_in(tmp_path / "b", tmp_path / "dirty.csv")
    assert report.quarantined == refused_rows
    assert (report.read, report.accepted, report.duplicates) == (len(dirty), 100_836, 10_083)
    assert same(data, expected)
    lines = {row["line"] for row in refused if row["reason"] == "missing user_id"}
    assert lines == {place + 2 for place, row in enumerate(dirty) if row.startswith(",")}


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_the_same_event_has_one_name_in_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    table = pl.DataFrame({"user_id": [7, 8, 9], "item_id": ["a", "é", "a long name of an item"], "timestamp": [1.6e9, 1600000000.5, 1.7e9],
                          "event_type": ["view", "buy", None], "value": [0.1, -0.0, None]})  # fmt: skip
    first, second = tmp_path / "first.csv", tmp_path / f"second.{ending}"
    table.write_csv(first)
    if ending == "csv":
        second.write_text('"item_id";"user_id";"value";"event_type";"timestamp"\n' + "".join(
            f'"{i}";" {u}";"{"" if v is None else v}";"{e or ""}";"{t}"\n' for u, i, t, e, v in table.rows()))  # fmt: skip
    else:
        table.write_parquet(second) if ending == "parquet" else table.write_ndjson(second)
    _, report, _ = taken_in(tmp_path / "w", first, second)
    assert (report.accepted, report.duplicates) == (3, 3)


def test_names_never_change() -> None:
    texts = pl.Series(["", "a", None, "é", "x" * 100])
    assert [f"{number:x}" for number in text_numbers(texts).tolist()] == GOLDEN_TEXTS
    table = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["i", "j"], "timestamp": [1.5, None], "value": [None, 2.0]})
    assert hexadecimal(pl.Series(content_numbers(table))).to_list() == GOLDEN_EVENTS
    assert id_numbers(pl.Series(["00000000000000ff", "own"])).tolist() == [255, GOLDEN_OWN]


def test_segments_of_older_versions_are_read_and_known_again(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "w" / "journal")
    old = {
        "event_id": ["0123456789abcdef", "mine"],
        "user_id": ["u", "v"],
        "item_id": ["i", "j"],
        "timestamp": [1.6e9, 1.6e9],
        "event_type": ["event"] * 2,
    }
    rest = (
        dict.fromkeys(("request_id", "session_id", "context"), pl.String)
        | dict.fromkeys(("value", "propensity"), pl.Float64)
        | {"position": pl.Int64}
    )
    pl.DataFrame(old).with_columns(pl.lit(None, dtype=kind).alias(name) for name, kind in rest.items()).write_parquet(
        tmp_path / "p.parquet"
    )
    journal.commit_import("events", [("sha", "old.csv")], [tmp_path / "p.parquet"], [2])
    assert journal.read()["event_id"].to_list() == ["0123456789abcdef", "mine"]
    (tmp_path / "again.csv").write_text(
        "event_id,user_id,item_id,timestamp\n,u,i,1600000000\nmine,v,j,1600000000\n,new,k,1600000000\n"
    )
    _, report, _ = taken_in(tmp_path / "w", tmp_path / "again.csv")
    assert (report.accepted, report.duplicates) == (1, 2)


@pytest.mark.parametrize("name", ["wide.csv", "wide.jsonl"])
def test_a_million_columns_are_refused_in_bounded_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    fields = [f"c{number}" for number in range(1_000_000)]
    path.write_text(",".join(fields) + "\n1,2\n" if name == "wide.csv" else json.dumps(dict.fromkeys(fields, 1)) + "\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="has 1,000,000 columns: expected at most"):
        taken_in(tmp_path / "w", path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000, "more than 1 GB for a header of 8 MB"


def test_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "header.csv").write_text("user_id,item_id,timestamp\n")
    _, report, _ = taken_in(tmp_path / "w", tmp_path / "header.csv")
    assert (report.read, report.accepted) == (0, 0)
    pl.DataFrame({"user_id": [], "item_id": []}, schema={"user_id": pl.Int64, "item_id": pl.Null}).write_parquet(
        tmp_path / "none.parquet"
    )
    assert taken_in(tmp_path / "v", tmp_path / "none.parquet")[1].read == 0
    (tmp_path / "wide.csv").write_bytes("user_id,item_id\nu,i\n".encode("utf-16"))
    with pytest.raises(InputError, match="is UTF-16"):
        taken_in(tmp_path / "u", tmp_path / "wide.csv")


FIELD = st.text(st.sampled_from('ab,"\n\r é\x0b\u2028'), max_size=4)


@settings(max_examples=200, deadline=None)
@example(rows=[["", "\r\n"]], ending="\n", block=1 << 20, raw=False)
@given(
    rows=st.lists(st.lists(FIELD, max_size=4), max_size=12),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    block=st.sampled_from([1, 7, 1 << 20]),
    raw=st.booleans(),
)
def test_law_both_roads_read_what_pythons_reader_reads(rows: list[list[str]], ending: str, block: int, raw: bool) -> None:
    if raw:
        text = ending.join(["x,y", *(",".join(row) for row in rows)])
    else:
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator=ending).writerows([["x", "y"], *rows])
        text = out.getvalue()
    reader = csv.reader(io.StringIO(text, newline=""))
    next(reader)
    expected = [(reader.line_num, row) for row in reader if row]
    before, delimited.BLOCK_BYTES = delimited.BLOCK_BYTES, block
    try:
        lines = Lines(io.BytesIO(text.encode()), Path("x.csv"), tabs=False, quotes=True)
        found: list[tuple[int, list[str]]] = []
        rejected = []
        for table, numbers, rejects in read_lines(lines, ["x", "y"]):
            found += [(line, list(row)) for line, row in zip(numbers.tolist(), table.rows(), strict=True)]
            rejected += [reject.line for reject in rejects]
    finally:
        delimited.BLOCK_BYTES = before
    assert found == [(line, row) for line, row in expected if len(row) == 2]
    assert rejected == [line for line, row in expected if len(row) != 2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60).map(lambda n: n * 0x0123456789ABCDEF % 2**64), max_size=30), max_size=80))
def test_law_seen_is_a_set(batches: list[list[int]]) -> None:
    seen, known = clean.Seen(), set[int]()
    for batch in batches:
        fresh = seen.new(np.array(batch, dtype=np.uint64))
        assert [number for number, new in zip(batch, fresh, strict=True) if new] == [
            n for n in dict.fromkeys(batch) if n not in known
        ]
        assert fresh.tolist() == [number not in known and number not in batch[:place] for place, number in enumerate(batch)]
        known |= set(batch)


def test_seen_grows_and_forgets_nothing() -> None:
    rng, seen = np.random.default_rng(0), clean.Seen()
    numbers = rng.integers(0, 2**64, 600_000, dtype=np.uint64)
    for part in np.split(numbers, 200):
        assert seen.new(part).all()
    again = np.concatenate([rng.permutation(numbers)[:1000], rng.integers(0, 2**64, 1000, dtype=np.uint64)])
    assert seen.new(again).tolist() == [False] * 1000 + [True] * 1000


GOLDEN_TEXTS = ["0", "d7b1a183687a5b1e", "0", "d3a126bad52ba46d", "307b72c53666d1ba"]
GOLDEN_EVENTS = ["41853d614afbf2ba", "117469d51baffedc"]
GOLDEN_OWN = 286212765513498126
