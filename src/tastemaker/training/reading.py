"""The catalogue's texts become vectors: the language model as it is, or tuned on the histories first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from tastemaker.data.searches import Searches
from tastemaker.models.text import Whitening
from tastemaker.models.text_template import fill
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import Settings
from tastemaker.training.encoder import Encoder, Spread, encode_cached, load_encoder, unknown_share
from tastemaker.training.finetune import finetune
from tastemaker.training.holdout import Holdout
from tastemaker.training.text_judge import power_scores
from tastemaker.training.together import Launch
from tastemaker.training.trainable import check_mode

MANY_UNKNOWN = 0.2


@dataclass(frozen=True)
class ReadTexts:
    """What the catalogue's texts became.

    Attributes:
        vectors: whitened, unit rows, float32 [N, T]; zero rows where there is no text, a column of zeros where there is none at all.
        encoder, whitening: what made them, and what reads new items; None where there is no text at all.
        metrics: figures of the tuning, share of unknown tokens.
        notes: sentences for whoever trains.
    """

    vectors: FloatArray
    encoder: Encoder | None = None
    whitening: Whitening | None = None
    metrics: dict[str, float | int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def item_texts(catalogue: pl.DataFrame, template: str) -> list[str]:
    """Each item as a text; empty where it has no words."""
    columns = (catalogue[name].to_list() for name in (Columns.TITLE, Columns.TEXT, Columns.CATEGORIES))
    return [fill(template, *words) for words in zip(*columns, strict=True)]


def read_texts(
    catalogue: pl.DataFrame,
    settings: Settings,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    held: Holdout | None = None,
    run_dir: Path | None = None,
    searches: Searches | None = None,
    launch: Launch | None = None,
    spread: Spread | None = None,
) -> ReadTexts:
    """Reads a catalogue; tunes the language model before, where `finetune.mode` says so and a holdout is given.

    Args:
        catalogue: one row an item.
        settings: sections `text`, `finetune` and `train` are read.
        cache_dir: vectors of the untuned model are remembered here; those of a tuned one are not, as the next log tunes another.
        progress: called as progress(what, done, total).
        held: what may be learned from, and what chooses; None reads with the model as it is.
        run_dir: curves and weights of the tuning go here.
        searches: over the users and items of the holdout, to learn from; None: none.
        launch: has the tuning done elsewhere, as in `training.together`. spread: has the texts read elsewhere, as in `training.encoder`.

    Raises:
        SettingsError: an unknown mode or pooling. InputError: there is no such model.
    """
    check_mode(settings.finetune.mode)
    texts = item_texts(catalogue, settings.text.template)
    tuning = settings.finetune.mode != "frozen" and held is not None
    if not any(texts):
        notes = [f"finetune.mode {settings.finetune.mode} was skipped: no item has a text."] if tuning else []
        return ReadTexts(np.zeros((len(texts), 1), dtype=np.float32), notes=notes)
    encoder = load_encoder(settings.text, settings.train.precision)
    metrics, notes = _known(encoder, texts)
    vectors = encode_cached(encoder, texts, cache_dir, settings.text.batch_size, progress, spread)
    empty = np.array([not words for words in texts])
    power = settings.text.whitenings[0]
    if not tuning and held is not None and len(settings.text.whitenings) > 1:
        scores = power_scores(vectors, ~empty, held, settings.text, settings.neighbours.text_decay)
        power = max(scores, key=scores.__getitem__)
        metrics |= {**{f"text_new_items_ndcg_{tried:g}": score for tried, score in scores.items()}, "text_whitening": power}
    if tuning and held is not None:
        tuned = finetune(load_encoder(settings.text, "fp32"), texts, vectors, held, settings, progress, run_dir, searches, launch)
        metrics, notes = {**metrics, **tuned.metrics}, [*notes, *tuned.notes]
        if tuned.vectors is not None:
            encoder, vectors, power = tuned.encoder, tuned.vectors, tuned.whitening
    whitening = Whitening.fit(vectors[~empty], settings.text.dim, power)
    return ReadTexts(whitening.apply(vectors, empty), encoder, whitening, metrics, notes)


def _known(encoder: Encoder, texts: Sequence[str]) -> tuple[dict[str, float | int], list[str]]:
    """The share of tokens that the tokenizer does not know, and a warning where it is large."""
    share = unknown_share(encoder.tokenizer, texts)
    if share <= MANY_UNKNOWN:
        return {}, []
    note = (
        f"{share:.0%} of the tokens of the items' texts are unknown to the tokenizer of {encoder.folder.name}: it was made for another language "
        "or script, and these texts look alike to it. Choose a text.model that knows the language."
    )
    warnings.warn(note, stacklevel=3)
    return {"text_unknown_share": share}, [note]
