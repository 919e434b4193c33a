"""In which numbers this CPU computes best."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from tastemaker.schema.errors import SettingsError

_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last one is Arm's


@cache
def computes_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX-512 BF16, AMX or Arm BF16); elsewhere bf16 is slower than fp32."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith(("flags", "features")):
                return bool(_FLAGS & set(line.lower().split()))
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def compute_dtype(setting: str) -> torch.dtype:
    """The type of the large matrix products for `train.precision`: `auto`, `bf16` or `fp32`.

    Raises:
        SettingsError: another word.
    """
    if setting not in ("auto", "bf16", "fp32"):
        raise SettingsError(f"train.precision is {setting!r}; expected auto, bf16 or fp32.")
    if setting == "auto":
        return torch.bfloat16 if computes_bf16() else torch.float32
    return torch.bfloat16 if setting == "bf16" else torch.float32


def use_threads(count: int) -> int:
    """Sets torch's threads, 0 for this process's share of the cores that it may use; gives their number."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = count if count > 0 else max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return threads


def check_device(setting: str) -> None:
    """Refuses what `train.device` can't be here.

    Raises:
        SettingsError: it is not `cpu`; the message says what this machine has.
    """
    if setting != "cpu":
        there = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
        raise SettingsError(
            f"train.device is {setting!r}; this machine has {there} (torch {torch.__version__}), and training runs on CPUs only. "
            'Set train.device = "cpu".'
        )


@contextmanager
def each_thread_alone() -> Iterator[int]:
    """Gives how many threads torch has; inside, each operation uses one, so that as many can work side by side on work of their own.

    Where the operations are small that is faster than many threads for each (a fifth, reading texts with two).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers too small for a normal float count as zero inside: rare items' probabilities became so small that training ran 5 times slower.

    It is a state of the processor, so it is put back at the end: others may rely on such numbers.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
