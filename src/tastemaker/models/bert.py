"""A small text encoder: the layers of BERT (Devlin et al. 2018), each as narrow as it was left, and a table of word vectors alone.

Both take `input_ids` and `attention_mask` and give unit vectors, as the language model does whose place they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MASKED = -1e4


@dataclass(frozen=True)
class Shape:
    """What a `Bert` is made of.

    Attributes:
        words, positions, hidden: rows of the tables, and length H of a state.
        heads, forward: attention heads and feed-forward neurons of each layer.
        head_dim: numbers of a head.
        pooling: `mean` or `cls`.
        epsilon: of the norms.
    """

    words: int
    positions: int
    hidden: int
    heads: tuple[int, ...]
    forward: tuple[int, ...]
    head_dim: int
    pooling: str = "mean"
    epsilon: float = 1e-12


class Rounded(nn.Linear):
    """A product that may be rounded to eight bits as it will be served: weights by output channel, inputs as a whole (B. Jacob et al., 2018).

    Attributes:
        rounding: it is rounded now.
        factor: what each channel of the inputs is divided by, and its weights are multiplied with, before: float32 [K]; None: nothing.
        span: range of the inputs that the 256 steps cover; None: that of the batch.
    """

    rounding = False
    factor: Tensor | None = None
    span: tuple[float, float] | None = None

    def forward(self, given: Tensor) -> Tensor:
        """The product, float32 [..., out]."""
        if not self.rounding:
            return F.linear(given, self.weight, self.bias)
        weight = self.weight if self.factor is None else self.weight * self.factor
        given = given if self.factor is None else given / self.factor
        scale = weight.detach().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        if self.span is None:
            low, high = given.detach().amin().clamp(max=0.0), given.detach().amax().clamp(min=0.0)
        else:
            low, high = given.new_tensor(self.span[0]), given.new_tensor(self.span[1])
            given = torch.minimum(torch.maximum(given, low), high)
        step = ((high - low) / 255).clamp(min=1e-12)
        return F.linear(_near(given, step), _near(weight, scale), self.bias)


class Layer(nn.Module):
    """Attention and feed-forward, each with a norm behind."""

    def __init__(self, hidden: int, heads: int, head_dim: int, forward: int, epsilon: float) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.query_key_value, self.out = Rounded(hidden, 3 * heads * head_dim), Rounded(heads * head_dim, hidden)
        self.up, self.down = Rounded(hidden, forward), Rounded(forward, hidden)
        self.norm_attention, self.norm_forward = nn.LayerNorm(hidden, eps=epsilon), nn.LayerNorm(hidden, eps=epsilon)

    def forward(self, hidden_BLH: Tensor, barred_B11L: Tensor) -> Tensor:
        """The states behind this layer, float32 [B, L, H]."""
        hidden_BLH = self.norm_attention(hidden_BLH + self.out(self.heard(hidden_BLH, barred_B11L)))
        after_BLH: Tensor = self.norm_forward(hidden_BLH + self.down(self.thought(hidden_BLH)))
        return after_BLH

    def heard(self, hidden_BLH: Tensor, barred_B11L: Tensor) -> Tensor:
        """What the heads bring, side by side, float32 [B, L, heads · head_dim]."""
        split = self.query_key_value(hidden_BLH).unflatten(-1, (3, self.heads, self.head_dim))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        weight_BNLL = torch.softmax(query @ key.transpose(-1, -2) * self.head_dim**-0.5 + barred_B11L, dim=-1)
        heard: Tensor = (weight_BNLL @ value).transpose(1, 2).flatten(2)
        return heard

    def thought(self, hidden_BLH: Tensor) -> Tensor:
        """The feed-forward neurons, float32 [B, L, F]."""
        return F.gelu(self.up(hidden_BLH))


class Bert(nn.Module):
    """Token numbers to unit vectors."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.words, self.positions = nn.Embedding(shape.words, shape.hidden), nn.Embedding(shape.positions, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.layers = nn.ModuleList(
            Layer(shape.hidden, heads, shape.head_dim, forward, shape.epsilon)
            for heads, forward in zip(shape.heads, shape.forward, strict=True)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors, float32 [B, H], of token numbers and their mask, int64 [B, L]."""
        mask_BL = attention_mask.to(torch.float32)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden_BLH = self.norm(self.words(input_ids) + self.positions(places))
        barred = (1.0 - mask_BL)[:, None, None, :] * _MASKED
        for layer in self.layers:
            hidden_BLH = layer(hidden_BLH, barred)
        return pooled(hidden_BLH, mask_BL, self.shape.pooling)

    def each_layer(self) -> list[Layer]:
        """The layers, by their type."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def rounded(self, on: bool) -> None:
        """Rounds all products to eight bits from now on, or no more."""
        for part in self.products():
            part.rounding = on

    def products(self) -> list[Rounded]:
        """All products with learned weights."""
        return [module for module in self.modules() if isinstance(module, Rounded)]


class WordTable(nn.Module):
    """The mean of word vectors: the cheapest encoder that there is (model2vec: Tulkens and van Dongen 2024)."""

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Embedding(*words.shape)
        self.words.weight = nn.Parameter(words.clone())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors, float32 [B, H]."""
        return pooled(self.words(input_ids), attention_mask.to(torch.float32), "mean")


def pooled(hidden_BLH: Tensor, mask_BL: Tensor, pooling: str) -> Tensor:
    """Unit vectors, float32 [B, H]: the first state or the mean of the real ones."""
    if pooling == "cls":
        return F.normalize(hidden_BLH[:, 0], dim=-1)
    weight_BL1 = mask_BL[..., None]
    return F.normalize((hidden_BLH * weight_BL1).sum(1) / weight_BL1.sum(1).clamp(min=1.0), dim=-1)


def from_weights(weights: Mapping[str, Tensor], heads: int, pooling: str, epsilon: float) -> Bert:
    """A `Bert` from the weights of a Hugging Face BERT, by their names there; the token type is 0 throughout.

    Raises:
        KeyError: a weight is missing: it is another kind of model.
    """
    words, places = weights["embeddings.word_embeddings.weight"], weights["embeddings.position_embeddings.weight"]
    hidden, count = words.shape[1], 0
    while f"encoder.layer.{count}.output.dense.weight" in weights:
        count += 1
    forward = tuple(len(weights[f"encoder.layer.{place}.intermediate.dense.bias"]) for place in range(count))
    shape = Shape(len(words), len(places), hidden, (heads,) * count, forward, hidden // heads, pooling, epsilon)
    model, state = Bert(shape), dict[str, Tensor]()
    state["words.weight"] = words
    state["positions.weight"] = places + weights["embeddings.token_type_embeddings.weight"][0]
    _take(state, "norm", weights, "embeddings.LayerNorm")
    for place in range(count):
        here, there = f"layers.{place}", f"encoder.layer.{place}"
        for kind in ("weight", "bias"):
            parts = [weights[f"{there}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            state[f"{here}.query_key_value.{kind}"] = torch.cat(parts)
        _take(state, f"{here}.out", weights, f"{there}.attention.output.dense")
        _take(state, f"{here}.norm_attention", weights, f"{there}.attention.output.LayerNorm")
        _take(state, f"{here}.up", weights, f"{there}.intermediate.dense")
        _take(state, f"{here}.down", weights, f"{there}.output.dense")
        _take(state, f"{here}.norm_forward", weights, f"{there}.output.LayerNorm")
    model.load_state_dict(state)
    return model.eval()


def kept(model: Bert, layers: Sequence[int], heads: Sequence[Sequence[int]], forward: Sequence[Sequence[int]]) -> Bert:
    """The same model with some of its parts alone; what is left out is gone, so that the arithmetic is saved, not masked.

    Args:
        layers: numbers of the layers that stay.
        heads, forward: for each of these the numbers of the heads and neurons that stay.
    """
    old, dim = model.shape, model.shape.head_dim
    counts = tuple(map(len, heads)), tuple(map(len, forward))
    shape = Shape(old.words, old.positions, old.hidden, counts[0], counts[1], dim, old.pooling, old.epsilon)
    less = Bert(shape)
    for name in ("words", "positions", "norm"):
        getattr(less, name).load_state_dict(getattr(model, name).state_dict())
    for target, place, some_heads, neurons in zip(less.layers, layers, heads, forward, strict=True):
        state = model.layers[place].state_dict()
        inside = torch.tensor([head * dim + number for head in some_heads for number in range(dim)], dtype=torch.int64)
        width = old.heads[place] * dim
        threefold = torch.cat([inside + part * width for part in range(3)])
        rows = torch.tensor(list(neurons), dtype=torch.int64)
        for kind in ("weight", "bias"):
            state[f"query_key_value.{kind}"] = state[f"query_key_value.{kind}"][threefold]
            state[f"up.{kind}"] = state[f"up.{kind}"][rows]
        state["out.weight"], state["down.weight"] = state["out.weight"][:, inside], state["down.weight"][:, rows]
        target.load_state_dict(state)
    return less.eval()


def _take(state: dict[str, Tensor], here: str, weights: Mapping[str, Tensor], there: str) -> None:
    for kind in ("weight", "bias"):
        state[f"{here}.{kind}"] = weights[f"{there}.{kind}"]


def _near(given: Tensor, step: Tensor) -> Tensor:
    """Rounded to multiples of `step`; gradients pass as if it were not."""
    return given + (torch.round(given / step) * step - given).detach()
