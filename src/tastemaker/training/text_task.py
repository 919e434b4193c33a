"""What the language model is taught: pairs of texts that belong together, in batches whose texts are read once each.

In a process group every text of a batch is read by one process; the vectors go round, and each process scores its share of the pairs against all of
them, so the loss is that of one process with the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tastemaker.data.sequences import Sequences
from tastemaker.models.contrastive import info_nce
from tastemaker.schema.settings import FinetuneSettings
from tastemaker.training.group import gathered, rank, world
from tastemaker.training.loop import Task
from tastemaker.training.lower_layers import CatalogueReader
from tastemaker.training.pairs import Pairs, count_pairs, draw, draw_searches, together
from tastemaker.training.search_pairs import SearchPairs

ROUND = 50  # steps of an epoch at most: curves and checkpoints have one point each
DECAY = 0.5  # weight of each earlier item of a history
_CHUNK_SEED = 7_919  # apart from all steps' seeds, which are hashes


@dataclass(frozen=True)
class TextBatch:
    """Pairs whose texts are read once each.

    Attributes:
        texts: numbers of different texts, those of items first, then searches; the shortest first, int64 [U].
        sources: places in it, [P, S], -1 for none.
        targets: [P].
        barred: texts that are no negatives of the pair: what its user took too, what was taken after the same search, searches; bool [P, U].
        seed: of the dropout.
    """

    texts: NDArray[np.int64]
    sources: NDArray[np.int64]
    targets: NDArray[np.int64]
    barred: NDArray[np.bool_]
    seed: int

    def __len__(self) -> int:
        return len(self.targets)


class FinetuneTask(Task):
    """Pairs from histories and from searches; batches are a pure function of seed and epoch.

    Args:
        reader: reads the catalogue's texts, and behind them the searches'.
        sequences: histories to learn from.
        settings: of the tuning. seed: of all that is random.
        hard: items that look alike, int64 [N, M]; without rows for none.
        searches: to learn from; None: none.
    """

    uses_all = False  # the pooler of a BERT is never asked, and a process may have no text to read

    def __init__(
        self,
        reader: CatalogueReader,
        sequences: Sequences,
        settings: FinetuneSettings,
        seed: int,
        hard: NDArray[np.int64],
        searches: SearchPairs | None = None,
    ) -> None:
        self.reader, self.sequences, self._settings, self._seed, self.hard = reader, sequences, settings, seed, hard
        self.learn = np.zeros((0, 2), dtype=np.int64) if searches is None else searches.learn
        self._n_texts = len(reader.tokens)
        self.model: nn.Module = reader.tower
        self.sharded = settings.shard and settings.mode != "head"
        counts = np.maximum(sequences.counts(), 1)
        others = np.zeros(self._n_texts - sequences.n_items)
        self._log_share = torch.from_numpy(np.concatenate([np.log(counts / counts.sum()), others])).float()
        self._met = _met(sequences, self.learn, self._n_texts)
        self.epochs = math.ceil(settings.steps / ROUND)

    def steps(self) -> int:
        """Batches of an epoch."""
        return math.ceil(self._settings.steps / self.epochs)

    def batches(self, epoch: int) -> Iterator[TextBatch]:
        """Pairs with the texts they need and, where asked for, hard negatives."""
        for step, pairs in enumerate(self._drawn(epoch)):
            yield self._batch(pairs, np.random.default_rng([self._seed, epoch, step, 1]), hash((self._seed, epoch, step)) % 2**31)

    def share(self, batch: TextBatch, part: int, parts: int) -> TextBatch:
        """Some of the pairs, each once over all parts; every part is told apart from all texts of the whole batch."""
        mine = slice(part, None, parts)
        return replace(batch, sources=batch.sources[mine], targets=batch.targets[mine], barred=batch.barred[mine])

    def weight(self, batch: TextBatch) -> float:
        """Pairs."""
        return float(len(batch))

    def fingerprint(self) -> str:
        """Changes with the histories, the searches, the texts and the settings."""
        parts = (self.sequences.offsets, self.sequences.items, self.hard, self.learn)
        words = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        texts = np.concatenate(
            [np.zeros(0, np.int64), *(np.asarray(text, dtype=np.int64) for text in self.reader.tokens)]
        ).tobytes()
        return xxhash.xxh3_64_hexdigest(words + texts + repr((self._settings, self._seed)).encode())

    def loss(self, batch: TextBatch) -> Tensor:
        """InfoNCE of the batch; the same batch gives the same dropout."""
        if len(batch.targets) == 0:
            return sum((part.sum() * 0.0 for part in self.model.parameters() if part.requires_grad), torch.zeros(()))
        texts_UH = self._read(batch)
        sources = torch.from_numpy(batch.sources)
        weight_PS = (sources >= 0).float() * DECAY ** torch.arange(sources.shape[1])
        queries_PH = (texts_UH[sources.clamp(min=0)] * weight_PS[..., None]).sum(1)
        share = self._settings.correction * self._log_share[torch.from_numpy(batch.texts)] if self._settings.correction else None
        chosen, barred = self._settings, torch.from_numpy(batch.barred)
        return info_nce(queries_PH, texts_UH, torch.from_numpy(batch.targets), barred, chosen.temperature, share, chosen.matryoshka)

    def validate(self) -> float | None:
        """None: how far to go is chosen at the end, by `blends`."""
        return None

    def _drawn(self, epoch: int) -> Iterator[Pairs]:
        """The pairs of each batch: as many of searches as their share says, the rest of histories; all of one kind where there is no other."""
        chosen, found = self._settings, count_pairs(self.sequences)
        size = min(chosen.batch_size, found + len(self.learn))
        asked = min(round(size * chosen.query_share) if found else size, size) if len(self.learn) else 0
        shape = (self.sequences.n_users, self.sequences.n_items, chosen.history)
        searched = draw_searches(self.learn, asked, self.steps(), shape, self._seed, epoch) if asked else None
        if searched is not None and asked == size:
            yield from searched
            return
        taken = draw(self.sequences, size - asked, self.steps(), chosen.history, chosen.item_share, self._seed, epoch)
        yield from taken if searched is None else map(together, taken, searched)

    def _batch(self, pairs: Pairs, random: np.random.Generator, seed: int) -> TextBatch:
        met = [pairs.sources[pairs.sources >= 0], pairs.targets]
        if len(self.hard):
            near = self.hard[random.choice(pairs.targets, self._settings.hard_negatives)]
            met.append(near[np.arange(len(near)), random.integers(near.shape[1], size=len(near))])
        texts = np.unique(np.concatenate(met))
        texts = texts[np.argsort(self.reader.lengths[texts], kind="stable")]
        place = np.full(self._n_texts + 1, -1)
        place[texts] = np.arange(len(texts))
        barred = self._met[pairs.users][:, texts].toarray()
        barred[:, texts >= self.sequences.n_items] = True
        return TextBatch(texts, place[pairs.sources], place[pairs.targets], barred, seed)

    def _read(self, batch: TextBatch) -> Tensor:
        """Vectors of all texts of a batch, [U, H], each read by one process of the group."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch.seed)
            if self._settings.mode == "head":
                return self.reader(batch.texts)
            if self.sharded and world() > 1:
                return self._read_sharded(batch)
            size = self._settings.chunk
            chunks = [np.arange(begin, min(begin + size, len(batch.texts))) for begin in range(0, len(batch.texts), size)]
            if len(chunks) == 1 and world() == 1:
                return self.reader(batch.texts)
            mine = dealt([len(chunk) * int(self.reader.lengths[batch.texts[chunk[-1]]]) for chunk in chunks], world())[rank()]
            found = [self._chunk(batch, chunks[number], number) for number in mine]
        if world() == 1:
            return torch.cat(found)
        part = torch.cat(found) if found else torch.zeros(0, self.reader.width, requires_grad=True)
        places = np.concatenate([np.zeros(0, np.int64), *(chunks[number] for number in mine)])
        return gathered(part, torch.from_numpy(places), len(batch.texts))

    def _chunk(self, batch: TextBatch, places: NDArray[np.int64], number: int) -> Tensor:
        """A chunk whose layers are computed again in the backward pass; its dropout is its own, whoever reads it."""
        torch.manual_seed(batch.seed + _CHUNK_SEED * number)
        return checkpoint(self.reader, batch.texts[places], use_reentrant=False)  # type: ignore[no-any-return]

    def _read_sharded(self, batch: TextBatch) -> Tensor:
        """One call in each process, as every call collects the weights from all: a process without a text reads one and hands on nothing of it."""
        places = np.arange(rank(), len(batch.texts), world())
        part = self.reader(batch.texts[places]) if len(places) else self.reader(batch.texts[:1])[:0]
        return gathered(part, torch.from_numpy(places), len(batch.texts))


def dealt(costs: Sequence[int], processes: int) -> list[list[int]]:
    """Which pieces of work each process does: the dearest first, each to who has least (R. Graham, 1969); the same everywhere."""
    hands: list[list[int]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for number in sorted(range(len(costs)), key=lambda one: (-costs[one], one)):
        least = loads.index(min(loads))
        hands[least].append(number)
        loads[least] += costs[number]
    return [sorted(hand) for hand in hands]


def _met(sequences: Sequences, learn: NDArray[np.int64], n_texts: int) -> sp.csr_matrix:
    """Which texts each user took, and behind the users, which were taken after each search; bool [U + searches, texts]."""
    users = np.repeat(np.arange(sequences.n_users), sequences.lengths())
    rows, columns = np.concatenate([users, sequences.n_users + learn[:, 0]]), np.concatenate([sequences.items, learn[:, 1]])
    shape = (sequences.n_users + n_texts - sequences.n_items, n_texts)
    return sp.csr_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=shape)
