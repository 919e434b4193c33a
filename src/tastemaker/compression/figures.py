"""Sizes and speeds of a bundle, measured the same way for every rung."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.bundle.verify import read_manifest
from tastemaker.compression.step import TEXT, Answering, Step
from tastemaker.index.coded import load
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray

HELD_SHARE = 5
"""One text in so many is never shown to a step: it stands for the texts of items to come."""
_ASKED, _READ, _REPEATS = 60, 64, 3
LEAST_GAIN = {"bytes": 0.0, "resident": 0.01, "answers": 0.05, "texts": 0.05}
"""By which share a figure must get better to count as better: bytes are exact, speeds are measured on whatever machine is there."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle takes.

    Attributes:
        bytes: of all its files. parts: of each folder.
        parameters: learned numbers in its graphs.
        p50, p99: milliseconds from a history to its ten items, one at a time.
        answers: a second of CPU, 64 at a time.
        texts: read in a second of CPU, 64 at a time.
        memory, resident: bytes that a fresh process takes for the bundle when it loads it and answers, at the peak and then; None: not measured.
        neighbours: share of the ten nearest texts that are the same as before, of texts that no step has seen; None: no text.
        neighbours_seen: the same of texts that were in the catalogue of the steps.
    """

    bytes: int
    parts: dict[str, int]
    parameters: int
    p50: float
    p99: float
    answers: float
    texts: float
    memory: int | None = None
    resident: int | None = None
    neighbours: float | None = None
    neighbours_seen: float | None = None


def gained(before: Figures, after: Figures, names: Sequence[str]) -> str:
    """Why a step is not worth taking: the sentence that none of these figures (of `LEAST_GAIN`) got better; empty where one did, was not measured, or none is named."""
    told = []
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if old is None or new is None:
            return ""
        better = old - new if name in ("bytes", "resident") else new - old
        if better > LEAST_GAIN[name] * old:
            return ""
        told.append(f"{name} {old:,.0f} before, {new:,.0f} after")
    return f"it wins nothing ({'; '.join(told)})" if told else ""


class Probe:
    """Measures bundles beside the one that it met first.

    Args:
        histories: of the questions.
        texts: of the items, empty ones included, in the order of the catalogue.
        least: share of a text's neighbours that a step must keep.
        memory: gives what a process takes for a bundle, at its peak and at rest; None: it is not measured.
    """

    def __init__(
        self,
        histories: Sequence[IntArray],
        texts: Sequence[str],
        least: float = 0.0,
        memory: Callable[[Path], tuple[int, int]] | None = None,
    ) -> None:
        self._histories, self._texts, self._least, self._memory = histories, texts, least, memory
        self._full = list({text: row for row, text in reversed(list(enumerate(texts))) if text}.values())[::-1]
        self._first: FloatArray | None = None

    def compare_with(self, bundle: Path) -> None:
        """Takes this bundle's text vectors as those that the others are compared with."""
        self._first = self._text(bundle)

    def measure(self, bundle: Path, answers: Answering, part: str | None) -> Figures:
        """The figures of a bundle; `part` is what its step has changed (None: all is measured)."""
        files = read_manifest(bundle).files
        parts: dict[str, int] = {}
        for name, entry in files.items():
            parts[name.split("/", 1)[0]] = parts.get(name.split("/", 1)[0], 0) + entry.bytes
        p50, p99 = self._latency(answers)
        memory, resident = self._memory(bundle) if self._memory else (None, None)
        seen, unseen = self._kept(bundle) if part in (None, TEXT) else (None, None)
        return Figures(
            bytes=sum(parts.values()),
            parts=parts,
            parameters=sum(parameters(bundle / name) for name in files if name.endswith(".onnx")),
            p50=p50,
            p99=p99,
            answers=self._speed(lambda: answers.lists(self._histories[:64], 10), min(len(self._histories), 64)),
            texts=self._reading(answers),
            memory=memory,
            resident=resident,
            neighbours=unseen,
            neighbours_seen=seen,
        )

    def faults(self, figures: Figures, step: Step) -> list[str]:
        """What speaks against a step besides the quality, in sentences."""
        kept = figures.neighbours
        if step.part == TEXT and kept is not None and kept < self._least:
            return [f"a new text keeps {kept:.3f} of its ten neighbours, {self._least:.3f} are asked for (compress.neighbours)"]
        return []

    def _latency(self, answers: Answering) -> tuple[float, float]:
        times = []
        for history in self._histories[: _ASKED + 5]:
            began = time.perf_counter()
            answers.lists([history], 10)
            times.append(1e3 * (time.perf_counter() - began))
        return tuple(np.percentile(times[5:] or [0.0], [50, 99]).tolist())  # the first ones warm up

    def _reading(self, answers: Answering) -> float:
        sample = [text for text in self._texts if text][:_READ]
        return self._speed(lambda: answers.encode(sample), len(sample)) if sample else 0.0

    def _speed(self, work: Callable[[], object], count: int) -> float:
        work()
        times = []
        for _ in range(_REPEATS):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
        return count / max(float(np.median(times)), 1e-9)

    def _kept(self, bundle: Path) -> tuple[float | None, float | None]:
        held = held_back([self._texts[row] for row in self._full])
        if held.sum() < 10 or self._first is None:
            return None, None
        vectors = self._text(bundle)
        return neighbours_kept(self._first, vectors, ~held), neighbours_kept(self._first, vectors, held)

    def _text(self, bundle: Path) -> FloatArray:
        """The vectors of the different texts as the bundle holds them; they were read by its own encoder."""
        return load(bundle / "channels", "text").rows(np.array(self._full, dtype=np.int64))


def held_back(texts: Sequence[str]) -> BoolArray:
    """Texts that steps must not learn from, bool [n]; a text's own hash decides, so that all rungs hold back the same ones."""
    return np.array([crc32(text.encode("utf-8", "replace")) % HELD_SHARE == 0 for text in texts], dtype=bool)


def neighbours_kept(before: FloatArray, after: FloatArray, asked: BoolArray, k: int = 10, most: int = 300) -> float:
    """Share of the k nearest rows that are the same in two tables of unit vectors, mean over some rows, in [0, 1].

    Args:
        before, after: float32 [n, T].
        asked: bool [n], rows whose neighbours are compared, at most `most` of them.
    """
    rows = np.flatnonzero(asked)[:most]
    one, other = (_nearest(table, rows, k) for table in (before, after))
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(one, other, strict=True)])) if len(rows) else 1.0


def _nearest(table: FloatArray, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    scores = table[rows] @ table.T
    scores[np.arange(len(rows)), rows] = -np.inf
    return np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]


def parameters(graph: Path) -> int:
    """Numbers that a graph holds."""
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    return int(sum(np.prod(one.dims, dtype=np.int64) for one in model.graph.initializer if len(one.dims)))
