"""Runs a bundle's models without torch: text encoder, item tower, user tower."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tokenizers import Tokenizer

from tastemaker.inference.batching import length_batches
from tastemaker.inference.runtimes import open_graph
from tastemaker.schema.protocols import FloatArray, IntArray
from tastemaker.schema.signals import TEXT

_BATCH = 64


class TextEncoder:
    """Texts to whitened unit vectors. Without a text encoder in the bundle every text is the zero vector.

    Args:
        folder: the bundle's `text_encoder`.
        width: length of a whitened vector.
        threads: of the runtime.
        later: the model is opened by the first text, as where another process reads them as a rule.
    """

    def __init__(self, folder: Path, width: int, threads: int = 1, later: bool = False) -> None:
        self.width = width
        self.template, self.version = "{title}", "none"
        self._path, self._threads = folder / "model.onnx", threads
        if not (folder / "model.onnx").is_file():
            return
        config = msgspec.json.decode((folder / "config.json").read_bytes())
        self.template, self.version = str(config["template"]), str(config["fingerprint"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(int(config["max_length"]))
        self._mean = np.load(folder / "whitening_mean.npy", allow_pickle=False)
        self._components = np.load(folder / "whitening_components.npy", allow_pickle=False)
        if not later:
            self._session  # noqa: B018  opens it

    @cached_property
    def _session(self) -> Any:
        return open_graph(self._path, self._threads)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Whitened unit vectors, float32 [n, T]; the zero row for an empty text."""
        found = np.zeros((len(texts), self.width), dtype=np.float32)
        full = [place for place, text in enumerate(texts) if text.strip()]
        if self.version == "none" or not full:
            return found
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch([_storable(texts[place]) for place in full])]
        for rows in length_batches([len(ids) for ids in tokens], _BATCH):
            inputs = _padded([tokens[row] for row in rows])
            vectors = self._session.run(None, inputs)[0]
            white = (vectors - self._mean) @ self._components.T
            white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-9)
            found[[full[row] for row in rows]] = white
        return found


class ItemTower:
    """Contents of items, their signals one behind the other, to item vectors.

    Args:
        folder: the bundle's `item_tower`.
        text: length T of a text vector, for a bundle that has no other signal.
        threads: of ONNX Runtime.

    Attributes:
        widths: name of each signal to the length of its vectors, in the content's order.
    """

    def __init__(self, folder: Path, text: int, threads: int = 1) -> None:
        self._session = open_graph(folder / "model.onnx", threads)
        path = folder / "signals.json"
        self._input = "content" if path.is_file() else "text"
        self.widths = msgspec.json.decode(path.read_bytes(), type=dict[str, int]) if path.is_file() else {TEXT: text}

    def vectors(self, content: FloatArray) -> FloatArray:
        """Item vectors, unit rows, float32 [n, D] from [n, C]."""
        found: FloatArray = self._session.run(None, {self._input: content.astype(np.float32)})[0]
        return found


class UserTower:
    """Histories of item vectors to user vectors.

    Args:
        path: the exported graph.
        max_length: events that it reads.
        threads: of the runtime.
    """

    def __init__(self, path: Path, max_length: int, threads: int = 1) -> None:
        self._session = open_graph(path, threads)
        self.max_length = max_length

    def vectors(self, histories: Sequence[IntArray], rows: Any) -> FloatArray:
        """User vectors, float32 [B, D]; zero for an empty history.

        Args:
            histories: item indices, oldest first.
            rows: gives the item vectors [n, D] of item indices [n].
        """
        latest = [history[-self.max_length :] for history in histories]
        if not latest:
            return np.zeros((0, 0), dtype=np.float32)
        if len(latest) <= _BATCH:
            return self._read(latest, rows)
        found: FloatArray | None = None
        for places in length_batches([len(history) for history in latest], _BATCH):
            answer = self._read([latest[place] for place in places], rows)
            if found is None:
                found = np.zeros((len(histories), answer.shape[1]), dtype=np.float32)
            found[places] = answer
        assert found is not None
        return found

    def _read(self, histories: Sequence[IntArray], rows: Any) -> FloatArray:
        """Vectors of some histories, which are filled up to the longest of them."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        length = max(2, int(lengths.max()))
        indices = np.zeros((len(histories), length), dtype=np.int64)
        for row, history in zip(indices, histories, strict=True):
            row[: len(history)] = history
        vectors = rows(indices.ravel()).reshape(len(histories), length, -1)
        found: FloatArray = self._session.run(None, {"vectors": vectors, "lengths": lengths})[0]
        return found if lengths.all() else found * (lengths > 0)[:, None].astype(np.float32)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _padded(tokens: list[list[int]]) -> dict[str, Any]:
    length = max(2, max(len(ids) for ids in tokens))
    ids = np.zeros((len(tokens), length), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, found in enumerate(tokens):
        ids[row, : len(found)], mask[row, : len(found)] = found, 1
    return {"input_ids": ids, "attention_mask": mask}
