"""What is written in pieces is read again, whatever dtype it was stored in."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tastemaker.data.pieces import piece_sizes, read_column, read_pieces, write_column, write_pieces

FLOATS = st.one_of(
    st.floats(width=64), st.integers(0, 2**33).map(float), st.floats(width=32), st.sampled_from([2.0**32 - 1, 2.0**32, 0.1, 1e39])
)
INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**33), st.sampled_from([2**32 - 1, 2**32, -1]))


@given(
    st.lists(st.tuples(FLOATS, INTEGERS, st.integers(-(2**15), 2**15 - 1), st.integers(0, 2)), max_size=30),
    st.lists(st.tuples(FLOATS, INTEGERS, st.integers(0, 300), st.integers(0, 2)), max_size=30),
)
def test_law_pieces_come_back(one: list[tuple[float, int, int, int]], two: list[tuple[float, int, int, int]]) -> None:
    with TemporaryDirectory() as name:
        folders, pieces, tables = [], [], []
        for place, rows in enumerate((one, two)):
            folders.append(Path(name) / str(place))
            tables.append(
                {
                    "time": np.array([row[0] for row in rows], dtype=np.float64),
                    "seq": np.array([row[1] for row in rows], dtype=np.int64),
                    "type": np.array([row[2] for row in rows], dtype=np.int16),
                }
            )
            pieces.append(np.array([row[3] for row in rows], dtype=np.int64))
            write_pieces(folders[-1], tables[-1], pieces[-1], 3)
        assert piece_sizes(folders).tolist() == [np.bincount(piece, minlength=3).tolist() for piece in pieces]
        for number in range(3):
            wanted = [
                {key: values[piece == number] for key, values in table.items()} for table, piece in zip(tables, pieces, strict=True)
            ]
            found = read_pieces(folders, (), number)
            assert set(found) == {"time", "seq", "type"}
            for key, values in found.items():
                same(values, np.concatenate([part[key] for part in wanted]))
            assert set(read_pieces(folders, ("time", "other"), number)) == {"time"}


def test_pages_are_saved_where_nothing_is_lost(tmp_path: Path) -> None:
    for name, values, size in (
        ("seconds", np.array([0.0, 1.6e9]), 4),
        ("halves", np.array([0.5, np.nan, -np.inf]), 4),
        ("tenths", np.array([0.1]), 8),
        ("small", np.array([0, 2**32 - 1]), 4),
        ("large", np.array([0, 2**32]), 8),
        ("negative", np.array([-1, 1]), 8),
    ):
        write_column(tmp_path, name, values)
        (path,) = tmp_path.glob(f"{name}.*")
        assert path.stat().st_size == size * len(values), name
        found = read_column(tmp_path, name)
        assert found is not None
        same(found, values)
    assert read_column(tmp_path, "none") is None


def same(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)
