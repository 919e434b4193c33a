"""What the frozen lower layers give for each text of the catalogue, computed once: training the upper ones then costs a fraction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tastemaker.models.text import TextTower, length_batches, pad_tokens
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray, Progress

_GIB = 2**30


class CatalogueReader:
    """Reads the catalogue's texts by number.

    Args:
        tower: the language model; the output of its first `frozen` layers is remembered where it fits.
        tokens: token numbers of each text.
        frozen: lowest layers that never change.
        pooled: unit vectors of the texts before the tower's head, float32 [N, H], where the whole backbone is frozen; no text is read then.
        limit: bytes that may be remembered.
        dtype: in which the large products run; bfloat16 by autocast, the weights stay fp32.
        progress: called as progress("lower layers", texts done, texts).
        lower: what was remembered before, by text; None: nothing yet.
    """

    def __init__(
        self,
        tower: TextTower,
        tokens: Sequence[Sequence[int]],
        frozen: int = 0,
        pooled: FloatArray | None = None,
        limit: float = 4.0 * _GIB,
        dtype: torch.dtype = torch.float32,
        progress: Progress | None = None,
        lower: list[Tensor] | None = None,
    ) -> None:
        self.tower, self.tokens, self.dtype, self.frozen, self.lower = tower, tokens, dtype, frozen, lower
        self.lengths = np.array([len(text) for text in tokens], dtype=np.int64)
        self._layers = list(layers_of(tower.backbone))[:frozen] if frozen else []
        self.pooled = None if pooled is None else torch.from_numpy(pooled)
        if lower is None and frozen and self.lengths.sum() * _width(tower) * 4 <= limit:
            self.lower = [torch.empty(0)] * len(tokens)
            self._each(self._remember, progress)

    @property
    def width(self) -> int:
        """Numbers of a vector before a head."""
        return _width(self.tower)

    def __call__(self, rows: np.ndarray) -> Tensor:
        """Unit vectors of texts by number, [n, T]; gradients reach what is trained. Texts of like length should share a call."""
        if self.pooled is not None:
            assert self.tower.head is not None
            return nn.functional.normalize(self.tower.head(self.pooled[torch.from_numpy(rows)]), dim=-1)
        ids, mask = pad_tokens([self.tokens[row] for row in rows])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16), self._recall(rows):
            found: Tensor = self.tower(ids, mask)
        return found.float()

    def vectors(self, batch: int = 64, progress: Progress | None = None, rows: np.ndarray | None = None) -> FloatArray:
        """Vectors of texts as the tower is now, float32 [n, T]; no gradients, no dropout.

        Args:
            rows: numbers of the texts that are wanted; None: all.
        """
        return self._each(lambda rows: self(rows), progress, batch, rows)

    @torch.no_grad()
    def _each(
        self, read: Callable[[np.ndarray], Tensor], progress: Progress | None, batch: int = 64, rows: np.ndarray | None = None
    ) -> FloatArray:
        self.tower.eval()
        rows = np.arange(len(self.tokens)) if rows is None else rows
        found: FloatArray | None = None
        done = 0
        for places in length_batches([self.tokens[row] for row in rows.tolist()], batch):
            part = read(rows[places]).numpy()
            if found is None:
                found = np.zeros((len(rows), *part.shape[1:]), dtype=np.float32)
            found[places] = part
            done += len(places)
            if progress:
                progress("text, tuned", done, len(rows))
        return np.zeros((0, _width(self.tower)), dtype=np.float32) if found is None else found

    def _remember(self, rows: np.ndarray) -> Tensor:
        """Runs the model once and keeps what its last frozen layer gave for each real token."""
        assert self.lower is not None
        kept: list[Tensor] = []
        handle = self._layers[-1].register_forward_hook(lambda layer, given, made: kept.append(_hidden(made)))
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                self.tower.backbone(
                    **dict(zip(("input_ids", "attention_mask"), pad_tokens([self.tokens[row] for row in rows]), strict=True))
                )
        finally:
            handle.remove()
        for place, row in enumerate(rows):
            self.lower[row] = kept[0][place, : self.lengths[row]].float().clone()
        return torch.zeros(len(rows), 1)

    @contextmanager
    def _recall(self, rows: np.ndarray) -> Iterator[None]:
        """Inside, the frozen layers hand on what was remembered of these texts, or compute it without gradients."""
        if self.lower is None:
            yield
            return
        hidden = nn.utils.rnn.pad_sequence([self.lower[row] for row in rows], batch_first=True)
        with ExitStack() as stack:
            for layer in self._layers[:-1]:
                stack.enter_context(_replaced(layer, lambda given: given))
            stack.enter_context(_replaced(self._layers[-1], lambda given: hidden))
            yield


def layers_of(backbone: nn.Module) -> nn.ModuleList:
    """The list of a transformer's layers, lowest first.

    Raises:
        SettingsError: the model keeps no such list (its layers share weights, or it is no transformer).
    """
    wanted = int(getattr(backbone.config, "num_hidden_layers", 0))
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return module
    raise SettingsError(
        f"finetune.mode 'last': {type(backbone).__name__} has no list of {wanted} layers. Choose head, lora or full."
    )


@contextmanager
def _replaced(layer: nn.Module, answer: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, a layer answers without computing; its weights and its name stay where they are."""

    def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return answer(hidden_states)

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


def _hidden(made: Any) -> Tensor:
    if not isinstance(made, Tensor):
        raise SettingsError("finetune.mode 'last': this model's layers give more than hidden states. Choose head, lora or full.")
    return made


def _width(tower: TextTower) -> int:
    return int(tower.backbone.config.hidden_size)  # type: ignore[union-attr,arg-type]
