"""The weights of a graph in a file of their own.

A graph with its weights inside is read into each process as a whole. Weights in a file beside it are mapped: the processes of a machine share one copy, and rows of a table
that nobody looks up are never read.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import convert_model_to_external_data, uses_external_data

from tastemaker.bundle.verify import payload_files
from tastemaker.compression.step import Facts, NotApplicable, Tools, carry

LEAST_BYTES = 1 << 20
"""Smaller graphs stay as they are."""
WEIGHTS = ".weights"
"""Behind the name of the graph."""
_LEAST_TENSOR = 4_096


def shared(bundle: Path, place: Path, tools: Tools) -> Facts:
    """The step that does it with every large graph of a bundle. The numbers stay the same."""
    large = [
        name
        for name in payload_files(bundle)
        if name.endswith(".onnx") and (bundle / name).stat().st_size >= LEAST_BYTES and not apart(bundle / name)
    ]
    if not large:
        raise NotApplicable("no graph in it holds a megabyte of weights")
    carry(bundle, place, large)
    return {"graphs": len(large), "bytes apart": sum(separate(bundle / name, place / name) for name in large)}


def separate(source: Path, target: Path) -> int:
    """Writes a graph without its large weights, and these into a file beside it; gives the bytes of that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.load(str(source))
    weights = target.with_name(target.name + WEIGHTS)
    convert_model_to_external_data(model, location=weights.name, size_threshold=_LEAST_TENSOR)
    onnx.save(model, str(target))
    weights.chmod(target.stat().st_mode)  # the library lets only the owner read it
    return weights.stat().st_size


def apart(graph: Path) -> bool:
    """Whether a graph's weights lie in another file."""
    model = onnx.load(str(graph), load_external_data=False)
    return any(uses_external_data(one) for one in model.graph.initializer)
