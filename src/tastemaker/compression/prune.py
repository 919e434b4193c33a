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


def taylor(model: Bert, batches: Sequence[Tokens], seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """How far the answer would move without each head and each neuron, to the first order, for each layer float32 [heads] and [F].

    A part's activation times the gradient of the answer in a random direction, summed over the tokens of a text and squared (P. Molchanov et al., 2019, arXiv 1906.10771,
    equation 8): unlike `importance` it knows of all layers behind the part, for three times the work.
    """
    heads = [torch.zeros(count) for count in model.shape.heads]
    neurons = [torch.zeros(count) for count in model.shape.forward]
    random = torch.Generator().manual_seed(seed)
    for ids, mask in batches:
        met, gradients = _gradients(model, ids, mask, random)
        moved = [(given * gradient).detach() * mask[..., None] for given, gradient in zip(met, gradients, strict=True)]
        for place in range(len(heads)):
            heads[place] += moved[2 * place].sum(1).view(len(ids), -1, model.shape.head_dim).sum(2).square().sum(0)
            neurons[place] += moved[2 * place + 1].sum(1).square().sum(0)
    return heads, neurons


def _gradients(model: Bert, ids: Tensor, mask: Tensor, random: torch.Generator) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """What heads and neurons bring, layer by layer, and its gradients of the answer in a random direction."""
    met: list[Tensor] = []
    watched = [part for layer in model.each_layer() for part in (layer.out, layer.down)]
    hooks = [part.register_forward_pre_hook(lambda _, given: met.append(given[0])) for part in watched]
    try:
        with torch.enable_grad():
            answer = model(ids, mask)
            return met, torch.autograd.grad((answer * torch.randn(answer.shape, generator=random)).sum(), met)
    finally:
        for hook in hooks:
            hook.remove()


MEASURES = {"activation": importance, "taylor": taylor}
"""How the importance of heads and neurons is told."""


def cut(model: Bert, layers: int, heads: float, forward: float, batches: Sequence[Tokens], measure: str = "activation") -> Bert:
    """The model with its most important parts alone.

    Args:
        layers: how many stay. heads, forward: shares of each layer's heads and neurons that stay, in (0, 1].
        batches: real texts by which importance is told. measure: one of `MEASURES`, for heads and neurons.
    """
    chosen = best_layers(model, layers, batches) if layers < len(model.layers) else list(range(len(model.layers)))
    if heads >= 1 and forward >= 1:
        return _only(model, chosen)
    by_head, by_neuron = MEASURES[measure](model, batches)
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
