"""What the environment of a Ray cluster must say before Ray is loaded; Ray reads it nowhere else."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, made for one command and gone with it."""
PROJECT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anybody
    "RAY_worker_niceness": "0",  # workers start at 15 otherwise, and starve beside anything else
    "RAY_AUTH_MODE": "token",  # who has not the token may not run code on the cluster
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what a process of no accelerator sees is left as it is
}
"""Set unless the environment says otherwise."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Of a cluster of this machine: its processes listen on loopback alone."""


def prepare(address: str | None) -> str | None:
    """Prepares this process to load Ray; gives the address as `ray.init` takes it, None for a new cluster on this machine.

    Args:
        address: `local` or None, `auto`, `HOST:6379`, `ray://HOST:10001`.
    """
    local = address in (None, LOCAL)
    for name, value in {**PROJECT, **(LOOPBACK if local else {})}.items():
        os.environ.setdefault(name, value)
    return None if local else address


@cache
def package() -> str:
    """The version of this package and a hash of its source: the same on two machines that run the same lines."""
    try:
        name = version("tastemaker")
    except PackageNotFoundError:  # run from its source
        name = "source"
    source, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(source.rglob("*.py")):
        digest.update(str(path.relative_to(source)).encode() + path.read_bytes())
    return f"{name}+{digest.hexdigest()[:8]}"
