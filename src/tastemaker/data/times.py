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
    """The format that most values of a column of texts, or of numbers, fit."""
    if column.dtype.is_numeric():
        column = column.cast(pl.Float64).fill_nan(None)
        whole = column.drop_nulls().head(1)
        first = "" if whole.is_empty() else f"{whole[0]:.0f}" if float(whole[0]).is_integer() else f"{whole[0]}"
        return _of_numbers(column.drop_nulls(), first)
    values = column.drop_nulls().filter(column.drop_nulls().str.strip_chars() != "")
    if values.is_empty():
        return TimeFormat("none", "no times: the order of the rows is taken as the order of events")
    numbers = values.cast(pl.Float64, strict=False).drop_nulls()
    if numbers.len() * 2 < values.len():
        return TimeFormat("iso", f"timestamps are written as dates, such as {values[0]!r} (UTC where no zone is given)")
    return _of_numbers(numbers, values[0])


def _of_numbers(numbers: pl.Series, first: str) -> TimeFormat:
    if numbers.is_empty():
        return TimeFormat("none", "no times: the order of the rows is taken as the order of events")
    middle = float(numbers.abs().median() or 0.0)  # type: ignore[arg-type]
    for name, least, _ in _UNITS:
        if middle >= least:
            words = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[name]
            return TimeFormat(name, f"timestamps are epoch {words}, such as {first}")
    return TimeFormat("order", f"timestamps are small numbers (around {middle:.0f}): they give an order, not a time")


def parse(column: pl.Series, form: TimeFormat) -> pl.Series:
    """Epoch seconds as float64, of texts or numbers; null where a text can't be read."""
    if form.name == "none":
        return pl.Series(column.name, [None] * column.len(), dtype=pl.Float64)
    typed = column.dtype.is_numeric()
    if typed and form.name == "iso":
        column, typed = column.cast(pl.String), False
    numbers = column if typed else column.str.strip_chars().cast(pl.Float64, strict=False)
    if form.name != "iso":
        scale = scale_of(form)
        return numbers / scale if scale != 1.0 else numbers
    text = column.str.strip_chars().str.replace("T", " ", literal=True).str.replace(r"\s*(Z|UTC)$", "+0000")
    frame = pl.DataFrame({"text": text})
    tries = [_try(frame, pattern) for pattern in _FORMATS]
    return pl.DataFrame(dict(enumerate_names(tries))).select(pl.coalesce(pl.all())).to_series().alias(column.name)


def scale_of(form: TimeFormat) -> float:
    """How many of the format's units are a second; 1 where it has none."""
    return {name: factor for name, _, factor in _UNITS}.get(form.name, 1.0)


def enumerate_names(columns: list[pl.Series]) -> list[tuple[str, pl.Series]]:
    """Columns with names of their own."""
    return [(f"try{place}", column) for place, column in enumerate(columns)]


def _try(frame: pl.DataFrame, pattern: str) -> pl.Series:
    expression = pl.col("text").str.to_datetime(pattern, strict=False, time_unit="us")
    return (frame.select(expression.dt.epoch("us")).to_series() / 1e6).cast(pl.Float64)
