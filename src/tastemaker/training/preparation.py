"""Fits what stands between raw features and a ranker: scaling, selection, dimension reduction. Training rows only; the fit is stored in the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.features.preparation import POINTS, SCALINGS, Column, Preparation, Reduction, Scaler, Verdict, signed_log
from tastemaker.schema.errors import SettingsError

MOST_ROWS = 20_000
SHADOWS, SPREADS = 20, 3.0
"""A column's information must lie this many standard deviations above what it has of so many shuffled labels."""
BINS = 32
"""Equally filled bins of a column whose information on the label is asked for."""
NEAR_CONSTANT = 0.999
SAME = 0.999
LATER_SHARE = 0.25
SHUFFLES = 5
NEGLIGIBLE = 1e-3
"""AUC that a column must be worth on later rows, or its information must stand out from that of shuffled labels."""
HEAVY_TAIL = 3.0
OUTLIERS = 10.0

FloatTable = NDArray[np.float32]


def fit_preparation(
    names: Sequence[str],
    values: FloatTable,
    label: FloatTable | None = None,
    scaling: str = "auto",
    select: bool = True,
    seed: int = 0,
) -> Preparation:
    """Chooses the columns and their scaling.

    Args:
        names, values: raw columns, float32 [R, F]; rows in the order of time.
        label: 1 where the row was a positive one, else 0, [R]; None: columns are judged without it.
        scaling: one of `SCALINGS`, or `auto`: by each column's own shape.
        select: False keeps every column that is not constant.
        seed: of the sample and the shuffles.

    Raises:
        SettingsError: an unknown scaling.
    """
    if scaling not in (*SCALINGS, "auto"):
        raise SettingsError(f"features.scaling is {scaling!r}; expected auto, {', '.join(SCALINGS[:-1])} or none.")
    sample = np.sort(np.random.default_rng(seed).permutation(len(values))[:MOST_ROWS])
    table = values[sample].astype(np.float64)
    table = np.where(np.isfinite(table), table, np.nan)
    dropped = _without_news(names, table, select)
    left = [place for place in range(len(names)) if place not in dropped]
    columns = {place: fit_column(table[:, place], place, scaling) for place in left}
    wanted = label[sample] if label is not None else None
    told = (
        _told(names, table, wanted, left, columns, seed)
        if select and wanted is not None and len(wanted) and 0 < wanted.mean() < 1
        else {}
    )
    for place, (information, importance, noise) in told.items():
        if information <= noise and importance <= NEGLIGIBLE:
            dropped[place] = (
                "says nothing of the label: no more than of shuffled labels, and later rows are ranked as well without it"
            )
    verdicts = []
    for place, name in enumerate(names):
        spoke = told.get(place)
        reason = dropped.get(place) or ("tells of the label" if spoke else "varies")
        kind = columns[place].scaling if place in columns else "none"
        verdict = Verdict(
            name=name,
            kept=place not in dropped,
            reason=reason,
            scaling=kind,
            mutual_information=spoke and spoke[0],
            importance=spoke and spoke[1],
        )
        verdicts.append(verdict)
    return Preparation(names=list(names), columns=[columns[place] for place in left if place not in dropped], verdicts=verdicts)


def fit_column(values: NDArray[np.float64], place: int, scaling: str = "auto") -> Column:
    """The scaling of one column; NaN is what is missing.

    z-score: mean and standard deviation. robust: median and interquartile range / 1.349 (a normal distribution's standard deviation).
    log: z-score of sign(x)·log(1 + |x|). quantile: the place among 101 quantiles, in [-1, 1].
    """
    present = values[~np.isnan(values)]
    if not len(present):
        return Column(place=place, scaling="none")
    column = _scaled_by(present, place, scaling)
    told = Scaler(Preparation(names=[""], columns=[msgspec.structs.replace(column, place=0)])).apply(present[:, None])
    return msgspec.structs.replace(column, low=float(told.min()), high=float(told.max()))


def _scaled_by(present: NDArray[np.float64], place: int, scaling: str) -> Column:
    """How present values are scaled."""
    kind = _shape(present) if scaling == "auto" else scaling
    fill = float(np.median(present))
    if kind == "quantile":
        return Column(place=place, scaling=kind, fill=fill, points=np.quantile(present, np.linspace(0, 1, POINTS)).tolist())
    if kind == "none":
        return Column(place=place, scaling=kind, fill=fill)
    inner = signed_log(present) if kind == "log" else present
    centre, scale = float(inner.mean()), float(inner.std())
    if kind == "robust":
        low, centre, high = (float(point) for point in np.quantile(inner, (0.25, 0.5, 0.75)))
        scale = (high - low) / 1.349 or scale
    return Column(place=place, scaling=kind, fill=fill, centre=centre, scale=scale or 1.0)


def fit_reduction(name: str, values: Any, most: int, share: float = 0.9, seed: int = 0) -> Reduction:
    """The fewest columns that keep `share` of the variance, at most `most`: PCA of a dense table, truncated SVD of a sparse one.

    Args:
        name: prefix of the new columns.
        values: dense float32 [R, W] or scipy sparse [R, W].
        most: of the new columns. share: of the variance, in [0, 1].
    """
    import scipy.sparse as sp
    from sklearn.decomposition import PCA, TruncatedSVD

    rows, width = values.shape
    most = min(most, width - 1 if sp.issparse(values) else width, rows)
    if most < 1:
        return Reduction(name=name, mean=[0.0] * width, components=[], explained=[])
    model = TruncatedSVD(most, random_state=seed) if sp.issparse(values) else PCA(most, random_state=seed)
    model.fit(values)
    explained = np.nan_to_num(model.explained_variance_ratio_)
    count = min(int(np.searchsorted(np.cumsum(explained), share)) + 1, most)
    mean = np.zeros(width) if sp.issparse(values) else model.mean_
    return Reduction(
        name=name, mean=mean.tolist(), components=model.components_[:count].tolist(), explained=explained[:count].tolist()
    )


def _shape(present: NDArray[np.float64]) -> str:
    """Which scaling suits a column: none for two values, log for a long right tail, robust for far outliers, else z-score."""
    if len(np.unique(present[:1_000])) <= 2 and len(np.unique(present)) <= 2:
        return "none"
    spread = present.std()
    skew = float(np.mean(((present - present.mean()) / spread) ** 3)) if spread > 0 else 0.0
    if skew > HEAVY_TAIL and present.min() >= 0:
        return "log"
    low, middle, high = np.quantile(present, (0.25, 0.5, 0.75))
    return "robust" if high > low and np.abs(present - middle).max() > OUTLIERS * (high - low) else "zscore"


def _without_news(names: Sequence[str], table: NDArray[np.float64], select: bool) -> dict[int, str]:
    """Columns that say nothing, or nothing new, whatever the label: place to reason."""
    dropped: dict[int, str] = {}
    filled = np.where(np.isnan(table), -1.0, table)
    for place in range(len(names)):
        _, counts = np.unique(filled[:, place], return_counts=True)
        if not len(counts) or counts.max() == len(filled):
            dropped[place] = "constant"
        elif select and counts.max() > NEAR_CONSTANT * len(filled):
            dropped[place] = f"near-constant: {counts.max() / len(filled):.2%} of the rows have one value"
    if not select:
        return dropped
    ranked = np.stack([np.unique(column, return_inverse=True)[1] for column in filled.T], axis=1) if len(filled) else filled
    ranked = ranked - ranked.mean(axis=0, keepdims=True)
    ranked = ranked / np.maximum(np.sqrt((ranked**2).sum(axis=0, keepdims=True)), 1e-12)
    alike = np.abs(ranked.T @ ranked)
    for place in range(len(names)):
        twins = [other for other in range(place) if other not in dropped and alike[place, other] > SAME]
        if place not in dropped and twins:
            dropped[place] = f"says the same as {names[twins[0]]} (rank correlation {alike[place, twins[0]]:.4f})"
    return dropped


def _told(
    names: Sequence[str],
    table: NDArray[np.float64],
    label: FloatTable,
    left: list[int],
    columns: dict[int, Column],
    seed: int,
) -> dict[int, tuple[float, float, float]]:
    """Mutual information with the label, permutation importance on later rows, and what information with a shuffled label comes to."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.inspection import permutation_importance

    ready = Preparation(names=list(names), columns=[columns[place] for place in left]).apply(table)
    random, wanted = np.random.default_rng(seed), label > 0
    cells = [_cells(column) for column in ready.T]
    information = [_information(cell, wanted) for cell in cells]
    shuffled = [random.permutation(wanted) for _ in range(SHADOWS)]
    shadow = np.array([[_information(cell, other) for other in shuffled] for cell in cells]).reshape(len(cells), SHADOWS)
    noise = shadow.mean(axis=1) + SPREADS * shadow.std(axis=1)
    cut = round(len(ready) * (1 - LATER_SHARE))
    importance = np.zeros(len(left))
    if 0 < wanted[:cut].mean() < 1 and 0 < wanted[cut:].mean() < 1:
        model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, random_state=seed).fit(ready[:cut], wanted[:cut])
        found = permutation_importance(model, ready[cut:], wanted[cut:], scoring="roc_auc", n_repeats=SHUFFLES, random_state=seed)
        importance = found.importances_mean - found.importances_std
    return {place: (information[at], float(importance[at]), float(noise[at])) for at, place in enumerate(left)}


def _cells(column: FloatTable) -> NDArray[np.int64]:
    """Which of `BINS` equally filled bins each value falls into, [R]; equal values share a bin."""
    edges = np.unique(np.quantile(column, np.arange(1, BINS) / BINS))
    return np.searchsorted(edges, column, side="left")


def _information(cells: NDArray[np.int64], wanted: NDArray[np.bool_]) -> float:
    """Mutual information of bins and the label, in nats.

    Nearest neighbours (Ross 2014) need no bins, but a second a column; what bins lose is less than the noise, which is measured the same way.
    """
    from sklearn.metrics import mutual_info_score

    counts = np.bincount(2 * cells + wanted, minlength=2 * BINS).reshape(-1, 2)
    return float(mutual_info_score(None, None, contingency=counts))
