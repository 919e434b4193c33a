"""What this CPU can do."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def flags() -> frozenset[str]:
    """Instruction sets, as Linux names them; empty where they can't be read."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.lower().startswith(("flags", "features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        return frozenset()
    return frozenset()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
