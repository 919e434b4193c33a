"""Search by words."""

from __future__ import annotations

import numpy as np

from tastemaker.index.lexical import Lexicon, tokens


def test_words_have_no_case_and_han_letters_are_read_alone_and_in_pairs() -> None:
    assert tokens("Heat (1995): LE fabuleux") == ["heat", "1995", "le", "fabuleux"]
    assert tokens("登山鞋") == ["登", "山", "鞋", "登山", "山鞋"]


def test_rare_words_weigh_more_and_items_without_a_shared_word_score_zero() -> None:
    lexicon = Lexicon(["red boots", "red hat", "red scarf", "waterproof boots", ""])
    found = lexicon.scores("red waterproof", 5)
    assert np.argmax(found) == 3
    assert found[4] == 0
    assert not lexicon.scores("", 5).any()
    assert not lexicon.scores("absent", 5).any()


def test_items_can_be_added_changed_and_taken_out() -> None:
    lexicon = Lexicon(["red boots"])
    lexicon.put(1, "green boots")
    assert np.count_nonzero(lexicon.scores("boots", 2)) == 2
    lexicon.put(0, "blue hat")
    assert lexicon.scores("boots", 2)[0] == 0
    assert lexicon.scores("hat", 2)[0] > 0
    lexicon.put(1, "")
    assert not lexicon.scores("boots", 2).any()
    assert len(lexicon) == 2
    assert Lexicon([]).scores("x", 0).shape == (0,)
