"""Search by words: BM25 (S. Robertson and H. Zaragoza, 2009) over titles, categories and texts, forgiving of typing mistakes.

The index of a bundle is a folder of arrays that workers map into memory. What is put or taken out later lies beside it in dictionaries; the
scores are those of an index made anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tastemaker.bundle.texts import Texts
from tastemaker.index.spelling import Shapes, Spelling, shapes_of
from tastemaker.index.tokens import tokens
from tastemaker.schema.protocols import FloatArray

K1, B = 1.2, 0.75
MOST_WORDS = 64
"""Words of a query that are read."""
MOST_NEAR = 5
"""Known words that may stand for an unknown one."""
MISTAKE_PRICE = 0.7
"""Weight of a word for each mistake by which it differs from the asked one."""
_FILES = ("starts", "places", "counts", "lengths", "row_starts", "row_words")


class Arrays(NamedTuple):
    """An inverted file, and the words of each item.

    Attributes:
        starts: int64 [V + 1]; the items with word v are `places[starts[v]:starts[v + 1]]`, int32, each with its count, uint16.
        lengths: words of each item, float32 [N].
        row_starts, row_words: the words of item i are `row_words[row_starts[i]:row_starts[i + 1]]`, int32.
    """

    starts: NDArray[np.int64]
    places: NDArray[np.int32]
    counts: NDArray[np.uint16]
    lengths: FloatArray
    row_starts: NDArray[np.int64]
    row_words: NDArray[np.int32]


class Meaning(NamedTuple):
    """A known word in place of a word of the query; `weight` is 1 for the word itself."""

    word: str
    weight: float


class Lexicon:
    """An index of words.

    Args:
        texts: the words of each item, in index order.
        made: words, their shapes and the arrays of an index that was made before, instead of texts.
    """

    def __init__(self, texts: Iterable[str] = (), made: tuple[Texts, Shapes | None, Arrays] | None = None) -> None:
        if made is None:
            words, arrays = _inverted(texts)
            made = Texts.of(words), None, arrays
        self._words, shapes, self._base = made
        self._spelling = Spelling(self._words, shapes)
        self._later_words: dict[str, int] = {}
        self._size = len(self._base.lengths)
        self._total = float(self._base.lengths.sum(dtype=np.float64))
        self._texts = int(
            np.count_nonzero(self._base.lengths)
        )  # items with words: one that was taken out counts no more, whether it was ever seen or not
        self._gone: NDArray[np.bool_] = np.zeros(self._size, dtype=bool)
        self._some_gone = False
        self._lost: dict[int, int] = defaultdict(int)
        self._later: dict[int, Counter[str]] = {}
        self._later_lengths: dict[int, int] = {}
        self._where: dict[str, dict[int, int]] = defaultdict(dict)

    @classmethod
    def load(cls, folder: Path) -> Lexicon:
        """Maps what `save` wrote into memory."""
        arrays = Arrays(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _FILES))
        if (folder / "words.txt").is_file():  # as before words were mapped
            return cls(made=(Texts.of((folder / "words.txt").read_text("utf-8").split("\n")[:-1]), None, arrays))
        shapes = Shapes(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in Shapes._fields))
        return cls(made=(Texts.open(folder, "words"), shapes, arrays))

    def save(self, folder: Path) -> None:
        """Writes the index as it was made, without what came later."""
        folder.mkdir(parents=True, exist_ok=True)
        self._words.save(folder, "words")
        for name, values in shapes_of(self._words)._asdict().items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)
        for name in _FILES:
            np.save(folder / f"{name}.npy", getattr(self._base, name), allow_pickle=False)

    def __len__(self) -> int:
        return self._size

    def put(self, place: int, text: str) -> None:
        """Sets the words of an item; an empty text takes it out."""
        self._take_out(place)
        counts = Counter(tokens(text))
        self._later[place] = counts
        length = sum(counts.values())
        self._total += length
        self._texts += length > 0
        self._later_lengths[place] = length
        for word, count in counts.items():
            if self._number(word) is None:
                self._later_words[word] = self._spelling.add(word)
            self._where[word][place] = count
        self._size = max(self._size, place + 1)

    def scores(self, query: str, n_items: int) -> FloatArray:
        """BM25 of every item, float32 [n_items]; 0 where no word is shared."""
        return self.match(query, n_items)[0]

    def match(self, query: str, n_items: int) -> tuple[FloatArray, float]:
        """BM25 of every item, float32 [n_items], and the score that nothing can exceed: that of all words, each there over and over."""
        found = np.zeros(n_items, dtype=np.float32)
        bound = 0.0
        for meanings in self.read(query):
            weights = [self._weight(meaning.word) * meaning.weight for meaning in meanings]
            bound += max(weights, default=self._weight("")) * (K1 + 1)
            if len(meanings) == 1:
                self._add(found, meanings[0].word, weights[0])
            elif meanings:
                best = np.zeros(n_items, dtype=np.float32)
                for meaning, weight in zip(meanings, weights, strict=True):
                    one = np.zeros(n_items, dtype=np.float32)
                    self._add(one, meaning.word, weight)
                    np.maximum(best, one, out=best)
                found += best
        return found, max(bound, 1e-9)

    def read(self, query: str) -> list[list[Meaning]]:
        """What each word of a query may mean: itself where it is known, else the known words that are nearly it, or the two that it is made of."""
        words = list(dict.fromkeys(tokens(query)[:MOST_WORDS]))
        found = []
        for place, word in enumerate(words):
            if self._known(word):
                found.append([Meaning(word, 1.0)])
                continue
            pair = word + words[place + 1] if place + 1 < len(words) else ""
            if pair and self._known(pair) and not self._known(words[place + 1]):
                found.append([Meaning(pair, 1.0)])
                continue
            found += self._guessed(word)
        return found

    def _guessed(self, word: str) -> list[list[Meaning]]:
        for at in range(2, len(word) - 1):
            if word.isalpha() and self._known(word[:at]) and self._known(word[at:]) and min(at, len(word) - at) >= 3:
                return [[Meaning(word[:at], 1.0)], [Meaning(word[at:], 1.0)]]
        near = [(self._spelling[number], away) for number, away in self._spelling.near(word)]
        near = [(one, away) for one, away in near if self._known(one)]
        near.sort(key=lambda one: (one[1], -self._frequency(one[0])))
        return [[Meaning(one, MISTAKE_PRICE**away) for one, away in near[:MOST_NEAR]]]

    def _take_out(self, place: int) -> None:
        for word in self._later.pop(place, ()):
            del self._where[word][place]
        length = self._later_lengths.pop(place, 0)
        self._total -= length
        self._texts -= length > 0
        if place < len(self._gone) and not self._gone[place]:
            self._gone[place] = self._some_gone = True
            self._total -= float(self._base.lengths[place])
            self._texts -= int(self._base.lengths[place] > 0)
            for number in self._base.row_words[self._base.row_starts[place] : self._base.row_starts[place + 1]].tolist():
                self._lost[number] += 1

    def _frequency(self, word: str) -> int:
        number = self._number(word)
        if number is None:
            return 0
        later = len(self._where[word]) if word in self._where else 0
        if number >= len(self._base.starts) - 1:
            return later
        return int(self._base.starts[number + 1] - self._base.starts[number]) - self._lost.get(number, 0) + later

    def _number(self, word: str) -> int | None:
        number = self._words.find(word)
        return self._later_words.get(word) if number is None else number

    def _known(self, word: str) -> bool:
        return self._frequency(word) > 0

    def _weight(self, word: str) -> float:
        """How much a word tells: inverse document frequency."""
        frequency = self._frequency(word)
        return float(np.log(1 + (max(self._texts, 1) - frequency + 0.5) / (frequency + 0.5)))

    def _add(self, found: FloatArray, word: str, weight: float) -> None:
        """Adds a word's part of each item's score."""
        mean = max(self._total / max(self._texts, 1), 1.0)
        number = self._number(word)
        if number is not None and number < len(self._base.starts) - 1:
            some = slice(self._base.starts[number], self._base.starts[number + 1])
            places, counts = self._base.places[some], self._base.counts[some].astype(np.float32)
            if self._some_gone:
                there = ~self._gone[places]
                places, counts = places[there], counts[there]
            norm = counts + K1 * (1 - B + B * self._base.lengths[places] / mean)
            found[places] += weight * counts * (K1 + 1) / norm
        for place, count in self._where.get(word, {}).items():
            length = self._later_lengths[place]
            found[place] += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))


def _inverted(texts: Iterable[str]) -> tuple[list[str], Arrays]:
    numbers: dict[str, int] = {}
    rows = [np.array([numbers.setdefault(word, len(numbers)) for word in tokens(text)], dtype=np.int64) for text in texts]
    lengths = np.array([len(row) for row in rows], dtype=np.float32)
    words, n = max(len(numbers), 1), len(rows)
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    pairs, counts = np.unique(np.repeat(np.arange(n), lengths.astype(np.int64)) * words + flat, return_counts=True)
    items, of = pairs // words, pairs % words
    order = np.argsort(of, kind="stable")
    starts = np.zeros(len(numbers) + 1, dtype=np.int64)
    np.cumsum(np.bincount(of, minlength=len(numbers)), out=starts[1:])
    row_starts = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(items, minlength=n), out=row_starts[1:])
    few = np.minimum(counts, 65_535).astype(np.uint16)
    made = Arrays(starts, items[order].astype(np.int32), few[order], lengths, row_starts, of.astype(np.int32))
    return list(numbers), made
