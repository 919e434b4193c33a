"""Teaches the language model that reads the items what people took together, so that new items land beside what their takers like.

Contrastive learning with the other items of the batch as negatives (InfoNCE) on pairs from the histories that validation also trains on, never from
held-back events. It runs once, before validation; the same vectors serve validation and refit. Modes, from cheap to dear: `head`, `last`, `lora`, `full`.
A large batch is read in chunks whose layers are computed again in the backward pass (gradient caching, Gao et al. 2021): its memory is one chunk's.
How far to go from the model as it was (Wortsman et al. 2022, "Robust fine-tuning") is chosen on the items that the holdout pretends are new.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import xxhash
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tastemaker.data.sequences import Sequences
from tastemaker.models.contrastive import info_nce
from tastemaker.models.text import TextTower
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import FinetuneSettings, Settings
from tastemaker.training.checkpoints import weights_of
from tastemaker.training.encoder import Encoder
from tastemaker.training.holdout import Holdout
from tastemaker.training.loop import LoopOptions, LoopResult, Task, run
from tastemaker.training.lower_layers import CatalogueReader
from tastemaker.training.optimisers import OptimiserOptions
from tastemaker.training.pairs import Pairs, count_pairs, draw
from tastemaker.training.precision import compute_dtype
from tastemaker.training.pretrain import pretrain
from tastemaker.training.text_judge import hard_pool, power_scores
from tastemaker.training.trainable import HEAD_RATE, check_mode, choose_trainable, plain

FEWEST_PAIRS = 100
ROUND = 50  # steps of an epoch at most: curves and checkpoints have one point each
DECAY = 0.5  # weight of each earlier item of a history
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


@dataclass(frozen=True)
class TextBatch:
    """Pairs whose texts are read once each.

    Attributes:
        items: different items, int64 [U]; sources and targets are places in it.
        sources: [P, S], -1 for none.
        targets: [P].
        barred: items that the pair's user took too, bool [P, U].
        seed: of the dropout.
    """

    items: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    barred: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.targets)


class FinetuneTask(Task):
    """Pairs from histories; batches are a pure function of seed and epoch."""

    def __init__(
        self, reader: CatalogueReader, sequences: Sequences, settings: FinetuneSettings, seed: int, hard: np.ndarray
    ) -> None:
        self._reader, self._sequences, self._settings, self._seed, self._hard = reader, sequences, settings, seed, hard
        self.model: nn.Module = reader.tower
        counts = np.maximum(sequences.counts(), 1)
        self._log_share = torch.from_numpy(np.log(counts / counts.sum())).float()
        users = np.repeat(np.arange(sequences.n_users), sequences.lengths())
        shape = (sequences.n_users, sequences.n_items)
        self._met = sp.csr_matrix((np.ones(len(users), dtype=bool), (users, sequences.items)), shape=shape)
        self.epochs = math.ceil(settings.steps / ROUND)

    def steps(self) -> int:
        """Batches of an epoch."""
        return math.ceil(self._settings.steps / self.epochs)

    def batches(self, epoch: int) -> Iterator[TextBatch]:
        """Pairs with the texts they need and, where asked for, hard negatives."""
        chosen = self._settings
        size = min(chosen.batch_size, count_pairs(self._sequences))
        drawn = draw(self._sequences, size, self.steps(), chosen.history, chosen.item_share, self._seed, epoch)
        for step, pairs in enumerate(drawn):
            yield self._batch(pairs, np.random.default_rng([self._seed, epoch, step, 1]), hash((self._seed, epoch, step)) % 2**31)

    def share(self, batch: TextBatch, part: int, parts: int) -> TextBatch:
        """Some of the pairs, each once over all parts; every part is told apart from all texts of the whole batch."""
        mine = slice(part, None, parts)
        return replace(batch, sources=batch.sources[mine], targets=batch.targets[mine], barred=batch.barred[mine])

    def weight(self, batch: TextBatch) -> float:
        """Pairs."""
        return float(len(batch))

    def fingerprint(self) -> str:
        """Changes with the histories, the texts and the settings."""
        words = b"".join(
            np.ascontiguousarray(part).tobytes() for part in (self._sequences.offsets, self._sequences.items, self._hard)
        )
        texts = np.concatenate(
            [np.zeros(0, np.int64), *(np.asarray(text, dtype=np.int64) for text in self._reader.tokens)]
        ).tobytes()
        return xxhash.xxh3_64_hexdigest(words + texts + repr((self._settings, self._seed)).encode())

    def _batch(self, pairs: Pairs, random: np.random.Generator, seed: int) -> TextBatch:
        met = [pairs.sources[pairs.sources >= 0], pairs.targets]
        if len(self._hard):
            near = self._hard[random.choice(pairs.targets, self._settings.hard_negatives)]
            met.append(near[np.arange(len(near)), random.integers(near.shape[1], size=len(near))])
        items = np.unique(np.concatenate(met))
        items = items[np.argsort(self._reader.lengths[items], kind="stable")]
        place = np.full(self._sequences.n_items + 1, -1)
        place[items] = np.arange(len(items))
        barred = self._met[pairs.users][:, items].toarray()
        return TextBatch(items, place[pairs.sources], place[pairs.targets], barred, seed)

    def loss(self, batch: TextBatch) -> Tensor:
        """InfoNCE of the batch; the same batch gives the same dropout."""
        if len(batch.targets) == 0:
            return sum((part.sum() * 0.0 for part in self.model.parameters() if part.requires_grad), torch.zeros(()))
        items_UH = self._read(batch)
        sources = torch.from_numpy(batch.sources)
        weight_PS = (sources >= 0).float() * DECAY ** torch.arange(sources.shape[1])
        queries_PH = (items_UH[sources.clamp(min=0)] * weight_PS[..., None]).sum(1)
        share = self._settings.correction * self._log_share[torch.from_numpy(batch.items)] if self._settings.correction else None
        chosen, barred = self._settings, torch.from_numpy(batch.barred)
        return info_nce(queries_PH, items_UH, torch.from_numpy(batch.targets), barred, chosen.temperature, share, chosen.matryoshka)

    def _read(self, batch: TextBatch) -> Tensor:
        size = self._settings.chunk
        parts = [batch.items[begin : begin + size] for begin in range(0, len(batch.items), size)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch.seed)
            if len(parts) == 1 or self._settings.mode == "head":
                return self._reader(batch.items)
            return torch.cat([checkpoint(self._reader, rows, use_reentrant=False) for rows in parts])

    def validate(self) -> float | None:
        """None: how far to go is chosen at the end, by `blends`."""
        return None


def finetune(
    encoder: Encoder,
    texts: Sequence[str],
    vectors: FloatArray,
    held: Holdout,
    settings: Settings,
    progress: Progress | None = None,
    run_dir: Path | None = None,
) -> Tuned:
    """Tunes a copy of the encoder; gives it back untouched, with a sentence, where there is nothing to learn from.

    Args:
        encoder: its tower is trained in place, in fp32: load it for this.
        texts: of all items; empty ones are left out.
        vectors: what the model says of them before, float32 [N, H].
        held: `held.train` is learned from, `held.cold` chooses how far to go.
        settings: sections `finetune`, `train` and `text` are read.
        progress, run_dir: as in `training.loop.run`.

    Raises:
        SettingsError: an unknown mode, or one that this model can't be trained in. MissingExtraError: `lora` without peft.
    """
    mode, full = settings.finetune.mode, np.array([bool(text) for text in texts])
    check_mode(mode)
    sequences = held.train.keep(full[held.train.items])
    pairs = count_pairs(sequences)
    if mode == "frozen" or pairs < FEWEST_PAIRS:
        return Tuned(encoder, None, {}, [] if mode == "frozen" else [_too_few(pairs, mode)])
    metrics: dict[str, float | int] = {"finetune_pairs": pairs}
    reader = _reader(encoder, texts, vectors, settings, metrics, progress, run_dir)
    before = weights_of(reader.tower)
    hard = hard_pool(vectors, sequences) if settings.finetune.hard_negatives else np.zeros((0, 1), dtype=np.int64)
    result = _learn(FinetuneTask(reader, sequences, settings.finetune, settings.train.seed, hard), settings, progress, run_dir)
    metrics |= {"finetune_loss_first": result.losses[0], "finetune_loss_last": result.losses[-1]}
    best = _choose(reader, before, full, held, settings, progress)
    metrics |= {f"finetune_new_items_ndcg_{blend:g}_{power:g}": score for (blend, power), score in best.scores.items()}
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
) -> CatalogueReader:
    """The tower with what is trained marked, after the pre-training that may be asked for."""
    chosen, seed, head = settings.finetune, settings.train.seed, settings.finetune.mode == "head"
    full = np.array([bool(text) for text in texts])
    tokens = [found.ids if text else [] for text, found in zip(texts, encoder.tokenizer.encode_batch(list(texts)), strict=True)]
    torch.manual_seed(seed)
    if chosen.pretrain_steps:
        metrics["pretrain_loss"] = pretrain(encoder, [text for text in tokens if text], settings, progress, run_dir)
        vectors = encoder.encode(texts, settings.text.batch_size, progress) if head else vectors
    tower, frozen = choose_trainable(encoder.tower, chosen, vectors[full], settings.text.dim)
    limit, dtype = chosen.cache_gib * _GIB, compute_dtype(settings.train.precision)
    return CatalogueReader(tower, tokens, frozen, vectors if head else None, limit, dtype, progress)


def _learn(task: FinetuneTask, settings: Settings, progress: Progress | None, run_dir: Path | None) -> LoopResult:
    chosen = settings.finetune
    rate = chosen.learning_rate * (HEAD_RATE if chosen.mode == "head" else 1)
    how = OptimiserOptions(learning_rate=rate, weight_decay=chosen.weight_decay, warmup=chosen.warmup)
    options = LoopOptions(
        task.epochs, optimiser=how, checkpoint_seconds=settings.train.checkpoint_seconds, seed=settings.train.seed
    )
    return run(task, options, "finetune", progress, run_dir)


def _too_few(pairs: int, mode: str) -> str:
    return f"finetune.mode {mode} was skipped: {pairs} pairs of items with texts in one history, {FEWEST_PAIRS} are needed."


@dataclass(frozen=True)
class _Choice:
    """How far to go from the model as it was, the vectors there, and what each choice scored."""

    blend: float
    power: float
    vectors: FloatArray
    scores: dict[tuple[float, float], float]


def _choose(
    reader: CatalogueReader,
    before: dict[str, Tensor],
    full: np.ndarray,
    held: Holdout,
    settings: Settings,
    progress: Progress | None,
) -> _Choice:
    """Puts the mixture of old and new weights into the tower that finds the pretended-new items best; ties go to the larger share."""
    after = weights_of(reader.tower)
    scores: dict[tuple[float, float], float] = {}
    kept: dict[float, FloatArray] = {}
    for blend in sorted(settings.finetune.blends, reverse=True):
        reader.tower.load_state_dict(mixed(before, after, blend))
        kept[blend] = reader.vectors(settings.text.batch_size, progress)
        kept[blend][~full] = 0.0
        scores |= {
            (blend, power): score
            for power, score in power_scores(kept[blend], full, held, settings.text, settings.neighbours.text_decay).items()
        }
    blend, power = max(scores, key=scores.__getitem__)
    reader.tower.load_state_dict(mixed(before, after, blend))
    return _Choice(blend, power, kept[blend], scores)


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
