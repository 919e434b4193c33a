"""From a table of feature columns to what a ranker reads: chosen, scaled, reduced. NumPy only: it answers live with the numbers of training.

Fitted by `training.preparation` on training rows alone, stored in the bundle, applied here, offline and online by the same lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

SCALINGS = ("zscore", "robust", "log", "quantile", "none")
FARTHEST = 10.0
"""Scaled values beyond this are cut, whatever training saw: an outlier of the day may not decide alone."""
POINTS = 101


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Why a column was kept or dropped.

    Attributes:
        name: the column.
        kept: True if the ranker reads it.
        reason: in plain words.
        scaling: how it is scaled; one of `SCALINGS`.
        mutual_information: with the label, in nats; None where it was not asked for.
        importance: loss of AUC on later rows when the column is shuffled; None where it was not asked for.
    """

    name: str
    kept: bool
    reason: str
    scaling: str = "none"
    mutual_information: float | None = None
    importance: float | None = None


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """How one kept column is scaled: (f(x) - centre) / scale, or its place among `points` quantiles.

    Attributes:
        place: among the raw columns.
        scaling: one of `SCALINGS`.
        fill: the raw number that stands for what is not finite.
        centre, scale: of the (logarithmic, for `log`) value.
        points: quantiles 0 % to 100 %, for `quantile`.
        low, high: the least and the largest scaled value of training; what lies beyond is read as these, as nothing was learned there.
    """

    place: int
    scaling: str
    fill: float = 0.0
    centre: float = 0.0
    scale: float = 1.0
    points: list[float] = []
    low: float = -FARTHEST
    high: float = FARTHEST


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted.

    Attributes:
        names: of the raw columns, in order.
        columns: those that are kept.
        verdicts: one for each raw column.
    """

    names: list[str]
    columns: list[Column]
    verdicts: list[Verdict] = []

    @property
    def kept(self) -> list[str]:
        """Names of the columns that `apply` gives."""
        return [self.names[column.place] for column in self.columns]

    def apply(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Scaled columns, float32 [R, K], always finite, within ±10 and within what training saw.

        Args:
            values: raw columns in the order of `names`, [R, F].

        Raises:
            ValueError: the table has another width.
        """
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise ValueError(f"features have the shape {values.shape}; expected [rows, {len(self.names)}]: {', '.join(self.names)}")
        return Scaler(self).apply(values)

    def save(self, folder: Path) -> None:
        """Writes `preparation.json`."""
        (folder / "preparation.json").write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Preparation:
        """Reads what `save` wrote."""
        return msgspec.json.decode((folder / "preparation.json").read_bytes(), type=cls)


class Scaler:
    """A preparation with its numbers as arrays, for those who apply it again and again."""

    def __init__(self, preparation: Preparation) -> None:
        columns = preparation.columns
        self._names = preparation.names
        self._places = np.array([column.place for column in columns], dtype=np.int64)
        self._whole = self._places.tolist() == list(range(len(self._names)))
        self._fill = np.array([column.fill for column in columns])
        self._centre, self._scale = np.array([[column.centre, column.scale] for column in columns]).reshape(-1, 2).T
        self._logs = [at for at, column in enumerate(columns) if column.scaling == "log"]
        self._quantiles = [(at, np.asarray(column.points)) for at, column in enumerate(columns) if column.scaling == "quantile"]
        bounds = [(max(column.low, -FARTHEST), min(column.high, FARTHEST)) for column in columns]
        self._low, self._high = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
        plain = not self._centre.any() and bool((self._scale == 1).all())
        self._same = plain and not self._logs and not self._quantiles
        if self._same:  # what is compared stays float32
            self._low, self._high = self._low.astype(np.float32), self._high.astype(np.float32)

    def apply(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """As `Preparation.apply`."""
        if values.ndim != 2 or values.shape[1] != len(self._names):
            raise ValueError(
                f"features have the shape {values.shape}; expected [rows, {len(self._names)}]: {', '.join(self._names)}"
            )
        raw: NDArray[Any] = values if self._whole else values[:, self._places]
        if not self._same:
            raw = raw.astype(np.float64)
        finite = np.isfinite(raw)
        if np.count_nonzero(finite) != finite.size:
            raw = np.where(finite, raw, self._fill)
        if self._logs:
            raw[:, self._logs] = signed_log(raw[:, self._logs])
        found = raw.astype(np.float32) if self._same else (raw - self._centre) / self._scale
        for at, points in self._quantiles:
            found[:, at] = 2 * np.interp(raw[:, at], points, np.linspace(0, 1, len(points))) - 1
        np.minimum(np.maximum(found, self._low, out=found), self._high, out=found)
        return found.astype(np.float32, copy=False)


def signed_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """sign(x) · log(1 + |x|)."""
    return np.sign(values) * np.log1p(np.abs(values))


class Reduction(msgspec.Struct, frozen=True, kw_only=True):
    """A wide table reduced to few columns: (x - mean) · components.

    Attributes:
        name: prefix of the columns.
        mean: [W]; zeros for a truncated SVD.
        components: [K][W].
        explained: share of the variance that each column keeps, in [0, 1].
    """

    name: str
    mean: list[float]
    components: list[list[float]]
    explained: list[float]

    @property
    def names(self) -> list[str]:
        """Names of the columns that `apply` gives."""
        return [f"{self.name}_{place}" for place in range(len(self.components))]

    def apply(self, values: Any) -> NDArray[np.float32]:
        """Reduced columns, float32 [R, K].

        Args:
            values: dense or scipy sparse table, [R, W].
        """
        return Reducer(self).apply(values)


class Reducer:
    """A reduction with its numbers as arrays, for those who apply it again and again."""

    def __init__(self, reduction: Reduction) -> None:
        mean = np.asarray(reduction.mean, dtype=np.float32)
        self._components = np.asarray(reduction.components, dtype=np.float32).reshape(len(reduction.components), len(mean)).T
        self._shift = mean @ self._components

    def apply(self, values: Any) -> NDArray[np.float32]:
        """As `Reduction.apply`."""
        found = np.asarray(values @ self._components, dtype=np.float32) - self._shift
        return np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def names_of(reductions: Sequence[Reduction]) -> list[str]:
    """Names of all reduced columns, in order."""
    return [name for reduction in reductions for name in reduction.names]
