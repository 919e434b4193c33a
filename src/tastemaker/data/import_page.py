"""What the data looks like after an import: `reports/import.html`, for people, and `reports/import.json`, for programs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl

from tastemaker.data.times import ORDER_BELOW
from tastemaker.evaluation import page
from tastemaker.journal.append import Journal
from tastemaker.schema.columns import Columns
from tastemaker.schema.reports import ImportReport


def write_import_page(journal: Journal, reports: list[ImportReport], folder: Path) -> Path:
    """Writes both files and gives the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "import.json").write_bytes(msgspec.json.encode({"imports": reports}))
    events, items = journal.scan(), journal.items()
    body = _counts(events, items) + _reports(reports) + _plots(events, items)
    path = folder / "import.html"
    path.write_text(
        page.page("Import report", "What was read, what was refused, and what the journal holds now", body), encoding="utf-8"
    )
    return path


def _counts(events: pl.LazyFrame, items: pl.DataFrame) -> str:
    of_users, of_items = _each(events, Columns.USER_ID), _each(events, Columns.ITEM_ID)
    total, users, met = int(of_users.sum()), of_users.len(), of_items.len()
    filled = total / (users * met) if users and met else 0.0
    figures = [("events", f"{total:,}"), ("users", f"{users:,}"), ("items with events", f"{met:,}")]
    return page.cards(
        [*figures, ("items in the catalogue", f"{items.height:,}"), ("of all user-item pairs were met", f"{filled:.3%}")]
    )


def _reports(reports: list[ImportReport]) -> str:
    rows = [
        [r.kind, f"{r.read:,}", f"{r.accepted:,}", f"{r.duplicates:,}", f"{sum(r.quarantined.values()):,}", f"{r.seconds:.1f}"]
        for r in reports
    ]
    text = "<h2>This import</h2>" + page.table(["", "read", "accepted", "duplicates", "refused", "seconds"], rows)
    reasons = [[f"refused {r.kind}: {why}", f"{n:,}"] for r in reports for why, n in r.quarantined.items()]
    reasons += [[f"odd but kept: {why}", f"{n:,}"] for r in reports for why, n in r.warnings.items()]
    if reasons:
        text += "<h2>What was wrong</h2>" + page.table(["reason", "rows"], reasons)
    guesses = [[guess] for r in reports for guess in r.guesses]
    return text + ("<h2>How the files were understood</h2>" + page.table(["guess"], guesses) if guesses else "")


def _plots(events: pl.LazyFrame, items: pl.DataFrame) -> str:
    bounds = events.select(pl.col(Columns.TIMESTAMP).min().alias("first"), pl.col(Columns.TIMESTAMP).max().alias("last"))
    first, last = bounds.collect(engine="streaming").row(0)
    text = ""
    if last is not None and last > ORDER_BELOW:
        text += "<h2>Events over time</h2>" + page.columns(_over_time(events, first, last), "events over time")
    for name, title in ((Columns.USER_ID, "Events of a user"), (Columns.ITEM_ID, "Events of an item")):
        text += f"<h2>{title}</h2>" + page.columns(_powers(_each(events, name)), title)
    kinds = events.group_by(Columns.EVENT_TYPE).len().collect(engine="streaming").sort("len", descending=True).head(20)
    text += "<h2>Kinds of events</h2>" + page.columns(
        [(kind, float(count)) for kind, count in kinds.iter_rows()], "kinds of events"
    )
    if items.height:
        length = items.select(
            (pl.col(Columns.TITLE).fill_null("") + pl.col(Columns.TEXT).fill_null("")).str.len_chars()
        ).to_series()
        text += "<h2>Letters of an item's title and text</h2>" + page.columns(_powers(length), "letters")
    return text


def _each(events: pl.LazyFrame, name: str) -> pl.Series:
    """How many events each user, or item, has."""
    return events.group_by(name).len().select("len").collect(engine="streaming").to_series()


def _over_time(events: pl.LazyFrame, first: float, last: float) -> list[tuple[str, float]]:
    step = max((last - first) / 60, 1.0)
    place = ((pl.col(Columns.TIMESTAMP) - first) / step).floor().clip(0, 59).cast(pl.Int64).alias("place")
    found = dict(events.drop_nulls(Columns.TIMESTAMP).group_by(place).len().collect(engine="streaming").iter_rows())
    begins = pl.Series([int(first + number * step) for number in range(60)])
    names = pl.from_epoch(begins, time_unit="s").dt.strftime("%Y-%m-%d").to_list()
    return [(name, float(found.get(number, 0))) for number, name in enumerate(names)]


def _powers(counts: pl.Series) -> list[tuple[str, float]]:
    """How many fall between powers of two."""
    power = (counts.clip(1).cast(pl.Float64).log(2)).floor().cast(pl.Int64).alias("power")
    found = dict(power.value_counts().iter_rows())
    return [(f"{2**place:,} to {2 ** (place + 1) - 1:,}", float(found.get(place, 0))) for place in range(max(found, default=0) + 1)]
