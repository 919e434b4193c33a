"""The language model that reads what the items are: token numbers in, one unit vector a text out, and the whitening behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.schema.protocols import FloatArray


class TextTower(nn.Module):
    """A Hugging Face encoder or decoder with pooling.

    Args:
        backbone: any module that takes `input_ids` and `attention_mask` and answers with `last_hidden_state`.
        pooling: `mean` over the real tokens, `cls` for the first token or `last` for the last real one.
        head: what stands behind the pooling, [B, H] to [B, T]; None: nothing.
    """

    def __init__(self, backbone: nn.Module, pooling: str = "mean", head: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.pooling, self.head = backbone, pooling, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors, float32 [B, H], or [B, T] behind a head.

        Args:
            input_ids: int64 [B, L].
            attention_mask: int64 [B, L], 1 for real tokens, which come first.
        """
        hidden_BLH = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        if self.pooling == "cls":
            pooled_BH = hidden_BLH[:, 0]
        elif self.pooling == "last":
            last_B = (attention_mask.sum(1) - 1).clamp(min=0)
            pooled_BH = hidden_BLH.gather(1, last_B[:, None, None].expand(-1, 1, hidden_BLH.shape[-1]))[:, 0]
        else:
            weight_BL1 = attention_mask[..., None].to(hidden_BLH.dtype)
            pooled_BH = (hidden_BLH * weight_BL1).sum(1) / weight_BL1.sum(1).clamp(min=1.0)
        unit_BH = F.normalize(pooled_BH, dim=-1)
        return unit_BH if self.head is None else F.normalize(self.head(unit_BH), dim=-1)


def length_batches(tokens: Sequence[Sequence[int]], size: int, area: int = 8_192) -> list[np.ndarray]:
    """Batches of texts of like length, so that little is spent on padding.

    Args:
        tokens: token numbers of each text.
        size: texts a batch at most.
        area: tokens a batch at most, padding included; a longer text is a batch of its own.

    Returns:
        Indices into `tokens`, each exactly once, shortest texts first.
    """
    order = np.argsort([len(text) for text in tokens], kind="stable")
    batches: list[np.ndarray] = []
    begin = 0
    for end in range(1, len(order) + 1):
        full = end < len(order) and (end - begin + 1) * len(tokens[order[end]]) > area
        if end == len(order) or end - begin >= size or full:
            batches.append(order[begin:end])
            begin = end
    return batches


def pad_tokens(tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token numbers padded on the right with 0, and the mask of the real ones; both int64 [B, L]."""
    width = max((len(text) for text in tokens), default=1)
    ids = torch.zeros(len(tokens), max(width, 1), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
        mask[row, : len(text)] = 1
    return ids, mask


@dataclass(frozen=True)
class Whitening:
    """Principal components scaled to the same spread: pulls the narrow cone of a language model's vectors apart.

    Worth +25 % NDCG for text neighbours (Su et al. 2021, "Whitening sentence representations"). Rows are made unit length.

    Attributes:
        mean: float32 [H].
        components: float32 [T, H]; T = 0 where there is no text at all.
    """

    mean: FloatArray
    components: FloatArray

    @classmethod
    def fit(cls, vectors: FloatArray, dim: int, power: float = 1.0) -> Whitening:
        """Learns from text vectors, float32 [n, H]; keeps at most `dim` directions, fewer for few texts.

        With a `power` below 1 directions of large spread keep some of it; with 0 the vectors are only turned and centred.

        Directions with next to no spread are left out, so that copies of one text don't blow up noise. With as many directions as texts every pair
        would be equally far apart, and a new text near all of them: a quarter of their number is kept at most.
        """
        width = vectors.shape[1]
        if len(vectors) < 2:
            return cls(np.zeros(width, np.float32), np.eye(width, dtype=np.float32)[: min(dim, width)])
        mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - mean
        spread, directions = np.linalg.eigh(centred.T @ centred / len(vectors))
        best = np.argsort(-spread, kind="stable")[: min(dim, width, len(vectors) - 1, max(2, len(vectors) // 4))]
        best = best[spread[best] > 1e-7 * max(float(spread.max()), 1e-12)]
        components = (directions[:, best] / np.sqrt(spread[best]) ** power).T
        return cls(mean.astype(np.float32), np.ascontiguousarray(components, dtype=np.float32))

    def apply(self, vectors: FloatArray, empty: np.ndarray | None = None) -> FloatArray:
        """Whitened unit rows, float32 [n, T]; rows marked in `empty` (bool [n]) become zero."""
        found: FloatArray = ((vectors - self.mean) @ self.components.T).astype(np.float32)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        found = np.divide(found, length, out=np.zeros_like(found), where=length > 1e-12)
        if empty is not None:
            found[empty] = 0.0
        return found
