"""Times as people write them: ISO-8601, epoch seconds, milliseconds, microseconds, nanoseconds, or a mere order."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

ORDER_BELOW = 1e8
"""Numbers below this (March 1973) are places in a history, not times."""
_UNITS = (("ns", 1e17, 1e9), ("us", 1e14, 1e6), ("ms", 1e11, 1e3), ("s", ORDER_BELOW, 1.0))
_FORMATS = ("%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d %H:%M:%S",
            "%Y/%m/%d", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y", "%m %d, %Y", "%d.%m.%Y", "%Y%m%d%H%M%S")  # fmt: skip


@dataclass(frozen=True)
class TimeFormat:
    """How a file writes its times.

    Attributes:
        name: `iso`, `s`, `ms`, `us`, `ns`, `order` or `none`.
        words: the guess, in plain words, to be printed.
    """

    name: str
    words: str


def guess(column: pl.Series) -> TimeFormat:
    """The format that most values of a column of texts fit."""
    values = column.drop_nulls().filter(column.drop_nulls().str.strip_chars() != "")
    if values.is_empty():
        return TimeFormat("none", "no times: the order of the rows is taken as the order of events")
    numbers = values.cast(pl.Float64, strict=False).drop_nulls()
    if numbers.len() * 2 < values.len():
        return TimeFormat("iso", f"timestamps are written as dates, such as {values[0]!r} (UTC where no zone is given)")
    middle = float(numbers.abs().median() or 0.0)  # type: ignore[arg-type]
    for name, least, _ in _UNITS:
        if middle >= least:
            words = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[name]
            return TimeFormat(name, f"timestamps are epoch {words}, such as {values[0]!s}")
    return TimeFormat("order", f"timestamps are small numbers (around {middle:.0f}): they give an order, not a time")


def parse(column: pl.Series, form: TimeFormat) -> pl.Series:
    """Epoch seconds as float64; null where the text can't be read."""
    if form.name == "none":
        return pl.Series(column.name, [None] * column.len(), dtype=pl.Float64)
    numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    if form.name != "iso":
        scale = {name: factor for name, _, factor in _UNITS}.get(form.name, 1.0)
        return numbers / scale
    text = column.str.strip_chars().str.replace("T", " ", literal=True).str.replace(r"\s*(Z|UTC)$", "+0000")
    frame = pl.DataFrame({"text": text})
    tries = [_try(frame, pattern) for pattern in _FORMATS]
    return pl.DataFrame(dict(enumerate_names(tries))).select(pl.coalesce(pl.all())).to_series().alias(column.name)


def enumerate_names(columns: list[pl.Series]) -> list[tuple[str, pl.Series]]:
    """Columns with names of their own."""
    return [(f"try{place}", column) for place, column in enumerate(columns)]


def _try(frame: pl.DataFrame, pattern: str) -> pl.Series:
    expression = pl.col("text").str.to_datetime(pattern, strict=False, time_unit="us")
    return (frame.select(expression.dt.epoch("us")).to_series() / 1e6).cast(pl.Float64)
