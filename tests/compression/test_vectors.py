"""Codes of item vectors find what the vectors find, in fewer bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tastemaker.compression.vectors import product_codes, recall
from tastemaker.index.coded import Bytes, Plain, Product, load
from tastemaker.index.exact import DenseIndex


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """Unit rows in clusters, as learned vectors are."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 64))
    rows = centres[random.integers(0, 40, 2_000)] + 0.7 * random.normal(size=(2_000, 64))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_quarter_of_the_bytes_finds_the_same(table: np.ndarray, tmp_path: Path) -> None:
    codes = Bytes.of(table)
    codes.save(tmp_path, "items")
    found = load(tmp_path, "items")
    assert isinstance(found, Bytes)
    assert (tmp_path / "items.int8.npy").stat().st_size < table.nbytes / 4 + 200
    assert recall(table, found, 0) >= 0.97
    assert np.abs(found.scores(table[:5]) - table[:5] @ table.T).max() < 0.02
    assert np.allclose(found.rows(np.array([7, 3])), table[[7, 3]], atol=0.01)
    assert found.shape == table.shape


def test_a_sixteenth_is_scanned_and_the_best_are_scored_again(table: np.ndarray, tmp_path: Path) -> None:
    exact = Bytes.of(table)
    exact.save(tmp_path, "items")
    product_codes(table, exact, 0).save(tmp_path, "items")
    found = load(tmp_path, "items")
    assert isinstance(found, Product)
    assert found.scanned == table.shape[1] * 4 // 16
    assert recall(table, found, 0) >= 0.96
    rough = np.mean([len(np.intersect1d(np.argsort(-a)[:100], np.argsort(-b)[:100])) for a, b in
                     zip(found.rough(table[:50]), table[:50] @ table.T, strict=True)])  # fmt: skip
    assert rough < 95, "the codes alone are not enough: scoring again is what finds the rest"


def test_vectors_of_an_odd_length_and_few_rows() -> None:
    few = np.random.default_rng(1).normal(size=(20, 7)).astype(np.float32)
    found = product_codes(few, Bytes.of(few), 0)
    assert np.abs(found.scores(few) - few @ few.T).max() < 0.2
    nothing = Bytes.of(np.zeros((3, 4), np.float32))
    assert not nothing.scores(np.ones((1, 4), np.float32)).any()
    assert Bytes.of(np.zeros((0, 4), np.float32)).scores(np.ones((2, 4), np.float32)).shape == (2, 0)


def test_rows_can_be_added_and_replaced_over_codes(table: np.ndarray) -> None:
    for base in (Bytes.of(table), Plain(table)):
        index = DenseIndex(base)
        assert index.append(table[0]) == len(table)
        index.replace(5, table[1])
        scores = index.scores(table[:1])
        assert scores[0, len(table)] == pytest.approx(1, abs=0.01)
        assert scores[0, 5] == pytest.approx(table[0] @ table[1], abs=0.01)
        assert np.allclose(index.rows(np.array([5, len(table)])), table[[1, 0]])
