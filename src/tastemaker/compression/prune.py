"""What of a text encoder matters least: layers by leaving them out, heads and neurons by what they bring on real texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tastemaker.models.bert import Bert, kept

Tokens = tuple[Tensor, Tensor]


@torch.inference_mode()
def best_layers(model: Bert, count: int, batches: Sequence[Tokens]) -> list[int]:
    """Numbers of the `count` layers to keep: again and again the one goes without which the answers stay closest."""
    wanted, left = [model(*batch) for batch in batches], list(range(len(model.layers)))
    while len(left) > max(count, 1):
        alike = {}
        for layer in left:
            shorter = _only(model, [other for other in left if other != layer])
            alike[layer] = sum(float((shorter(*batch) * answer).sum()) for batch, answer in zip(batches, wanted, strict=True))
        left.remove(max(left, key=lambda layer: alike[layer]))
    return left


@torch.inference_mode()
def importance(model: Bert, batches: Sequence[Tokens]) -> tuple[list[Tensor], list[Tensor]]:
    """How much each head and each neuron adds to the state behind it, for each layer float32 [heads] and [F].

    A part adds its mean size times the length of the weights that carry it on (activation times weight: M. Sun et al., 2023, arXiv 2306.11695).
    """
    heads = [torch.zeros(count) for count in model.shape.heads]
    neurons = [torch.zeros(count) for count in model.shape.forward]
    for ids, mask in batches:
        real = mask.bool()
        hidden = model.norm(model.words(ids) + model.positions(torch.arange(ids.shape[1])))
        barred = (1.0 - mask.float())[:, None, None, :] * -1e4
        for place, layer in enumerate(model.each_layer()):
            heard = layer.heard(hidden, barred)
            heads[place] += (heard[real].abs().mean(0) * layer.out.weight.norm(dim=0)).view(-1, model.shape.head_dim).sum(1)
            after = layer.norm_attention(hidden + layer.out(heard))
            thought = layer.thought(after)
            neurons[place] += thought[real].abs().mean(0) * layer.down.weight.norm(dim=0)
            hidden = layer.norm_forward(after + layer.down(thought))
    return heads, neurons


def cut(model: Bert, layers: int, heads: float, forward: float, batches: Sequence[Tokens]) -> Bert:
    """The model with its most important parts alone.

    Args:
        layers: how many stay. heads, forward: shares of each layer's heads and neurons that stay, in (0, 1].
        batches: real texts by which importance is told.
    """
    chosen = best_layers(model, layers, batches) if layers < len(model.layers) else list(range(len(model.layers)))
    if heads >= 1 and forward >= 1:
        return _only(model, chosen)
    by_head, by_neuron = importance(model, batches)
    some_heads = [_most(by_head[place], heads) for place in chosen]
    some_neurons = [_most(by_neuron[place], forward, 64) for place in chosen]
    return kept(model, chosen, some_heads, some_neurons)


def _only(model: Bert, layers: Sequence[int]) -> Bert:
    heads = [range(model.shape.heads[place]) for place in layers]
    return kept(model, layers, heads, [range(model.shape.forward[place]) for place in layers])


def _most(values: Tensor, share: float, step: int = 1) -> list[int]:
    """Numbers of the most important ones, in order; `step` rounds their count up to what wide instructions fill."""
    count = min(max(-(-round(len(values) * share) // step) * step, 1), len(values))
    return sorted(torch.topk(values, count).indices.tolist())
