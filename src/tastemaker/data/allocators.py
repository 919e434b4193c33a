"""Memory that was freed is kept for the next table. Work in chunks frees and asks for the same amounts again and again, and each page that the system gives
anew costs a fault and a clearing: two fifths of an import's CPU time.
"""

from __future__ import annotations

import ctypes
import os

POLARS = "dirty_decay_ms:5000,muzzy_decay_ms:5000"
"""For polars' allocator (jemalloc), which else gives memory back after half a second."""
_TRIM, _PAD, _MAP, _ARENAS = -1, -2, -3, -8
"""`M_TRIM_THRESHOLD`, `M_TOP_PAD`, `M_MMAP_THRESHOLD` and `M_ARENA_MAX` of glibc's `mallopt`."""
KEPT = 256 << 20
"""Bytes that numpy's allocator (glibc) may keep; larger arrays go back at once."""
PAD = 16 << 20
"""Bytes by which its heap grows at least."""


def keep_freed() -> None:
    """Has both allocators of this process keep what is freed, as far as they can be told; polars' only if polars was not imported before."""
    os.environ.setdefault("_RJEM_MALLOC_CONF", POLARS)
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_MAP, KEPT)
        libc.mallopt(_TRIM, KEPT)
        libc.mallopt(_PAD, PAD)
        libc.mallopt(
            _ARENAS, 1
        )  # threads' own heaps end at 64 MiB and are given back one by one; arrays are few and large, so one lock is no queue
    except (AttributeError, OSError):  # no glibc
        return
