"""A piece of memory that the processes of one machine share: what they tell each other there arrives in microseconds.

Through sockets each exchange costs two sleeps and two wakings, milliseconds between two busy cores; here a process that waits looks until the others are there.
"""

from __future__ import annotations

import os
import platform
import socket
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from tastemaker.schema.errors import TrainingError

_SLOT = 2**19  # float32 numbers of one process in one of the two turns; more go in pieces
_COUNTERS = 16  # int64 numbers from one process's counter to the next: a cache line apart, and one more
_LOOKS = 20_000  # a few milliseconds; from then on a process that waits sleeps between two looks
_FOLDER = Path("/dev/shm")


class Room:
    """Open to all processes of a group, which must all call the same in the same order.

    Args:
        path: a file that all can open, `bytes_of(parts)` long and zero.
        place: this process among the `parts`.
        patience: seconds after which a process that waits gives up.
    """

    def __init__(self, path: Path, place: int, parts: int, patience: float = 1800.0) -> None:
        counters = torch.from_file(str(path), shared=True, size=self.bytes_of(parts) // 8, dtype=torch.int64)
        self._counters = counters[: parts * _COUNTERS].numpy()
        self._slots = counters[parts * _COUNTERS :].view(torch.float32).view(2, parts, _SLOT)
        self._place, self._parts, self._turn, self._patience = place, parts, 0, patience

    @staticmethod
    def bytes_of(parts: int) -> int:
        """Size of the file."""
        return parts * (_COUNTERS * 8 + 2 * _SLOT * 4)

    def values(self, value: Tensor) -> Tensor:
        """What each process has, float32 [parts, ...]; each gives a value of one shape.

        Raises:
            TrainingError: another process did not come.
        """
        flat = value.detach().reshape(-1)
        found = torch.empty(self._parts, len(flat))
        for begin in range(0, len(flat), _SLOT):
            part = flat[begin : begin + _SLOT]
            found[:, begin : begin + _SLOT] = self._meet(part)
        return found.view(self._parts, *value.shape)

    def sum_into(self, value: Tensor) -> None:
        """Puts the sum of all processes' values, added as float32 in the order of the processes, into a tensor.

        Raises:
            TrainingError: another process did not come.
        """
        flat = value.view(-1)
        for begin in range(0, len(flat), _SLOT):
            part = flat[begin : begin + _SLOT]
            told = self._meet(part)
            torch.add(told[0], told[1], out=part)
            for more in told[2:]:
                part += more

    def _meet(self, part: Tensor) -> Tensor:
        """Tells up to `_SLOT` numbers, and gives what all told. A slot is written again two turns later, when all have told of having read it."""
        self._turn += 1
        slot = self._slots[self._turn % 2]
        slot[self._place, : len(part)] = part
        self._counters[self._place * _COUNTERS] = self._turn
        for other in range(self._parts):
            looks, began = 0, 0.0
            while self._counters[other * _COUNTERS] < self._turn:
                looks += 1
                if looks > _LOOKS:
                    began = began or time.monotonic()
                    time.sleep(1e-4)
                    if time.monotonic() - began > self._patience:
                        raise TrainingError(f"Process {other} of the training did not answer for {self._patience:.0f} seconds.")
        return slot[:, : len(part)]


def open_room(place: int, parts: int) -> Room | None:
    """The room of the group that this process is in; None where there can be none: several machines, more processes than cores, or a CPU that may show writes
    in another order.

    Every process of the group must ask.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    able = platform.machine() in ("x86_64", "AMD64") and os.access(_FOLDER, os.W_OK) and parts <= cores
    told: list[str | None] = [None] * parts
    dist.all_gather_object(told, f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text()}" if able else None)
    if None in told or len(set(told)) > 1:
        return None
    box: list[str | None] = [None]
    if place == 0:
        box[0] = _reserved(Room.bytes_of(parts))
    dist.broadcast_object_list(box, src=0)
    if box[0] is None:
        return None
    path = Path(box[0])
    there: list[bool] = [False] * parts
    dist.all_gather_object(there, path.is_file())  # two containers may share a machine's name and not its memory
    room = Room(path, place, parts) if all(there) else None
    dist.barrier()
    if place == 0:
        path.unlink(missing_ok=True)
    return room


def _reserved(size: int) -> str | None:
    """A new file of zeros whose memory is there for certain; None where there is too little."""
    with tempfile.NamedTemporaryFile(prefix="tastemaker-", dir=_FOLDER, delete=False) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            Path(file.name).unlink()
            return None
        return file.name
