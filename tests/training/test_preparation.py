"""Scaling, selection and reduction: fitted once, applied by the same lines everywhere, with a reason for every column."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tastemaker.features.preparation import FARTHEST, SCALINGS, Preparation
from tastemaker.schema.errors import SettingsError
from tastemaker.training.preparation import fit_preparation, fit_reduction

ROWS = 3_000
NAMES = ["told", "told_squeezed", "noise", "still", "rare", "money", "wild", "flag"]


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray]:
    """One column that tells the label, its monotone twin, noise, a constant, a near-constant, a long tail, outliers, a flag."""
    random = np.random.default_rng(0)
    told = random.normal(size=ROWS)
    label = (told + 0.5 * random.normal(size=ROWS) > 0).astype(np.float32)
    rare = np.zeros(ROWS)
    rare[:2] = 5
    money = np.exp(random.normal(3, 1.5, ROWS) + told)
    wild = random.normal(size=ROWS) + label
    wild[:20] = 1e6
    flag = (random.random(ROWS) < 0.2 + 0.6 * label).astype(float)
    columns = [told, np.tanh(told), random.normal(size=ROWS), np.ones(ROWS), rare, money, wild, flag]
    return np.stack(columns, axis=1).astype(np.float32), label


def test_each_column_is_kept_or_dropped_for_a_reason(world: tuple[np.ndarray, np.ndarray]) -> None:
    values, label = world
    found = {verdict.name: verdict for verdict in fit_preparation(NAMES, values, label).verdicts}
    assert list(found) == NAMES
    assert found["told"].kept
    assert found["told"].importance is not None
    assert found["told"].importance > 0.05
    assert not found["told_squeezed"].kept
    assert "the same as told" in found["told_squeezed"].reason
    assert not found["noise"].kept
    assert "shuffled" in found["noise"].reason
    assert (found["still"].kept, found["still"].reason) == (False, "constant")
    assert not found["rare"].kept
    assert "near-constant" in found["rare"].reason
    assert found["wild"].kept
    assert found["flag"].kept
    assert [found[name].scaling for name in ("told", "money", "wild", "flag")] == ["zscore", "log", "robust", "none"]
    every = fit_preparation(NAMES, values, label, select=False)
    assert every.kept == [name for name in NAMES if name != "still"], "without selection only the constant goes"


def test_scalings_mean_what_they_say(world: tuple[np.ndarray, np.ndarray]) -> None:
    values = world[0][:, [0, 5]]
    for scaling in ("zscore", "log"):
        ready = fit_preparation(["a", "b"], values, scaling=scaling).apply(values)
        inner = np.sign(values) * np.log1p(np.abs(values)) if scaling == "log" else values
        np.testing.assert_allclose(ready, np.clip((inner - inner.mean(0)) / inner.std(0), -FARTHEST, FARTHEST), atol=1e-3)
    ready = fit_preparation(["a", "b"], values, scaling="quantile").apply(values)
    assert np.abs(np.sort(ready[:, 1]) - np.linspace(-1, 1, ROWS)).max() < 0.02, "quantiles are spread evenly"
    ready = fit_preparation(["a", "b"], values, scaling="robust").apply(values)
    np.testing.assert_allclose(np.median(ready, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.quantile(ready, 0.75, axis=0) - np.quantile(ready, 0.25, axis=0), 1.349, rtol=1e-3)
    with pytest.raises(SettingsError, match="expected auto, zscore"):
        fit_preparation(["a"], values[:, :1], scaling="minmax")


@given(
    values=hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(width=32)),
    scaling=st.sampled_from(["auto", "zscore", "robust", "log", "quantile", "none"]),
)
def test_law_whatever_comes_is_finite_and_a_row_alone_is_the_row_in_the_table(values: np.ndarray, scaling: str) -> None:
    ready = fit_preparation(["a", "b", "c"], values, scaling=scaling, select=False)
    whole = ready.apply(values)
    assert np.isfinite(whole).all()
    assert (np.abs(whole) <= FARTHEST).all()
    for row in range(len(values)):
        np.testing.assert_array_equal(ready.apply(values[row : row + 1]), whole[row : row + 1])


def test_what_is_saved_is_applied_alike(world: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    ready = fit_preparation(NAMES, *world)
    ready.save(tmp_path)
    again = Preparation.load(tmp_path)
    assert again == ready
    np.testing.assert_array_equal(again.apply(world[0]), ready.apply(world[0]))
    with pytest.raises(ValueError, match="expected \\[rows, 8\\]"):
        again.apply(world[0][:, :3])


def test_reduction_finds_the_planted_directions() -> None:
    random = np.random.default_rng(1)
    inner = random.normal(size=(500, 3)) * [5, 3, 2]
    wide = (inner @ np.linalg.qr(random.normal(size=(40, 3)))[0].T + 0.01 * random.normal(size=(500, 40)) + 7).astype(np.float32)
    found = fit_reduction("text", wide, most=10, share=0.99)
    assert found.names == ["text_0", "text_1", "text_2"]
    assert sum(found.explained) > 0.99
    ready = found.apply(wide)
    np.testing.assert_allclose(ready.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(ready.var(axis=0) / wide.var(axis=0).sum(), found.explained, rtol=1e-2)
    np.testing.assert_allclose(found.apply(wide[3:4]), ready[3:4], rtol=1e-4, atol=1e-4)


def test_a_sparse_table_is_reduced_without_being_filled() -> None:
    random = np.random.default_rng(2)
    groups = random.integers(0, 2, 400)
    wide = sp.csr_matrix(
        (np.ones(1_200), (np.repeat(np.arange(400), 3), (groups[:, None] * 25 + random.integers(0, 25, (400, 3))).ravel()))
    )
    found = fit_reduction("category", wide.astype(np.float32), most=4)
    first, second = found.apply(wide)[:, :2].T
    side = first - second if abs(np.corrcoef(first, groups)[0, 1]) < abs(np.corrcoef(second, groups)[0, 1]) else first
    assert max(abs(np.corrcoef(column, groups)[0, 1]) for column in (first, second, side)) > 0.9, "the two groups lie apart"
    assert found.mean == [0.0] * wide.shape[1]
    assert fit_reduction("none", np.zeros((0, 5), np.float32), most=3).names == []


@pytest.mark.parametrize("scaling", [one for one in SCALINGS if one != "none"])
def test_what_training_never_saw_is_read_as_the_nearest_that_it_saw(scaling: str, tmp_path: Path) -> None:
    """Histories of training were 7 to 9 long: one of a single event tells a ranker no more than one of 7."""
    values = np.random.default_rng(0).uniform(7, 9, (200, 2)).astype(np.float32)
    fitted = fit_preparation(["history", "other"], values, scaling=scaling, select=False)
    asked = np.array([[1.0, 8.0], [values[:, 0].min(), 8.0], [8.0, 8.0], [values[:, 0].max(), 8.0], [1e9, 8.0]], dtype=np.float32)
    told = fitted.apply(asked)
    assert told[0].tolist() == told[1].tolist()
    assert told[4].tolist() == told[3].tolist()
    assert told[1, 0] < told[2, 0] < told[3, 0]
    assert np.ptp(told[:, 1]) == 0
    fitted.save(tmp_path)
    assert (Preparation.load(tmp_path).apply(asked) == told).all()
    before = msgspec.json.decode((tmp_path / "preparation.json").read_bytes())
    for column in before["columns"]:
        del column["low"], column["high"]
    (tmp_path / "preparation.json").write_bytes(msgspec.json.encode(before))  # as bundles were before ranges were kept
    assert Preparation.load(tmp_path).apply(asked)[1:4].tolist() == told[1:4].tolist()
