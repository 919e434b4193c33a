"""What is told besides the channels: declared features over a log, a ranker's rows made of them, and what a service starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import Sequences
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.preparation import Preparation, Reduction
from tastemaker.features.state import State
from tastemaker.models.fusion import Fusion
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings
from tastemaker.training.alignment import rotation
from tastemaker.training.parts import Fit
from tastemaker.training.preparation import fit_reduction
from tastemaker.training.ranker_rows import RANKER_NEGATIVES, Known, RankerRows, prepare, ranker_rows

QUESTIONS, QUESTIONS_BY_TIME = 20_000, 2_000
"""Last events that a ranker learns from and is judged by where the settings name no number: drawn by the seed, and the latest."""


@dataclass(frozen=True)
class TrainedFeatures:
    """Features with their memory of the whole log, and how a ranker reads them.

    Attributes:
        features, state: what a service starts from.
        preparation: of the rows' columns. text: the reduction of text vectors.
        rows: what a ranker can learn from.
    """

    features: FeatureSet
    state: State
    preparation: Preparation
    text: Reduction
    rows: RankerRows

    def table(self) -> pl.DataFrame:
        """The rows with their prepared columns."""
        return self.rows.table(self.preparation)

    def export(self, folder: Path) -> None:
        """Writes the features and their state: what a service goes on from."""
        folder.mkdir(parents=True, exist_ok=True)
        self.features.save(self.state, folder)


def check_features(settings: Settings) -> None:
    """Tells of mistakes in the settings before anything is trained.

    Raises:
        SettingsError: `features.use` or `sampling.ranker` names what is not known.
    """
    FeatureSet.declared(settings.features.use)
    if settings.sampling.ranker not in RANKER_NEGATIVES:
        raise SettingsError(f"sampling.ranker is {settings.sampling.ranker!r}; expected {', '.join(RANKER_NEGATIVES)}.")


@dataclass(frozen=True)
class LearnedRows:
    """A ranker's rows and how their columns are read.

    Attributes:
        rows, preparation, text: as in `TrainedFeatures`.
        features: declared over the catalogue; None where the log has no times. log: every event.
    """

    rows: RankerRows
    preparation: Preparation
    text: Reduction
    features: FeatureSet | None
    log: pl.DataFrame

    def remembered(self) -> TrainedFeatures | None:
        """The features with their memory of the whole log; None where there are none."""
        if self.features is None:
            return None
        return TrainedFeatures(self.features, self.features.remember(self.log), self.preparation, self.text, self.rows)


def learn_rows(
    dataset: Dataset,
    sequences: Sequences,
    catalogue: pl.DataFrame,
    text: FloatArray,
    early: Fit,
    fusion: Fusion,
    settings: Settings,
    later: Fit | None = None,
) -> LearnedRows:
    """Declares the features, makes the rows, and fits the preparation on those that may be learned from.

    Args:
        dataset: its log is what features read. sequences: its histories.
        catalogue: one row an item, in the order of item indices. text: whitened text vectors, float32 [N, T].
        early, fusion: of a fit that has not seen the last events of each user.
        settings: sections `features`, `fusion`, `ranker`, `sampling` and `train` are read.
        later: a fit that knows nothing of what anybody did after a moment; its questions are joined to the others. User vectors are turned into the
            frame of `early`.
    """
    log = dataset.events if dataset.log is None else dataset.log
    features = None if dataset.time_is_order else FeatureSet.declared(settings.features.use, catalogue, text)
    names = catalogue["item_id"].to_list()
    reduction = fit_reduction("text_part", text, settings.features.text_columns, seed=settings.train.seed)

    def known(fit: Fit) -> Known:
        return Known(fit.held, fit.channels, fusion, fit.model.user_vectors, log, features, text, sequences, names)

    by_time = features is not None and later is None
    questions = settings.ranker.questions or (QUESTIONS_BY_TIME if by_time else QUESTIONS)
    rows = ranker_rows(known(early), reduction, questions, settings, by_time)
    if later is not None:
        more = ranker_rows(known(later), reduction, settings.ranker.later_questions, settings, True, True)
        met = later.held.train.counts() > 0
        turn = rotation(early.channels.items.rows(np.flatnonzero(met)), later.channels.items.rows(np.flatnonzero(met)))
        rows = rows.joined(replace(more, users=more.users @ turn))
    return LearnedRows(rows, prepare(rows, settings), reduction, features, log)
