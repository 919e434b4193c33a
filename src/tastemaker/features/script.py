"""How long a text is and which scripts it is written in, for Latin and East Asian writing alike."""

from __future__ import annotations

import re
from typing import NamedTuple

READ = 4_000
"""Characters read of a text: enough to tell its script, and no text can stall an intake."""

# Unicode blocks (Unicode 16, Blocks.txt): Han with extensions, kana, bopomofo, hangul
_EAST_ASIAN = re.compile(
    "[\u3040-\u30ff\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
_LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a]")
_LETTER = re.compile(r"[^\W\d_]")
_VISIBLE = re.compile(r"\S")
_WORD = re.compile(r"[^\W_]+")


class Script(NamedTuple):
    """What is told of a text.

    Attributes:
        words: words of scripts with blanks, plus each East Asian character.
        east_asian, latin: shares of the letters, [0, 1]; what is left is other scripts.
        letters: share of letters among the visible characters, [0, 1]: near 1 for prose, low for codes and noise.
    """

    words: int
    east_asian: float
    latin: float
    letters: float


def script(text: str | None) -> Script:
    """Reads a text; all zeros for none."""
    text = (text or "")[:READ]
    letters = len(_LETTER.findall(text))
    if not letters:
        return Script(len(_WORD.findall(text)), 0.0, 0.0, 0.0)
    east_asian = len(_EAST_ASIAN.findall(text))
    words = len(_WORD.findall(_EAST_ASIAN.sub(" ", text))) + east_asian
    visible = max(len(_VISIBLE.findall(text)), 1)
    return Script(words, min(east_asian / letters, 1.0), min(len(_LATIN.findall(text)) / letters, 1.0), min(letters / visible, 1.0))
