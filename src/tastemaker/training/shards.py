"""A model whose weights lie in parts on the processes of a group (FSDP2; Zhao et al. 2023, arXiv 2304.11277): each collects a layer's weights when it needs them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tastemaker.schema.errors import MissingExtraError


def shard(model: nn.Module) -> nn.Module:
    """Deals the weights of a model to the processes of the group, layer by layer; gradients are averaged over the processes.

    Args:
        model: changed in place. Its lists of layers are dealt one layer at a time, what is left at once.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise MissingExtraError("train", "finetune.shard, which needs torch 2.6 or newer,") from None
    for module in list(model.modules()):
        if isinstance(module, nn.ModuleList):
            for layer in module:
                fully_shard(layer)
    fully_shard(model)
    return model


def whole(value: Tensor) -> Tensor:
    """A tensor whose parts lie on several processes as one; every process must ask."""
    collect: Any = getattr(value, "full_tensor", None)
    found: Tensor = value if collect is None else collect()
    return found


def split_like(value: Tensor, other: Tensor) -> Tensor:
    """This process's part of a whole tensor, as `other` is split; `value` itself where that is not."""
    if not hasattr(other, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    return distribute_tensor(value.to(other.dtype), other.device_mesh, other.placements, src_data_rank=None)
