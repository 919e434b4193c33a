"""The processes that train one model together, as `torch.distributed` knows them; alone, a group of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tastemaker.training.room import Room, open_room

T = TypeVar("T")
_second: dict[Any, Any] = {}
_rooms: dict[Any, Room | None] = {}
_apart_from_all: list[bool] = []


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


def gathered(part: Tensor, places: Tensor, total: int) -> Tensor:
    """Rows that the processes computed apart, put together in each of them; gradients go back to where a row was computed, summed over all.

    Args:
        part: rows of this process, [n, D]. places: where they stand, int64 [n]; no place is two processes'.
        total: rows of all.
    """
    found: Tensor = _Gathered.apply(part, places, total)  # type: ignore[no-untyped-call]
    return found


def rows_of(total: int, process: int | None = None) -> slice:
    """Which of so many rows a process answers for, this one where no other is named: as many for each as can be."""
    process, parts = rank() if process is None else process, world()
    return slice(total * process // parts, total * (process + 1) // parts)


def values_of_all(value: Tensor) -> Tensor:
    """What each process has, [processes, ...]; no gradient passes."""
    room = _room()
    if room is not None:
        return room.values(value)
    found = [torch.empty_like(value) for _ in range(world())]
    dist.all_gather(found, value, group=_apart())
    return torch.stack(found)


def sum_into(value: Tensor) -> None:
    """Puts the sum of all processes' values into a float32 tensor."""
    room = _room()
    if room is not None:
        room.sum_into(value)
    else:
        dist.all_reduce(value, group=_apart())


class _Gathered(torch.autograd.Function):
    """A sum of tables that are zero where another process's rows stand."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, places: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(places)
        whole = part.new_zeros(total, part.shape[1])
        whole[places] = part
        sum_into(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        whole = gradients[0].clone(memory_format=torch.contiguous_format)
        sum_into(whole)
        return whole[places], None, None


def _apart() -> Any:
    """The same processes as a second group: in the first one the exchange of gradients may begin before or after, and would be mixed up with it."""
    if dist.group.WORLD not in _second:
        _second.clear()
        _second[dist.group.WORLD] = dist.new_group()
    return _second[dist.group.WORLD]


def _room() -> Room | None:
    """The memory that the processes share, if they do."""
    if dist.group.WORLD not in _rooms:
        _rooms.clear()
        _rooms[dist.group.WORLD] = open_room(dist.get_rank(), dist.get_world_size())
    return _rooms[dist.group.WORLD]


@contextmanager
def by_itself() -> Iterator[None]:
    """Inside, this process is a group of one: for what only one of a group does."""
    _apart_from_all.append(True)
    try:
        yield
    finally:
        _apart_from_all.pop()


def _together() -> bool:
    return not _apart_from_all and dist.is_available() and dist.is_initialized()
