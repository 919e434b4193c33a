"""The catalogue's items become vectors, signal by signal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tastemaker.data.dataset import Dataset
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.signals import Signal, Signals
from tastemaker.training.holdout import Holdout
from tastemaker.training.reading import ReadTexts, read_texts


@dataclass(frozen=True)
class ReadSignals:
    """What the items became.

    Attributes:
        signals: one vector an item and signal.
        texts: what made the text vectors, and what reads new texts.
        metrics: figures of the reading. notes: sentences for whoever trains.
    """

    signals: Signals
    texts: ReadTexts
    metrics: dict[str, float | int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_signals(
    dataset: Dataset,
    settings: Settings,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    held: Holdout | None = None,
    run_dir: Path | None = None,
) -> ReadSignals:
    """Reads all that is known of the items besides their events; arguments as those of `reading.read_texts`."""
    texts = read_texts(dataset.catalogue(), settings, cache_dir, progress, held, run_dir)
    others: list[Signal] = []
    return ReadSignals(Signals.of(texts.vectors, *others), texts, texts.metrics, texts.notes)
