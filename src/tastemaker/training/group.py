"""The processes that train one model together, as `torch.distributed` knows them; alone, a group of one."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    """This process's number; 0 leads."""
    return dist.get_rank() if _together() else 0


def world() -> int:
    """Processes of the group."""
    return dist.get_world_size() if _together() else 1


def from_leader(value: T) -> T:
    """The leader's value, in every process."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def sum_of(value: float) -> float:
    """The sum of all processes' values, in every process."""
    if world() == 1:
        return value
    box = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(box)
    return float(box)


def meet() -> None:
    """Waits until every process of the group is here."""
    if world() > 1:
        dist.barrier()


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
