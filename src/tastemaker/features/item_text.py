"""What an item's text looks like from afar: length, script, and how well the item is described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import Look, Numbers
from tastemaker.features.memories.memory import Memory
from tastemaker.schema.columns import Columns


@dataclass(frozen=True)
class ItemText:
    """`words`: log(1 + words), where each East Asian character counts as one; `east_asian`, `latin`: shares of the letters, [0, 1], so that Chinese and
    English are told apart and mixed titles lie between; `letters`: share of letters among the visible characters. Zeros without a text.
    """

    columns = ("words", "east_asian", "latin", "letters")
    reads = (Columns.TITLE, Columns.TEXT)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Nothing: texts are facts of the catalogue."""
        return ()

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The four numbers."""
        words, *shares = (_known(look, name) for name in self.columns)
        return np.log1p(words), *shares


@dataclass(frozen=True)
class ItemQuality:
    """How well the item is described: the share of title, text, categories, image and price that are filled, [0, 1]. 0 for an item that the catalogue
    does not know.
    """

    columns = ("",)
    reads = (Columns.TITLE, Columns.TEXT, Columns.CATEGORIES, Columns.IMAGE, Columns.PRICE)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Nothing."""
        return ()

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The share."""
        return (_known(look, "filled"),)


def _known(look: Look, name: str) -> Numbers:
    found = look.facts.number(name, look.rows.item)
    return np.where(np.isnan(found), 0.0, found)
