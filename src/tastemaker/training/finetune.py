"""Teaches the language model that reads the items what people took together, so that new items land beside what their takers like.

Contrastive learning with the other items of the batch as negatives (InfoNCE) on pairs from the histories that validation also trains on, never from
held-back events. It runs once, before validation; the same vectors serve validation and refit. Modes, from cheap to dear: `head`, `last`, `lora`, `full`.
A large batch is read in chunks whose layers are computed again in the backward pass (gradient caching, Gao et al. 2021): its memory is one chunk's.
How far to go from the model as it was (Wortsman et al. 2022, "Robust fine-tuning") is chosen on the items that the holdout pretends are new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tastemaker.data.searches import Searches
from tastemaker.data.sequences import Sequences
from tastemaker.models.text import TextTower
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import Settings
from tastemaker.training.checkpoints import weights_of
from tastemaker.training.encoder import Encoder
from tastemaker.training.holdout import Holdout
from tastemaker.training.loop import LoopResult
from tastemaker.training.lower_layers import CatalogueReader
from tastemaker.training.pairs import count_pairs
from tastemaker.training.precision import compute_dtype
from tastemaker.training.pretrain import pretrain
from tastemaker.training.search_pairs import SearchPairs, divide
from tastemaker.training.text_job import learn_texts
from tastemaker.training.text_judge import hard_pool, power_scores, search_scores
from tastemaker.training.text_task import FinetuneTask
from tastemaker.training.together import Launch
from tastemaker.training.trainable import check_mode, choose_trainable, plain

FEWEST_PAIRS = 100
_GIB = 2**30


@dataclass(frozen=True)
class Tuned:
    """What tuning gave.

    Attributes:
        encoder: the model as it is now; the given one where nothing was learned.
        vectors: unit vectors of the catalogue's texts, float32 [N, T]; zero rows for empty texts; None where nothing was learned.
        metrics: figures.
        notes: sentences for the report.
        whitening: power of the whitening that suits the vectors best.
    """

    encoder: Encoder
    vectors: FloatArray | None
    metrics: dict[str, float | int]
    notes: list[str]
    whitening: float = 1.0


def finetune(
    encoder: Encoder,
    texts: Sequence[str],
    vectors: FloatArray,
    held: Holdout,
    settings: Settings,
    progress: Progress | None = None,
    run_dir: Path | None = None,
    found: Searches | None = None,
    launch: Launch | None = None,
) -> Tuned:
    """Tunes a copy of the encoder; gives it back untouched, with a sentence, where there is nothing to learn from.

    Args:
        encoder: its tower is trained in place, in fp32: load it for this.
        texts: of all items; empty ones are left out.
        vectors: what the model says of them before, float32 [N, H].
        held: `held.train` is learned from, `held.cold` chooses how far to go.
        settings: sections `finetune`, `train` and `text` are read.
        progress, run_dir: as in `training.loop.run`.
        found: searches over the users and items of `held.train`; None: none.
        launch: has the training done elsewhere, as in `training.together`.

    Raises:
        SettingsError: an unknown mode, or one that this model can't be trained in. MissingExtraError: `lora` without peft.
    """
    chosen, mode, full = settings.finetune, settings.finetune.mode, np.array([bool(text) for text in texts])
    check_mode(mode)
    sequences = held.train.keep(full[held.train.items])
    searches = None if found is None or not chosen.query_share else divide(found, held, full, settings.train.seed)
    pairs, asked = count_pairs(sequences), 0 if searches is None else len(searches.learn)
    if mode == "frozen" or pairs + asked < FEWEST_PAIRS:
        return Tuned(encoder, None, {}, [] if mode == "frozen" else [_too_few(pairs + asked, mode)])
    metrics: dict[str, float | int] = {"finetune_pairs": pairs}
    if searches is not None and asked:
        metrics |= {"finetune_searches": asked, "finetune_searches_judged": len(searches.judge)}
    searches = searches if asked else None
    reader = _reader(encoder, texts, vectors, settings, metrics, progress, run_dir, searches)
    before = weights_of(reader.tower)
    result = _learn(reader, sequences, vectors, settings, searches, progress, run_dir, launch, encoder.folder)
    metrics |= {"finetune_loss_first": result.losses[0], "finetune_loss_last": result.losses[-1]}
    best = _choose(reader, before, full, held, settings, progress, searches)
    metrics |= {f"finetune_new_items_ndcg_{blend:g}_{power:g}": score for (blend, power), score in best.scores.items()}
    metrics |= {f"finetune_search_ndcg_{blend:g}_{power:g}": score for (blend, power), score in best.searched.items()}
    metrics |= {"finetune_blend": best.blend, "finetune_whitening": best.power}
    notes = [f"finetune.mode {mode}: {best.blend:g} of what was learned is kept, whitened by the power {best.power:g}."]
    finished = _finished(encoder, plain(reader.tower, mode), best.vectors.shape[1], reader.dtype)
    return Tuned(finished, best.vectors, metrics, notes, best.power)


def _reader(
    encoder: Encoder,
    texts: Sequence[str],
    vectors: FloatArray,
    settings: Settings,
    metrics: dict[str, float | int],
    progress: Progress | None,
    run_dir: Path | None,
    searches: SearchPairs | None,
) -> CatalogueReader:
    """The tower with what is trained marked, after the pre-training that may be asked for; it reads the items' texts, then the searches'."""
    chosen, seed, head = settings.finetune, settings.train.seed, settings.finetune.mode == "head"
    full, asked = np.array([bool(text) for text in texts]), [] if searches is None else searches.texts
    tokens = [found.ids if text else [] for text, found in zip(texts, encoder.tokenizer.encode_batch(list(texts)), strict=True)]
    torch.manual_seed(seed)
    if chosen.pretrain_steps:
        metrics["pretrain_loss"] = pretrain(encoder, [text for text in tokens if text], settings, progress, run_dir)
        vectors = encoder.encode(texts, settings.text.batch_size, progress) if head else vectors
    pooled = None
    if head:
        pooled = np.concatenate([vectors, encoder.encode(asked, settings.text.batch_size, progress)]) if asked else vectors
    tokens += [found.ids for found in encoder.tokenizer.encode_batch(asked)] if asked else []
    tower, frozen = choose_trainable(encoder.tower, chosen, vectors[full], settings.text.dim)
    limit, dtype = chosen.cache_gib * _GIB, compute_dtype(settings.train.precision)
    return CatalogueReader(tower, tokens, frozen, pooled, limit, dtype, progress)


def _learn(
    reader: CatalogueReader,
    sequences: Sequences,
    vectors: FloatArray,
    settings: Settings,
    searches: SearchPairs | None,
    progress: Progress | None,
    run_dir: Path | None,
    launch: Launch | None,
    folder: Path,
) -> LoopResult:
    hard = hard_pool(vectors, sequences) if settings.finetune.hard_negatives else np.zeros((0, 1), dtype=np.int64)
    task = FinetuneTask(reader, sequences, settings.finetune, settings.train.seed, hard, searches)
    return learn_texts(task, settings, progress, run_dir, launch, folder)


def _too_few(pairs: int, mode: str) -> str:
    return f"finetune.mode {mode} was skipped: {pairs} pairs of items with texts in one history, {FEWEST_PAIRS} are needed."


@dataclass(frozen=True)
class _Choice:
    """How far to go from the model as it was, the vectors there, and what each choice scored among new items and for searches."""

    blend: float
    power: float
    vectors: FloatArray
    scores: dict[tuple[float, float], float]
    searched: dict[tuple[float, float], float] = field(default_factory=dict)


def _choose(
    reader: CatalogueReader,
    before: dict[str, Tensor],
    full: np.ndarray,
    held: Holdout,
    settings: Settings,
    progress: Progress | None,
    searches: SearchPairs | None,
) -> _Choice:
    """Puts the mixture of old and new weights into the tower that finds the pretended-new items best; ties go to the larger share.

    Where searches were learned from, the held-back ones count as much as their share of the pairs.
    """
    after, items, batch = weights_of(reader.tower), np.arange(len(full)), settings.text.batch_size
    scores: dict[tuple[float, float], float] = {}
    searched: dict[tuple[float, float], float] = {}
    kept: dict[float, FloatArray] = {}
    for blend in sorted(settings.finetune.blends, reverse=True):
        reader.tower.load_state_dict(mixed(before, after, blend))
        kept[blend] = reader.vectors(batch, progress, items)
        kept[blend][~full] = 0.0
        scores |= {
            (blend, power): score
            for power, score in power_scores(kept[blend], full, held, settings.text, settings.neighbours.text_decay).items()
        }
        if searches is not None and len(searches.judge):
            numbers, place = np.unique(searches.judge[:, 0], return_inverse=True)
            queries = reader.vectors(batch, progress, len(full) + numbers)[place]
            judged = search_scores(kept[blend], full, queries, searches.judge[:, 1], settings.text)
            searched |= {(blend, power): score for power, score in judged.items()}
    share = settings.finetune.query_share if searched else 0.0
    blend, power = max(scores, key=lambda one: (1 - share) * scores[one] + share * searched.get(one, 0.0))
    reader.tower.load_state_dict(mixed(before, after, blend))
    return _Choice(blend, power, kept[blend], scores, searched)


def mixed(before: dict[str, Tensor], after: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the straight line between two states of one model: 0 gives the first, 1 the second."""
    return {name: torch.lerp(old, after[name], share) if old.is_floating_point() else after[name] for name, old in before.items()}


def _finished(encoder: Encoder, tower: TextTower, width: int, dtype: torch.dtype) -> Encoder:
    """The encoder with the tuned tower, in the numbers that the CPU computes in, under a fingerprint of its own weights."""
    tower.backbone.to(dtype)
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy())
    return replace(encoder, tower=tower.eval(), width=width, fingerprint=digest.hexdigest()[:24])
