"""The catalogue's items become vectors, signal by signal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tastemaker.data.dataset import Dataset
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.signals import AUDIO, IMAGE, Signals
from tastemaker.training.holdout import Holdout
from tastemaker.training.media import ReadMedia, read_media
from tastemaker.training.reading import ReadTexts, read_texts


@dataclass(frozen=True)
class ReadSignals:
    """What the items became.

    Attributes:
        signals: one vector an item and signal.
        texts: what made the text vectors, and what reads new texts.
        media: what made the vectors of pictures and sounds, and what reads new ones.
        metrics: figures of the reading. notes: sentences for whoever trains.
    """

    signals: Signals
    texts: ReadTexts
    media: tuple[ReadMedia, ...] = ()
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
    catalogue = dataset.catalogue()
    texts = read_texts(catalogue, settings, cache_dir, progress, held, run_dir)
    media = [read_media(name, catalogue, settings, cache_dir, progress, held) for name in (IMAGE, AUDIO)]
    metrics, notes = dict(texts.metrics), list(texts.notes)
    for one in media:
        metrics |= one.metrics
        notes += one.notes
    found = tuple(one for one in media if one.signal is not None)
    others = [one.signal for one in found if one.signal is not None]
    return ReadSignals(Signals.of(texts.vectors, *others), texts, found, metrics, notes)
