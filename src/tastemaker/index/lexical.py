"""Search by words: BM25 (S. Robertson and H. Zaragoza, 2009) over titles, categories and texts. Items can be put while it is in use."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from tastemaker.schema.protocols import FloatArray

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
K1, B = 1.2, 0.75


def tokens(text: str) -> list[str]:
    """Lower-case words; runs of Chinese, Japanese or Korean letters as single letters and pairs."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if _HAN.search(word):
            found += list(word)
            found += [word[place : place + 2] for place in range(len(word) - 1)]
        else:
            found.append(word)
    return found


class Lexicon:
    """An inverted file in memory.

    Args:
        texts: the words of each item, in index order.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._words: list[Counter[str]] = []
        self._lengths: list[int] = []
        self._where: dict[str, dict[int, int]] = defaultdict(dict)
        for place, text in enumerate(texts):
            self.put(place, text)

    def __len__(self) -> int:
        return len(self._words)

    def put(self, place: int, text: str) -> None:
        """Sets the words of an item; an empty text takes it out."""
        while len(self._words) <= place:
            self._words.append(Counter())
            self._lengths.append(0)
        for word in self._words[place]:
            self._where[word].pop(place, None)
        counts = Counter(tokens(text))
        self._words[place], self._lengths[place] = counts, sum(counts.values())
        for word, count in counts.items():
            self._where[word][place] = count

    def scores(self, query: str, n_items: int) -> FloatArray:
        """BM25 of every item, float32 [n_items]; 0 where no word is shared."""
        found = np.zeros(n_items, dtype=np.float32)
        total = max(len(self._words), 1)
        mean = max(sum(self._lengths) / total, 1.0)
        for word in dict.fromkeys(tokens(query)[:64]):
            places = self._where.get(word)
            if not places:
                continue
            weight = np.log(1 + (total - len(places) + 0.5) / (len(places) + 0.5))
            for place, count in places.items():
                norm = count + K1 * (1 - B + B * self._lengths[place] / mean)
                found[place] += weight * count * (K1 + 1) / norm
        return found
