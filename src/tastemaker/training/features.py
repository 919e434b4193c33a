"""What is told besides the channels: declared features over a log, a ranker's rows made of them, and what a service starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import Sequences
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.preparation import Preparation, Reduction
from tastemaker.features.state import State
from tastemaker.index.channels import Channels
from tastemaker.models.fusion import Fusion
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray, IntArray
from tastemaker.schema.settings import Settings
from tastemaker.training.holdout import Holdout
from tastemaker.training.ranker_rows import RANKER_NEGATIVES, Known, RankerRows, prepare, ranker_rows


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
        """Writes the features, their state, the preparation and the reduction."""
        folder.mkdir(parents=True, exist_ok=True)
        self.features.save(self.state, folder)
        self.preparation.save(folder)
        (folder / "text_reduction.json").write_bytes(msgspec.json.encode(self.text))


def check_features(settings: Settings) -> None:
    """Tells of mistakes in the settings before anything is trained.

    Raises:
        SettingsError: `features.use` or `sampling.ranker` names what is not known.
    """
    FeatureSet.declared(settings.features.use)
    if settings.sampling.ranker not in RANKER_NEGATIVES:
        raise SettingsError(f"sampling.ranker is {settings.sampling.ranker!r}; expected {', '.join(RANKER_NEGATIVES)}.")


def train_features(
    dataset: Dataset,
    sequences: Sequences,
    catalogue: pl.DataFrame,
    text: FloatArray,
    held: Holdout,
    channels: Channels,
    fusion: Fusion,
    user_vectors: Callable[[Sequence[IntArray]], FloatArray],
    settings: Settings,
) -> TrainedFeatures:
    """Declares the features, makes the rows, fits the preparation on them, and remembers the whole log.

    Args:
        dataset: its log is what features read. sequences: its histories.
        catalogue: one row an item, in the order of item indices. text: whitened text vectors, float32 [N, T].
        held: the questions. channels, fusion, user_vectors: of a fit that has not seen them.
        settings: sections `features`, `fusion` and `train` are read.
    """
    log = dataset.events if dataset.log is None else dataset.log
    features = FeatureSet.declared(settings.features.use, catalogue, text)
    names = catalogue["item_id"].to_list()
    known = Known(held, channels, fusion, user_vectors, log, features, text, sequences, names)
    rows, reduction = ranker_rows(known, settings)
    return TrainedFeatures(features, features.remember(log), prepare(rows, settings), reduction, rows)
