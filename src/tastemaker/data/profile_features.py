"""How features are spread, which of them say the same, and what each tells about the label."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from tastemaker.data.numbers import Numbers, numbers_of
from tastemaker.data.select import condition
from tastemaker.features.feature_set import FeatureSet
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings

LEAST = 50
"""Rows of the rarer label from which on importance is measured."""
REPEATS = 5
"""Shuffles of each feature."""
LATEST = 2_000_000
"""Events, the latest in time, from which features are counted: of a longer log the older ones are left out, and the profile says so."""
_READ = (Columns.EVENT_ID, Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, Columns.VALUE, Columns.CONTEXT)


class Feature(msgspec.Struct, kw_only=True, frozen=True):
    """One feature.

    Attributes:
        numbers: its spread.
        information: mutual information with the label, in nats; None where it was not measured, 0 where the feature never varies.
        importance: what the area under the ROC curve loses on held-back rows when the feature is shuffled there; None likewise.
    """

    name: str
    numbers: Numbers
    information: float | None = None
    importance: float | None = None

    @property
    def varies(self) -> bool:
        """False where all rows have the same number, or all have none."""
        base = self.numbers.baseline
        return base.count > 0 and (base.high > base.low or base.missing > 0)


class FeatureProfile(msgspec.Struct, kw_only=True, frozen=True):
    """All features.

    Attributes:
        rows: of the sample. positive: share of them with the label, None where there is no label.
        correlation: Spearman's rank correlation of each two features, [F][F]; a missing value ranks below all others.
        auc: of the small model by which importance is measured, on held-back rows; None where it was not measured.
        note: why something was not measured; empty where all was.
    """

    rows: int
    positive: float | None
    features: list[Feature]
    correlation: list[list[float]]
    auc: float | None = None
    note: str = ""


def features_of(timed: pl.LazyFrame, items: pl.DataFrame, settings: Settings) -> FeatureProfile | None:
    """The declared features at the moments of a sample of the events, each as of its own time; None where none are declared.

    Args:
        timed: events with a real time. items: the catalogue.
        settings: which features, how many rows, and the labels by which they are measured.
    """
    if not settings.features.use:
        return None
    total = int(timed.select(pl.len()).collect(engine="streaming").item())
    log = timed.select(_READ).top_k(LATEST, by=Columns.TIMESTAMP).collect(engine="streaming").sort(_READ[3], _READ[0])
    asked = log.sample(min(settings.profile.feature_rows, log.height), seed=settings.train.seed)
    declared = FeatureSet.declared(settings.features.use, items if items.height else None)
    labels = settings.data.positive
    label = None
    if labels:
        found = asked.select(pl.any_horizontal(*(condition(one) for one in labels)).cast(pl.Float32))
        label = found.to_series().to_numpy()
    profile = profile_features(declared.names, declared.rows(log, asked), label, settings.train.seed)
    if total > log.height:
        left = f"Features are counted from the latest {log.height:,} of {total:,} events."
        profile = msgspec.structs.replace(profile, note=f"{left} {profile.note}".strip())
    return profile


def profile_features(names: Sequence[str], values: FloatArray, label: FloatArray | None = None, seed: int = 0) -> FeatureProfile:
    """Measures features.

    Args:
        names: F names.
        values: float32 [R, F]; NaN where there is nothing to tell.
        label: float32 [R]: 1 for a positive row, 0 for another; None where there is none.
        seed: of the sampling and shuffling.
    """
    numbers = [numbers_of(pl.LazyFrame({"x": values[:, place]}), "x") for place in range(len(names))]
    note = _why_not(label)
    information: list[float | None] = [None] * len(names)
    importance: list[float | None] = [None] * len(names)
    auc = None
    if not note and label is not None and values.size:
        importlib.import_module("sklearn.ensemble")  # a library that is not loaded yet can't be limited
        information, importance = [0.0] * len(names), [0.0] * len(names)
        varying = np.flatnonzero(np.ptp(_filled(values), axis=0) > 0)
        with threadpool_limits(1):  # small pieces of work: a second thread waits longer than it works
            told = _information(values[:, varying], label, seed)
            auc, lost = _importance(values[:, varying], label, seed)
        for place, one, other in zip(varying, told, lost, strict=True):
            information[place], importance[place] = one, other
    features = [
        Feature(name=name, numbers=numbers[place], information=information[place], importance=importance[place])
        for place, name in enumerate(names)
    ]
    positive = float(label.mean()) if label is not None and len(label) else None
    return FeatureProfile(
        rows=len(values), positive=positive, features=features, correlation=_correlation(values), auc=auc, note=note
    )


def _why_not(label: FloatArray | None) -> str:
    if label is None:
        return "Without a label there is nothing to measure importance by."
    rarer = int(min((label > 0).sum(), (label <= 0).sum()))
    if rarer < LEAST:
        return f"Importance needs mixed labels: of {len(label):,} rows only {rarer:,} have the rarer one."
    if importlib.util.find_spec("sklearn") is None:
        return "Importance needs scikit-learn: pip install 'tastemaker[train]'"
    return ""


def _correlation(values: FloatArray) -> list[list[float]]:
    """C. Spearman, 1904: Pearson's correlation of the ranks, ties at their mean rank."""
    if not values.size:
        return []
    ranks = rankdata(np.where(np.isfinite(values), values, -np.inf), axis=0)
    ranks -= ranks.mean(0)
    size = np.sqrt((ranks**2).sum(0))
    unit = np.divide(ranks, size, out=np.zeros_like(ranks), where=size > 0)
    found: list[list[float]] = (unit.T @ unit).clip(-1, 1).round(6).tolist()
    return found


def _filled(values: FloatArray) -> NDArray[np.float64]:
    """Missing values take a place of their own below all others: that something is missing is told, too."""
    finite = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    with np.errstate(all="ignore"):
        low = np.where(np.isfinite(finite).any(0), np.nanmin(np.where(np.isfinite(finite).any(0), finite, 0.0), 0), 0.0)
    return np.where(np.isnan(finite), low - 1.0, finite)


def _information(values: FloatArray, label: FloatArray, seed: int) -> list[float]:
    """Mutual information by nearest neighbours (B. C. Ross, 2014)."""
    from sklearn.feature_selection import mutual_info_classif

    found: NDArray[Any] = mutual_info_classif(_filled(values), label > 0, random_state=seed)
    return [float(one) for one in found]


def _importance(values: FloatArray, label: FloatArray, seed: int) -> tuple[float, list[float]]:
    """Permutation importance (L. Breiman, 2001) of small boosted trees, on the third of the rows that they did not see."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    seen, held, told, asked = train_test_split(_filled(values), label > 0, test_size=1 / 3, random_state=seed, stratify=label > 0)
    model = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=seed).fit(seen, told)
    auc = float(roc_auc_score(asked, model.predict_proba(held)[:, 1]))
    found = permutation_importance(model, held, asked, scoring="roc_auc", n_repeats=REPEATS, random_state=seed)
    return auc, [float(one) for one in found.importances_mean]
