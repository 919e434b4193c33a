"""Continued pre-training on the catalogue's own texts (Gururangan et al. 2020, "Don't stop pretraining")."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from tastemaker.models.text import length_batches, pad_tokens
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.training.encoder import Encoder
from tastemaker.training.group import by_itself
from tastemaker.training.loop import LoopOptions, Task, run
from tastemaker.training.optimisers import OptimiserOptions

ROUND = 50
BATCH = 64
IGNORED = -100  # a token that the loss leaves out
MASK_WORDS = ("[MASK]", "<mask>")


class MaskedTask(Task):
    """Tells hidden tokens from what stands around them (Devlin et al. 2019)."""

    def __init__(self, model: nn.Module, tokens: Sequence[Sequence[int]], mask: int, share: float, steps: int, seed: int) -> None:
        self.model: nn.Module = model
        self._tokens, self._mask, self._share, self._seed = tokens, mask, share, seed
        self._vocabulary = int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]
        self.epochs = math.ceil(steps / ROUND)
        self._steps = math.ceil(steps / self.epochs)

    def steps(self) -> int:
        """Batches of an epoch."""
        return self._steps

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Token numbers with some hidden, the mask of real tokens, and what was hidden; all int64 [B, L]."""
        random = np.random.default_rng([self._seed, epoch, 2])
        order: list[np.ndarray] = []
        while len(order) < self._steps:
            parts = length_batches(self._tokens, BATCH)
            order += [parts[place] for place in random.permutation(len(parts))]
        for rows in order[: self._steps]:
            ids, real = pad_tokens([self._tokens[row] for row in rows])
            yield self._hide(ids, real, random)

    def _hide(self, ids: Tensor, real: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Of each text's tokens, its first and last left out, `share`: 8 of 10 become the mask, 1 another token, 1 stays."""
        place, length = np.arange(ids.shape[1]), real.sum(1).numpy()[:, None]
        chosen = (random.random(ids.shape) < self._share) & (place > 0) & (place < length - 1)
        kind = random.random(ids.shape)
        wanted = torch.where(torch.from_numpy(chosen), ids, IGNORED)
        hidden = np.where(chosen & (kind < 0.8), self._mask, ids.numpy())
        other = chosen & (kind >= 0.8) & (kind < 0.9)
        hidden[other] = random.integers(self._vocabulary, size=int(other.sum()))
        return torch.from_numpy(hidden), real, wanted

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Mean cross entropy of the hidden tokens."""
        ids, real, wanted = batch
        logits = self.model(input_ids=ids, attention_mask=real).logits.float()
        total = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
        return total / max(int((wanted != IGNORED).sum()), 1)

    def share(self, batch: tuple[Tensor, Tensor, Tensor], part: int, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Some of the texts, each once over all parts."""
        ids, real, wanted = (tensor[part::parts] for tensor in batch)
        return ids, real, wanted

    def weight(self, batch: tuple[Tensor, Tensor, Tensor]) -> float:
        """Hidden tokens."""
        return float((batch[2] != IGNORED).sum())

    def fingerprint(self) -> str:
        """Changes with the texts."""
        return xxhash.xxh3_64_hexdigest(repr((self._tokens, self._share, self._seed)).encode())

    def validate(self) -> float | None:
        """None: all steps are made."""
        return None


def pretrain(
    encoder: Encoder,
    tokens: Sequence[Sequence[int]],
    settings: Settings,
    progress: Progress | None = None,
    run_dir: Path | None = None,
) -> float:
    """Trains the encoder's backbone in place; gives the loss of the last round.

    Raises:
        SettingsError: the model hides no tokens (a decoder), or its tokenizer has no token to hide them behind.
    """
    from transformers import AutoModelForMaskedLM

    found = [place for word in MASK_WORDS if (place := encoder.tokenizer.token_to_id(word)) is not None]
    try:
        model: nn.Module = AutoModelForMaskedLM.from_pretrained(str(encoder.folder), dtype=torch.float32)
    except ValueError:
        found = []
    if not found:
        raise SettingsError("finetune.pretrain_steps: this model can't be trained on hidden tokens. Set it to 0, or choose a BERT.")
    chosen, seed = settings.finetune, settings.train.seed
    task = MaskedTask(model, tokens, found[0], chosen.mask_share, chosen.pretrain_steps, seed)
    how = OptimiserOptions(learning_rate=chosen.pretrain_rate, weight_decay=chosen.weight_decay)
    options = LoopOptions(task.epochs, optimiser=how, seed=seed)
    with by_itself():
        result = run(task, options, "pretrain", progress, run_dir)
    learned = model.base_model.state_dict()  # type: ignore[union-attr]
    encoder.tower.backbone.load_state_dict(learned, strict=False)  # the pooler is no part of a masked language model
    return result.losses[-1]
