"""A smaller text encoder that gives what the large one gives, learned on the catalogue's own texts.

The large one's vectors of the texts, and of pieces of them, are what the small one is brought close to: each vector by itself, in the space as it is and whitened
(there small directions count as they do in the index), and how alike the texts of a batch are (so that neighbours stay neighbours). In the last half the products are
rounded to eight bits as they will be served, with the ranges and the smoothing that calibration gives, so that int8 costs less (quantization-aware healing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from tastemaker.compression.bert_graph import write_bert
from tastemaker.compression.calibration import Seen, eight_bits
from tastemaker.compression.graph_weights import bert_of
from tastemaker.compression.prune import cut
from tastemaker.compression.step import Facts, NotApplicable, Tools
from tastemaker.compression.text import GRAPH, TOKENS, answers_of, changed, text_feeds
from tastemaker.models.bert import Bert, WordTable
from tastemaker.models.text import Whitening, length_batches, pad_tokens
from tastemaker.schema.protocols import FloatArray
from tastemaker.training.export import write_graph
from tastemaker.training.precision import compute_dtype

POOL = 6_000
"""Texts that are learned from; a smaller catalogue is filled up with pieces of its own texts."""
IMPORTANCE = 64
GENTLE = 0.02
"""Share of the learning rate with which a model heals of which nothing was cut."""
CALIBRATED = 128
_WARM, _DIMS = 0.1, 256
Encoder = Bert | WordTable


def layers(count: int, heads: float = 1.0, forward: float = 1.0, name: str = "") -> Callable[[Path, Path, Tools], Facts]:
    """The step that keeps `count` layers (0: all) and shares of their heads and neurons, and heals them."""

    def apply(bundle: Path, place: Path, tools: Tools) -> Facts:
        settings = tools.settings
        heal = [settings.heal_steps, settings.heal_batch, settings.heal_rate]

        def make(source: Path, target: Path, texts: Sequence[str]) -> Facts:
            lesson = Lesson(source, texts, tools)
            whole = lesson.teacher()
            keep = count or len(whole.layers)
            if keep >= len(whole.layers) and heads >= 1 and forward >= 1 and count:
                raise NotApplicable(f"the language model has {len(whole.layers)} layers, so {count} are not fewer")
            small = cut(whole, keep, heads, forward, lesson.batches(IMPORTANCE), settings.importance)
            before = lesson.alike(small)
            gentle = 1.0 if keep < len(whole.layers) or heads < 1 or forward < 1 else GENTLE
            lesson.heal(small, settings.heal_steps, gentle * settings.heal_rate, settings.heal_batch)
            export_encoder(small, lesson.max_length, target / GRAPH)
            facts: Facts = {"layers": len(small.layers), "heads": sum(small.shape.heads), "neurons": sum(small.shape.forward)}
            return facts | {"cosine cut": round(before, 4), "cosine healed": round(lesson.alike(small), 4)}

        return changed(bundle, place, tools, name or f"layers-{count}", make, [count, heads, forward, heal, settings.importance])

    return apply


def static(bundle: Path, place: Path, tools: Tools) -> Facts:
    """The mean of word vectors: each word piece as the large model reads it alone, healed on the texts."""
    settings = tools.settings

    def make(source: Path, target: Path, texts: Sequence[str]) -> Facts:
        lesson = Lesson(source, texts, tools)
        small = WordTable(torch.from_numpy(lesson.word_vectors()))
        before = lesson.alike(small)
        lesson.heal(small, settings.heal_steps, 10 * settings.heal_rate, 4 * settings.heal_batch)
        export_encoder(small, lesson.max_length, target / GRAPH)
        return {
            "words": small.words.num_embeddings,
            "cosine begun": round(before, 4),
            "cosine healed": round(lesson.alike(small), 4),
        }

    return changed(bundle, place, tools, "static", make, [settings.heal_steps, settings.heal_batch, settings.heal_rate])


class Lesson:
    """Texts with the vectors that the large encoder gives them.

    Args:
        source: the large one's folder.
        texts: that may be learned from.
        tools: settings and seed.
    """

    def __init__(self, source: Path, texts: Sequence[str], tools: Tools) -> None:
        import msgspec

        self._source, self._tools = source, tools
        self._config = msgspec.json.decode((source / "config.json").read_bytes())
        self.max_length = int(self._config["max_length"])
        self._tokenizer = Tokenizer.from_file(str(source / TOKENS))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_length)
        self._random = np.random.default_rng(tools.seed)
        pool = pieces(texts, POOL, self._random)
        self._tokens = [found.ids for found in self._tokenizer.encode_batch(pool)]
        self._wanted = self._read(self._tokens)
        self._white = Whitening.fit(self._wanted, _DIMS, 0.5)
        self._check = np.arange(min(len(texts), 256))

    def teacher(self) -> Bert:
        """The large model as torch. Raises NotApplicable where it is none that can be cut."""
        feed = text_feeds(self._source, ["a text to compare by", "and one more"], 2, 0)[0]
        return bert_of(
            self._source / GRAPH, str(self._config.get("pooling", "mean")), feed, answers_of(self._source / GRAPH, [feed])
        )

    def word_vectors(self) -> FloatArray:
        """What the large encoder makes of each word piece alone, between the special tokens, float32 [V, H]; those are zero."""
        frame = self._tokenizer.encode("").ids
        size = self._tokenizer.get_vocab_size()
        begin, end = frame[:1], frame[1:]
        found = self._read([[*begin, piece, *end] for piece in range(size)])
        found[frame] = 0.0
        centred: FloatArray = found - found.mean(axis=0) * np.float32(0.5)
        return centred  # what all words share says nothing (S. Arora et al., 2017)

    def batches(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Some of the texts."""
        rows = self._random.permutation(len(self._tokens))[:count]
        chosen = [self._tokens[row] for row in rows]
        return [pad_tokens([chosen[row] for row in batch]) for batch in length_batches(chosen, 32)]

    def heal(self, small: Encoder, steps: int, rate: float, size: int) -> None:
        """Brings the small encoder's answers to the large one's: AdamW, a short rise of the rate, then a cosine down."""
        with self._met(small):
            self._heal(small, steps, rate, size)
        if isinstance(small, Bert):
            small.rounded(False)
        small.eval()

    @contextmanager
    def _met(self, small: Encoder) -> Iterator[None]:
        """Inside, the small encoder holds those word pieces alone that the texts have, numbered anew: the others never change, and would take most of the optimiser's time."""
        whole, tokens = small.words, self._tokens
        met = np.unique(np.concatenate([[0], *tokens]))  # 0 fills up batches
        rows = whole.weight.detach()[met]
        small.words = nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows)
        self._tokens = [np.searchsorted(met, ids).tolist() for ids in tokens]
        try:
            yield
        finally:
            with torch.no_grad():
                whole.weight[met] = small.words.weight
            small.words, self._tokens = whole, tokens

    def _heal(self, small: Encoder, steps: int, rate: float, size: int) -> None:
        torch.manual_seed(self._tools.seed)
        small.train()
        optimiser = torch.optim.AdamW(small.parameters(), lr=rate, weight_decay=0.0)
        mean, components = torch.from_numpy(self._white.mean), torch.from_numpy(self._white.components)
        rise, half = max(round(steps * _WARM), 1), compute_dtype("auto") is torch.bfloat16
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * step / steps)))
            if step == steps // 2 and isinstance(small, Bert):
                self._round(small)
            rows = self._random.integers(0, len(self._tokens), size)
            wanted = torch.from_numpy(self._wanted[rows])
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found = small(*pad_tokens([self._tokens[row] for row in rows])).float()
            loss = _apart(found, wanted) + _apart((found - mean) @ components.T, (wanted - mean) @ components.T)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(small.parameters(), 1.0)
            optimiser.step()
            if self._tools.progress and (step % 10 == 9 or step + 1 == steps):
                self._tools.progress("heal", step + 1, steps)

    @torch.no_grad()
    def _round(self, small: Bert) -> None:
        """Rounds all products from now on, with the ranges that some texts show."""
        seen: dict[int, Seen] = {}

        def look(part: nn.Module, given: tuple[Tensor, ...]) -> None:
            flat = given[0].flatten(0, -2).float().numpy()
            if id(part) in seen:
                seen[id(part)].add(flat)
            else:
                seen[id(part)] = Seen.of(flat, moments=False)

        hooks = [part.register_forward_pre_hook(look) for part in small.products()]
        for batch in self.batches(CALIBRATED):
            small(*batch)
        for hook in hooks:
            hook.remove()
        for part in small.products():
            chosen = eight_bits(seen[id(part)], [part.weight.detach().T.float().numpy()])
            part.span = chosen.low, chosen.high
            part.factor = None if chosen.factor is None else torch.from_numpy(chosen.factor)
        small.rounded(True)

    @torch.inference_mode()
    def alike(self, small: nn.Module) -> float:
        """Mean cosine of both encoders' vectors of some of the texts."""
        found = [
            F.cosine_similarity(small(*pad_tokens([self._tokens[row] for row in rows])), torch.from_numpy(self._wanted[rows]))
            for rows in (self._check[batch] for batch in length_batches([self._tokens[row] for row in self._check], 64))
        ]
        return float(torch.cat(found).mean())

    def _read(self, tokens: Sequence[Sequence[int]]) -> FloatArray:
        """The large encoder's vectors, float32 [n, H]."""
        batches = length_batches(tokens, 64)
        feeds = [pad_tokens([tokens[row] for row in rows]) for rows in batches]
        read = answers_of(
            self._source / GRAPH, [{"input_ids": _two(ids).numpy(), "attention_mask": _two(mask).numpy()} for ids, mask in feeds]
        )
        found = np.zeros_like(read)
        found[np.concatenate(batches)] = read
        return found


def pieces(texts: Sequence[str], count: int, random: np.random.Generator) -> list[str]:
    """The texts, at most `count` by chance; a few are filled up with runs of their own words, at most three of each."""
    if len(texts) >= count:
        return [texts[place] for place in random.permutation(len(texts))[:count]]
    found = list(texts)
    for _ in range(3):
        for text in texts:
            words = text.split()
            size = int(random.integers(1, len(words) + 1)) if words else 0
            begin = int(random.integers(0, len(words) - size + 1)) if words else 0
            if size:
                found.append(" ".join(words[begin : begin + size]))
    return found[:count]


def export_encoder(model: nn.Module, max_length: int, path: Path) -> None:
    """Writes a small encoder with the inputs and the output of the large one."""
    if isinstance(model, Bert):
        write_bert(model, max_length, path)
        return
    ids, mask = torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    rows, length = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=2, max=max_length)
    shapes = {name: {0: rows, 1: length} for name in ("input_ids", "attention_mask")}
    write_graph(model.eval(), (ids, mask), path, ["input_ids", "attention_mask"], shapes)


def _apart(found: Tensor, wanted: Tensor) -> Tensor:
    """One minus the cosine of each pair, and the squared difference of how alike the texts of the batch are."""
    one, other = F.normalize(found, dim=-1), F.normalize(wanted, dim=-1)
    each: Tensor = 1 - (one * other).sum(-1).mean()
    return each + F.mse_loss(one @ one.T, other @ other.T)


def _two(table: Tensor) -> Tensor:
    """At least two columns, which the graphs ask for."""
    return table if table.shape[1] >= 2 else F.pad(table, (0, 1))
