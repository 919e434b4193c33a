"""Which runtime runs a graph: of those that are here and that give the right answers, the fastest on this CPU.

A compressed bundle keeps inputs and answers beside a graph (`golden.npz`). With them every runtime is tried for a moment at the first load; the choice is remembered
outside of the bundle, which is never written to. A graph without them runs in ONNX Runtime, as it is.

    onnxruntime         the graph as it is; int8 in the CPU's own instructions (VNNI) where it has them
    onnxruntime-float   int8 undone: the same numbers computed in float, for CPUs whose int8 instructions overflow
    openvino            where it is installed (extra `compress`)
    openvino-bf16       the same in bfloat16, where the CPU computes in it
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import onnxruntime
import xxhash

from tastemaker.inference.cpu import flags
from tastemaker.schema.errors import BundleError

GOLDEN = "golden.npz"
SECONDS = 2.0
"""Longest time that all trials of one graph take together."""
LEAST_ALIKE = {"onnxruntime": 0.995, "onnxruntime-float": 0.9999, "openvino": 0.995, "openvino-bf16": 0.99}
"""Smallest cosine of a runtime's answer with the kept one; below it the runtime is not used."""
_BF16 = {"avx512_bf16", "amx_bf16"}


class Runs(Protocol):
    """A graph that is ready; `onnxruntime.InferenceSession` has this shape."""

    def run(self, names: None, inputs: Mapping[str, Any]) -> list[Any]:
        """All outputs for named inputs."""


def open_graph(path: Path, threads: int = 1) -> Runs:
    """The graph in the fastest runtime that answers right.

    Raises:
        BundleError: none can run it.
    """
    if not path.with_name(GOLDEN).is_file():
        return by_onnxruntime(path, threads)
    key = _key(path, threads)
    kept = _read(key)
    if kept in openers():
        try:
            return openers()[kept](path, threads)
        except Exception as error:  # the runtimes raise classes of their own
            print(
                f"{path.parent.name}: {kept} could run it before and can't now ({str(error)[:150]}); another runtime is chosen",
                flush=True,
            )
    return choose(path, threads, key)


def chosen(path: Path, threads: int = 1) -> str:
    """Name of the runtime that a graph runs in here."""
    return (_read(_key(path, threads)) if path.with_name(GOLDEN).is_file() else None) or "onnxruntime"


def choose(path: Path, threads: int = 1, key: str | None = None) -> Runs:
    """Tries all runtimes with the kept inputs and gives the fastest right one; remembers it under `key`."""
    with np.load(path.with_name(GOLDEN), allow_pickle=False) as table:
        feed = {name: table[name] for name in table.files if name != "vector"}
        wanted = table["vector"]
    found: dict[str, tuple[float, Runs]] = {}
    against = []
    every = openers()
    for name, opener in every.items():
        try:
            runs = opener(path, threads)
            alike = _alike(runs.run(None, feed)[0], wanted)
        except Exception as error:
            against.append(f"{name}: {str(error)[:150]}")
            continue
        if alike < LEAST_ALIKE[name]:
            against.append(f"{name}: its answers differ (cosine {alike:.4f})")
            continue
        found[name] = _seconds(runs, feed, SECONDS / len(every)), runs
    if not found:
        raise BundleError(
            f"{path} gives the right answers in no runtime of this machine ({'; '.join(against)}). Use another bundle."
        )
    best = min(found, key=lambda name: found[name][0])
    for words in against:
        print(f"{path.parent.name}: not used: {words}; {best} is", flush=True)
    if key is not None:
        _write(key, best, {name: seconds for name, (seconds, _) in found.items()})
    return found[best][1]


def openers() -> dict[str, Callable[[Path, int], Runs]]:
    """The runtimes that are here, by name."""
    found: dict[str, Callable[[Path, int], Runs]] = {"onnxruntime": by_onnxruntime, "onnxruntime-float": _by_float}
    if importlib.util.find_spec("openvino") is not None:
        found["openvino"] = _by_openvino
        if flags() & _BF16:
            found["openvino-bf16"] = _by_openvino_bf16
    return found


def by_onnxruntime(path: Path, threads: int = 1, undo: bool = False) -> Runs:
    """An ONNX Runtime session on the CPU; `undo`: eight bits are computed in float.

    Raises:
        BundleError: the graph can't be read.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if undo:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        runs: Runs = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises classes of its own that share no base
        raise BundleError(f"{path} can't be run ({str(error)[:200]}). Use another bundle.") from None
    return runs


class OpenVino:
    """A graph in OpenVINO; each thread has its own request."""

    def __init__(self, path: Path, threads: int, precision: str) -> None:
        import openvino

        hints = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        self._model = openvino.Core().compile_model(str(path), "CPU", hints)
        self._own = threading.local()

    def run(self, names: None, inputs: Mapping[str, Any]) -> list[Any]:
        """All outputs for named inputs."""
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        return [np.array(value) for value in self._own.request.infer(dict(inputs)).values()]


def _by_float(path: Path, threads: int) -> Runs:
    return by_onnxruntime(path, threads, undo=True)


def _by_openvino(path: Path, threads: int) -> Runs:
    return OpenVino(path, threads, "f32")


def _by_openvino_bf16(path: Path, threads: int) -> Runs:
    return OpenVino(path, threads, "bf16")


def _alike(found: Any, wanted: Any) -> float:
    """Smallest cosine of the rows of two tables; 0 for other shapes or numbers that are none."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return 0.0
    length = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
    cosine = (found * wanted).sum(axis=-1) / np.maximum(length, 1e-12)
    return float(np.where(np.linalg.norm(wanted, axis=-1) > 0, cosine, 1.0).min(initial=1.0))


def _seconds(runs: Runs, feed: Mapping[str, Any], most: float) -> float:
    """Median seconds of a run, for at most so long."""
    times: list[float] = []
    end = time.perf_counter() + most
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 30):
        began = time.perf_counter()
        runs.run(None, feed)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _key(path: Path, threads: int) -> str:
    """Stands for the graph, the CPU, the threads and the runtimes' versions."""
    versions = [
        importlib.metadata.version(name) for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name) is not None
    ]
    digest = xxhash.xxh3_128()
    for part in (path, *sorted(path.parent.glob(f"{path.name}.*"))):  # weights may lie in a file of their own
        digest.update(part.read_bytes())
    words = [digest.hexdigest(), *sorted(flags()), str(threads), *versions]
    return xxhash.xxh3_128_hexdigest(" ".join(words).encode())


def _folder() -> Path:
    base = os.environ.get("TASTEMAKER_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tastemaker" / "runtimes"


def _read(key: str) -> str | None:
    try:
        return str(msgspec.json.decode((_folder() / f"{key}.json").read_bytes())["runtime"])
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, RuntimeError):
        return None


def _write(key: str, name: str, seconds: Mapping[str, float]) -> None:
    """Remembers a choice; where there is nowhere to write, it is made again at the next load."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        partial = _folder() / f".{key}.{os.getpid()}"
        partial.write_bytes(msgspec.json.encode({"runtime": name, "seconds": dict(seconds)}))
        partial.replace(_folder() / f"{key}.json")
    except (OSError, RuntimeError):
        return
