"""The processes that train one model together, as `torch.distributed` knows them; alone, a group of one."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def enter(timeout: timedelta = timedelta(minutes=30)) -> None:
    """Joins the group that torchrun or its like announces in the environment.

    The launcher's store outlives a worker that died and holds its address; so each turn of restarts has names of its own there.

    Args:
        timeout: after which a process that waits for the others gives up.
    """
    place, turn = os.environ, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    leads = place["RANK"] == "0" and place.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # else the launcher holds the store
    size = int(place["WORLD_SIZE"])
    store = dist.TCPStore(place["MASTER_ADDR"], int(place["MASTER_PORT"]), size, leads, timeout)  # type: ignore[attr-defined]
    turns = dist.PrefixStore(f"turn-{turn}", store)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=turns, rank=int(place["RANK"]), world_size=size, timeout=timeout)


def announced() -> bool:
    """Whether the environment announces a group that this process has not joined yet."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys() and not _together()


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
