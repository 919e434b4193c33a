"""Known words that are spelt nearly like an unknown one.

A word of 4 to 7 letters may hold one mistake, a longer one two: a letter too many, too few, another one, or two that changed places (optimal string
alignment; R. Wagner and M. Fischer, 1974). The words that a mistake can reach are found by their lengths and by which letters they have, two
array operations over the vocabulary; only these few are compared letter by letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ONE_FROM, TWO_FROM = 4, 8
MOST_COMPARED = 4_000
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def mistakes(word: str) -> int:
    """How many mistakes a word of this length may hold; none where it has a digit."""
    if len(word) < ONE_FROM or any(letter.isdigit() for letter in word):
        return 0
    return 1 if len(word) < TWO_FROM else 2


class Shapes(NamedTuple):
    """Which letters words have, a bit each (uint64 [V]), and how many (int32 [V])."""

    letters: NDArray[np.uint64]
    sizes: NDArray[np.int32]


def shapes_of(words: Sequence[str]) -> Shapes:
    """The shapes of words."""
    return Shapes(
        np.array([_letters(word) for word in words], dtype=np.uint64), np.array([len(word) for word in words], dtype=np.int32)
    )


class Spelling:
    """The shapes of a growing list of words.

    Args:
        words: the list; the place of a word is its number. shapes: theirs, where they are known.
    """

    def __init__(self, words: Sequence[str] = (), shapes: Shapes | None = None) -> None:
        self._words, self._later = words, list[str]()
        self._shapes = shapes_of(words) if shapes is None else shapes

    def __len__(self) -> int:
        return len(self._words) + len(self._later)

    def __getitem__(self, number: int) -> str:
        return self._words[number] if number < len(self._words) else self._later[number - len(self._words)]

    def add(self, word: str) -> int:
        """Appends a word; gives its number."""
        self._later.append(word)
        return len(self) - 1

    def near(self, word: str) -> list[tuple[int, int]]:
        """The numbers of the words that are nearly this one, and by how many mistakes; the nearest first."""
        allowed = mistakes(word)
        if not allowed:
            return []
        letters, sizes = self._shaped()
        other = np.flatnonzero(np.abs(sizes - len(word)) <= allowed)
        differ = _ones(letters[other] ^ np.uint64(_letters(word)))
        other = other[differ <= 2 * allowed]
        if len(other) > MOST_COMPARED:
            other = other[np.argsort(differ[differ <= 2 * allowed], kind="stable")[:MOST_COMPARED]]
        if not len(other):
            return []
        away = distances(word, [self[number] for number in other.tolist()])
        close = np.flatnonzero(away <= allowed)
        close = close[np.argsort(away[close], kind="stable")]
        return [(int(other[place]), int(away[place])) for place in close]

    def _shaped(self) -> Shapes:
        known = len(self._shapes.sizes)
        if known < len(self):
            new = shapes_of(self._later[known - len(self._words) :])
            old = self._shapes
            self._shapes = Shapes(np.append(old.letters, new.letters), np.append(old.sizes, new.sizes))
        return self._shapes


def distances(word: str, others: Sequence[str]) -> NDArray[np.int32]:
    """Optimal string alignment distances of a word from many, int32 [n]."""
    longest = max(map(len, others))
    codes = np.zeros((longest, len(others)), dtype=np.uint32)
    for place, other in enumerate(others):
        codes[: len(other), place] = [ord(letter) for letter in other]
    sizes = np.array([len(other) for other in others])
    rows = np.repeat(np.arange(longest + 1, dtype=np.int32)[:, None], len(others), axis=1)
    before = rows
    for place, letter in enumerate(word):
        code = ord(letter)
        now = np.empty_like(rows)
        now[0] = place + 1
        changed = codes != code
        for column in range(1, longest + 1):
            best = np.minimum(rows[column] + 1, now[column - 1] + 1)
            np.minimum(best, rows[column - 1] + changed[column - 1], out=best)
            if place and column > 1:
                swapped = (codes[column - 2] == code) & (codes[column - 1] == ord(word[place - 1]))
                np.minimum(best, np.where(swapped, before[column - 2] + 1, best), out=best)
            now[column] = best
        before, rows = rows, now
    return np.asarray(rows[sizes, np.arange(len(others))], dtype=np.int32)


def _letters(word: str) -> int:
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) & 63)
    return bits


def _ones(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.asarray(_BITS[numbers.view(np.uint8).reshape(-1, 8)].sum(axis=1, dtype=np.int64))
