"""What the environment of a Ray cluster must say before Ray is loaded; Ray reads it nowhere else."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tastemaker.schema.errors import InputError, TastemakerError

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, made for one command and gone with it."""
PROJECT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anybody
    "RAY_worker_niceness": "0",  # workers start at 15 otherwise, and starve beside anything else
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what a process of no accelerator sees is left as it is
}
"""Set unless the environment says otherwise."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Of a cluster of this machine: its processes listen on loopback alone."""


def prepare(address: str | None) -> str:
    """Prepares this process to load Ray; gives the address as `ray.init` takes it: `local` for a new cluster, as with none Ray joins whatever runs on the machine.

    Args:
        address: `local` or None, `auto`, `HOST:6379`, `ray://HOST:10001`.

    Raises:
        InputError: nobody listens at the address; Ray would look for minutes.
    """
    local = address is None or address == LOCAL
    for name, value in {**PROJECT, **(LOOPBACK if local else {})}.items():
        os.environ.setdefault(name, value)
    if address is None or address == LOCAL:
        return LOCAL
    if "ray" not in sys.modules:  # Ray asks for tokens by itself on new clusters and on `auto`, and at no other address
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            raise InputError(no_cluster(address, error)) from None
    return address


def no_cluster(address: str, error: Exception) -> str:
    """What to say where a cluster can't be joined."""
    return (
        f"No Ray cluster can be joined at {address} ({' '.join(str(error).split())[:300]}). Start one with `ray start --head`, "
        "give this machine its token (~/.ray/auth_token), or say --ray local."
    )


class Unfit(TastemakerError):
    """A machine of the cluster can't do its part."""


def check_machines(ray: Any) -> None:
    """Asks every machine of the cluster what it runs.

    Args:
        ray: the module, connected; this room loads nothing of it.

    Raises:
        Unfit: a machine runs another version of the package, or has none.
    """
    place = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    ask = ray.remote(told)
    asked = {
        node["NodeManagerHostname"]: ask.options(num_cpus=0, scheduling_strategy=place(node["NodeID"], soft=False)).remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    found = {}
    for name, answer in asked.items():
        try:
            found[name] = str(ray.get(answer, timeout=120))
        except ray.exceptions.RayError as error:
            found[name] = f"none that can be asked ({str(error).strip().splitlines()[-1][:200]})"
    for name, here in sorted(found.items()):
        check_package(package(), here, name)


def told() -> str:
    """What a machine answers."""
    return package()


def check_package(asked: str, here: str, machine: str) -> None:
    """Refuses another version of the package than that of the machine that asks.

    Raises:
        Unfit: they differ.
    """
    if asked != here:
        raise Unfit(
            f"The machine {machine} runs tastemaker {here} and was asked by tastemaker {asked}. "
            "Install the same version on every machine of the cluster, then start again."
        )


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
