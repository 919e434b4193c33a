"""What names an event: its own id, or its content. A name is a 64-bit number, the same on every machine, from every kind of file and
in every version; whoever changes a constant here makes every import of the past unknown.

The numbers are made in columns: a text is read as little-endian words of 8 bytes, padded with zeros, that are folded one after the other,
and every column's word goes through the finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014) with a salt of its own; the words of a row are added. Nulls and empty texts add nothing, so a column that a file does not have is
the same as an empty one. The chance of one clash among 20 million events is about 1 in 90,000, among 100 million 1 in 3,700.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.schema.columns import EVENT_COLUMNS, Columns

Words = NDArray[np.uint64]
CONTENT_ID = "^[0-9a-f]{16}$"
"""How the id of an imported event looks that has none of its own: the number of its content."""
_BLOCK = 1 << 15
_LENGTH, _FOLD, _FIRST, _SECOND = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_WORD = np.uint64(8)
_KEEP = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)
_NAN = np.uint64(0x7FF8000000000000)
_SALTS = {name: np.uint64((place + 1) * 0x9E3779B97F4A7C15 % 2**64) for place, name in enumerate(EVENT_COLUMNS)}
_HEX = pl.Series(values=[f"{number:04x}" for number in range(1 << 16)], dtype=pl.String)


class Letters:
    """The bytes of a column of texts, read once for all that is asked of them.

    Attributes:
        sizes: bytes of each text, int64 [rows]; 0 where it is empty or null.
        ascii: whether all letters are ASCII.
        plain: whether, besides, none is a blank or a control character.
    """

    def __init__(self, column: pl.Series) -> None:
        if column.null_count():
            column = column.fill_null("")
        self.sizes: NDArray[np.int64] = column.str.len_bytes().to_numpy().astype(np.int64)
        joined: str = column.str.join("").item() if column.len() else ""
        self.ascii = joined.isascii()
        self._letters = np.frombuffer(joined.encode() + bytes(8), dtype=np.uint8)
        self.plain = self.ascii and bool(self._letters[:-8].min(initial=255) > ord(" "))

    def numbers(self) -> Words:
        """A number for each text, uint64 [rows]; 0 where it is empty or null."""
        words = np.ndarray((len(self._letters) - 7,), dtype="<u8", buffer=self._letters, strides=(1,))
        begins = np.cumsum(self.sizes) - self.sizes
        found = np.empty(len(self.sizes), dtype=np.uint64)
        for start in range(0, len(found), _BLOCK):
            stop = start + _BLOCK
            found[start:stop] = _fold(words, begins[start:stop], self.sizes[start:stop])
        return found


def text_numbers(column: pl.Series) -> Words:
    """A number for each text of a column, uint64 [rows]; 0 where the text is empty or null."""
    return Letters(column).numbers()


def content_numbers(table: pl.DataFrame, known: Mapping[str, Words] | None = None) -> Words:
    """A number for each row's content: everything but `event_id` and `seq`.

    Args:
        table: columns of events, typed as in the journal; those that are absent count as null.
        known: `text_numbers` of columns, where they have been computed.
    """
    total = np.zeros(table.height, dtype=np.uint64)
    for name in EVENT_COLUMNS:
        if name == Columns.EVENT_ID or name not in table.columns or table[name].null_count() == table.height:
            continue
        column = table[name]
        if column.dtype == pl.String:
            numbers = known[name] if known is not None and name in known else text_numbers(column)
            silent = numbers == 0
        else:
            numbers, silent = _bits(column), column.is_null().to_numpy()
        numbers = mixed(numbers + _SALTS[name])
        if silent.any():
            numbers[silent] = 0
        total += numbers
    return mixed(total)


def id_numbers(names: pl.Series) -> Words:
    """Numbers of event ids: 16 hexadecimal digits are a content's number already, any other id is hashed."""
    ours = names.str.contains(CONTENT_ID).fill_null(False)
    numbers = np.empty(names.len(), dtype=np.uint64)
    numbers[ours.to_numpy()] = names.filter(ours).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
    if not ours.all():
        numbers[~ours.to_numpy()] = mixed(text_numbers(names.filter(~ours)) + _SALTS[Columns.EVENT_ID])
    return numbers


def hexadecimal(numbers: pl.Series) -> pl.Series:
    """The ids of contents as 16 hexadecimal digits; null where the number is null."""
    known = numbers.fill_null(0)
    parts = {str(shift): _HEX.gather((known // (1 << shift) % (1 << 16)).cast(pl.UInt32)) for shift in (48, 32, 16, 0)}
    texts = pl.DataFrame(parts).select(pl.concat_str(pl.all())).to_series()
    return texts.set(numbers.is_null(), None) if numbers.null_count() else texts


def mixed(numbers: Words) -> Words:
    """The finaliser of splitmix64, uint64 [rows]: every bit of the input moves every bit of the output."""
    found = np.empty_like(numbers)
    for start in range(0, len(numbers), _BLOCK):
        block = numbers[start : start + _BLOCK].copy()
        for shift, factor in ((30, _FIRST), (27, _SECOND)):
            block ^= block >> np.uint64(shift)
            block *= factor
        block ^= block >> np.uint64(31)
        found[start : start + _BLOCK] = block
    return found


def _fold(words: Words, begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> Words:
    state = sizes.astype(np.uint64) * _LENGTH
    rows: NDArray[np.int64] | slice = slice(None)
    last = len(words) - 1
    for done in range(0, int(sizes.max(initial=0)), 8):
        left = sizes[rows] - done
        if done and not (left > 0).all():
            rows = np.flatnonzero(sizes > done)
            left = sizes[rows] - done
        word = words[np.minimum(begins[rows] + done, last)] & _KEEP[np.minimum(left, 8)]
        word ^= state[rows]
        word *= _FOLD
        word ^= word >> np.uint64(32)
        word *= _FIRST
        state[rows] = word ^ (word >> np.uint64(29))
    state[sizes == 0] = 0
    return state


def _bits(column: pl.Series) -> Words:
    """The bits of a number as float64, one kind of zero and one kind of NaN."""
    values = column.cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0
    found = values.view(np.uint64)
    odd = np.isnan(values)
    if odd.any():
        found[odd] = _NAN
    return found
