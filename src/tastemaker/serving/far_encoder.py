"""Texts that another process reads; this one reads them itself where that one is late or gone, so an answer never hangs on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np

from tastemaker.inference.engine import TextEncoder
from tastemaker.schema.protocols import FloatArray

Ask = Callable[[str, int, list[str]], Awaitable[FloatArray]]
"""Called as ask(folder of the model, length T of a vector, texts): their vectors, float32 [n, T]."""


class FarEncoder(TextEncoder):
    """A bundle's reader of texts, whose model is opened here only when it is needed.

    Args:
        folder, width, threads: as of `TextEncoder`.
        ask: has texts read elsewhere.
        seconds: that it may take.
        loop: in which it is asked: the application's.
    """

    def __init__(self, folder: Path, width: int, threads: int, ask: Ask, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(folder, width, threads, later=True)
        self._folder, self._ask, self._seconds, self._loop = folder, ask, seconds, loop

    async def read(self, texts: Sequence[str]) -> FloatArray:
        """As `encode`, while this process does other things."""
        if self.version == "none":
            return np.zeros((len(texts), self.width), dtype=np.float32)
        try:
            return await asyncio.wait_for(self._ask(str(self._folder), self.width, list(texts)), self._seconds)
        except Exception as error:  # whatever became of the other process, its network or its machine
            print(f"texts are read here: {type(error).__name__}: {str(error)[:200]}", flush=True)
            return await asyncio.to_thread(super().encode, texts)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Whitened unit vectors, float32 [n, T]; read elsewhere where the caller's thread may wait."""
        if _in_a_loop() or not self._loop.is_running():
            return super().encode(texts)
        return asyncio.run_coroutine_threadsafe(self.read(texts), self._loop).result()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
