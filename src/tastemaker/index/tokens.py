"""Texts as the words that search knows: one form for every way of writing a word, and letters for languages without blanks."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_HAN = r"\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUNS = re.compile(rf"[{_HAN}]+|[^{_HAN}]+")
_IS_HAN = re.compile(rf"[{_HAN}]")
TITLE_WEIGHT = 3
"""A word of the title counts as often as three of the text (BM25F; S. Robertson, H. Zaragoza and M. Taylor, 2004)."""
MOST_LETTERS = 2_000


def tokens(text: str) -> list[str]:
    """Words without case, accents and widths; runs of Chinese, Japanese or Korean letters as single letters and pairs."""
    if text.isascii():
        return _WORD.findall(text.lower())
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if word.isascii():
            found.append(word)
            continue
        for run in _RUNS.findall(word):
            if _IS_HAN.match(run):
                found += list(run)
                found += [run[place : place + 2] for place in range(len(run) - 1)]
            else:
                found.append(_without_accents(run))
    return found


def words_of(row: dict[str, Any]) -> str:
    """What search by words reads of an item: its title, which counts more, categories and text; nothing of a deleted one."""
    if row.get("deleted"):
        return ""
    title = str(row.get("title") or "")
    return " ".join([*[title] * TITLE_WEIGHT, " ".join(row.get("categories") or []), str(row.get("text") or "")[:MOST_LETTERS]])


def _without_accents(word: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter))
