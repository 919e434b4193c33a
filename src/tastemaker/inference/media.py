"""Pictures and sounds of new items, read by an exported model without torch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from tastemaker.features.fetch import Unreadable
from tastemaker.features.media_reader import MediaReader
from tastemaker.inference.runtimes import open_graph
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import AudioSettings, ImageSettings

_BATCH, _READERS = 16, 8


class MediaSignal:
    """A bundle's vision or audio model. An item whose file can't be read lacks the signal; a line on the standard output says why.

    Args:
        folder: the bundle's `image_encoder` or `audio_encoder`.
        settings: where files may come from.
        threads: of ONNX Runtime.

    Raises:
        MissingExtraError: Pillow is needed and not installed.
    """

    slow = True

    def __init__(self, folder: Path, settings: ImageSettings | AudioSettings, threads: int = 1) -> None:
        self._reader = MediaReader.load(folder, settings)
        self.version = str(msgspec.json.decode((folder / "config.json").read_bytes())["fingerprint"])
        self._mean = np.load(folder / "whitening_mean.npy", allow_pickle=False)
        self._components = np.load(folder / "whitening_components.npy", allow_pickle=False)
        self._session = open_graph(folder / "model.onnx", threads)
        self._input = self._reader.name

    def vectors(self, items: Sequence[Item]) -> FloatArray:
        """Whitened unit vectors, float32 [n, W]; zeros where an item lacks the signal."""
        found = np.zeros((len(items), len(self._components)), dtype=np.float32)
        named = [row for row, item in enumerate(items) if getattr(item, self._reader.name)]
        with ThreadPoolExecutor(min(_READERS, len(named) or 1)) as pool:
            for begin in range(0, len(named), _BATCH):
                part = named[begin : begin + _BATCH]
                read = zip(part, pool.map(lambda row: self._prepared(items[row]), part), strict=True)
                good = [(row, given) for row, given in read if given is not None]
                if good:
                    given = np.stack([values for _, values in good])
                    white = (self._session.run(None, {self._input: given})[0] - self._mean) @ self._components.T
                    white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-9)
                    found[[row for row, _ in good]] = white
        return found

    def _prepared(self, item: Item) -> FloatArray | None:
        try:
            return self._reader.prepared(self._reader.content(getattr(item, self._reader.name)))
        except Unreadable as error:
            print(f"the {self._reader.name} of item {item.item_id!r} can't be read: {error}", flush=True)
            return None
