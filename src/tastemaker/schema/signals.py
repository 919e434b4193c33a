"""What is known of the items besides events: their text, their picture, their sound, their place in a graph; one vector an item and signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tastemaker.schema.protocols import BoolArray, FloatArray

TEXT, IMAGE, AUDIO, GRAPH = "text", "image", "audio", "graph"


@dataclass(frozen=True)
class Signal:
    """One way to see the items.

    Attributes:
        name: of the signal; letters, digits and underscores, as it names weights and files.
        vectors: float32 [N, W]; a row of zeros: the item lacks this signal.
    """

    name: str
    vectors: FloatArray

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"A signal is called {self.name!r}; expected letters, digits and underscores.")
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise ValueError(
                f"The signal {self.name!r} came as {self.vectors.dtype} {list(self.vectors.shape)}; expected float32 [items, width]."
            )

    @property
    def width(self) -> int:
        """W."""
        return int(self.vectors.shape[1])

    @property
    def present(self) -> BoolArray:
        """Which items have it, bool [N]."""
        return np.asarray(self.vectors.any(axis=1), dtype=bool)


@dataclass(frozen=True)
class Signals:
    """All signals of a catalogue over the same items. The text comes first and is always there, if only as a column of zeros.

    Any signal may be missing for any item. Where an item's vectors travel together, as in the journal and to an exported item tower, they lie one behind
    the other in the order of `parts`: the item's *content*, float32 [C].
    """

    parts: tuple[Signal, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names or names[0] != TEXT or len(set(names)) < len(names):
            raise ValueError(f"The signals are {names}; expected {TEXT!r} first and each once.")
        lengths = {len(part.vectors) for part in self.parts}
        if len(lengths) > 1:
            raise ValueError(f"The signals {names} came with rows for {sorted(lengths)} items; expected one row an item in each.")

    @classmethod
    def of(cls, text: FloatArray, *others: Signal) -> Signals:
        """Text vectors, float32 [N, T], and other signals of the same items."""
        return cls((Signal(TEXT, text), *others))

    def __len__(self) -> int:
        return len(self.parts[0].vectors)

    @property
    def text(self) -> FloatArray:
        """Whitened text vectors, float32 [N, T]."""
        return self.parts[0].vectors

    @property
    def others(self) -> tuple[Signal, ...]:
        """All but the text."""
        return self.parts[1:]

    @property
    def widths(self) -> dict[str, int]:
        """Name of each signal to the length of its vectors, in order."""
        return {part.name: part.width for part in self.parts}

    def content(self, items: Sequence[int] | np.ndarray | slice = slice(None)) -> FloatArray:
        """What the item tower reads of some items, float32 [n, C]; of all by default."""
        return np.concatenate([part.vectors[items] for part in self.parts], axis=1)
