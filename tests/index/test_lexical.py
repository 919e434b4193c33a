"""Search by words."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.index.lexical import Lexicon
from tastemaker.index.spelling import Spelling, distances, mistakes
from tastemaker.index.tokens import tokens, words_of


def first(lexicon: Lexicon, query: str) -> int:
    found = lexicon.scores(query, len(lexicon))
    return int(np.argmax(found)) if found.any() else -1


def test_words_have_no_case_no_accents_and_han_letters_are_read_alone_and_in_pairs() -> None:
    assert tokens("Heat (1995): LE fabuleux") == ["heat", "1995", "le", "fabuleux"]
    assert tokens("登山鞋") == ["登", "山", "鞋", "登山", "山鞋"]
    assert tokens("Amélie ＤＶＤ STRASSE Straße") == ["amelie", "dvd", "strasse", "strasse"]
    assert tokens("iPhone手机15pro") == ["iphone", "手", "机", "手机", "15pro"]
    assert tokens("ガンダム") == ["ガ", "ン", "ダ", "ム", "ガン", "ンダ", "ダム"]


def test_rare_words_weigh_more_and_items_without_a_shared_word_score_zero() -> None:
    lexicon = Lexicon(["red boots", "red hat", "red scarf", "waterproof boots", ""])
    found = lexicon.scores("red waterproof", 5)
    assert np.argmax(found) == 3
    assert found[4] == 0
    assert not lexicon.scores("", 5).any()
    assert not lexicon.scores("absent", 5).any()


def test_a_title_counts_more_than_a_text_that_mentions_it() -> None:
    rows = [{"title": "Hot", "text": "espresso espresso"}, {"title": "Espresso", "text": "hot hot"}, {"deleted": True}]
    assert first(Lexicon(map(words_of, rows)), "espresso") == 1
    assert words_of(rows[2]) == ""


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


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("matirx", "matrix"),
        ("mattrix", "matrix"),
        ("matix", "matrix"),
        ("natrix", "matrix"),
        ("waterprof", "waterproof"),
        ("wterprooof", "waterproof"),
        ("espreso", "espresso"),
        ("coffe", "coffee"),
    ],
)
def test_typing_mistakes_are_forgiven(wrong: str, right: str) -> None:
    lexicon = Lexicon(["the matrix", "waterproof boots", "espresso machine", "coffee grinder", "guitar strings"])
    assert lexicon._number(wrong) is None
    assert first(lexicon, wrong) == first(lexicon, right) >= 0
    assert lexicon.scores(wrong, 5).max() < lexicon.scores(right, 5).max()


def test_short_words_numbers_and_known_words_are_taken_as_they_are() -> None:
    lexicon = Lexicon(["se7en 1995", "tea", "boats for rent", "boots"])
    assert first(lexicon, "ten") == -1
    assert first(lexicon, "1996") == -1
    assert first(lexicon, "boats") == 2
    assert not lexicon.scores("boats", 4)[3]
    assert first(lexicon, "qqqqqqqq") == -1


def test_words_written_together_or_apart_are_the_same() -> None:
    lexicon = Lexicon(["star wars", "spiderman", "hammer"])
    assert first(lexicon, "starwars") == 0
    assert first(lexicon, "spider man") == 1
    assert first(lexicon, "zzzz") == -1


def test_a_mistake_finds_what_was_added_later_and_nothing_that_was_taken_out() -> None:
    lexicon = Lexicon(["kestrel boots", "osprey boots"])
    lexicon.put(2, "peregrine boots")
    assert first(lexicon, "peregrin") == 2
    lexicon.put(0, "")
    assert first(lexicon, "kestrl") == -1
    lexicon.put(0, "kestrel hat")
    assert first(lexicon, "kestrl") == 0


def test_chinese_titles() -> None:
    titles = ["防水登山鞋 男款", "咖啡机 全自动 家用", "民谣吉他 初学者", "登山背包 大容量", "徒步登山杖", "iPhone15手机壳"]
    lexicon = Lexicon(titles)
    for query, wanted in (
        ("登山鞋", 0),
        ("家用咖啡机", 1),
        ("吉他", 2),
        ("背包登山", 3),
        ("登山仗杖", 4),
        ("手机壳", 5),
        ("iphone15 手机", 5),
    ):
        assert first(lexicon, query) == wanted, query
    assert first(lexicon, "咖非机") == 1, "one letter wrong of three"
    assert first(lexicon, "雨伞") == -1


def test_the_bound_is_never_exceeded_and_reached_only_by_what_holds_every_word() -> None:
    lexicon = Lexicon(["a b", "a", "c " * 50])
    for query in ("a", "a b", "c", "a zebra", "zebra"):
        found, bound = lexicon.match(query, 3)
        assert found.max() <= bound
    known, low = lexicon.match("a b", 3)
    part, high = lexicon.match("a b zebra", 3)
    assert known.max() == part.max()
    assert high > low, "a word that nothing holds makes the rest less sure"


WORDS = ["red", "blue", "boots", "boot", "hat", "waterproof", "登山", "鞋", "amélie", "x1"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


@given(st.lists(TEXTS, max_size=8), st.lists(st.tuples(st.integers(0, 11), TEXTS), max_size=12), TEXTS)
def test_law_an_index_that_was_changed_is_that_of_its_texts(texts: list[str], changes: list[tuple[int, str]], query: str) -> None:
    lexicon, now = Lexicon(texts), list(texts)
    for place, text in changes:
        lexicon.put(place, text)
        now += [""] * (place + 1 - len(now))
        now[place] = text
    fresh = Lexicon(now)
    assert len(fresh) == len(lexicon)
    for one in (query, query.replace("waterproof", "watrproof")):
        found, bound = lexicon.match(one, len(now))
        wanted, other = fresh.match(one, len(now))
        assert found == pytest.approx(wanted, rel=1e-5)
        assert bound == pytest.approx(other)


@given(
    st.text(string.ascii_lowercase[:4], max_size=7),
    st.lists(st.text(string.ascii_lowercase[:4], max_size=7), min_size=1, max_size=5),
)
def test_law_of_the_distance(word: str, others: list[str]) -> None:
    def slow(one: str, other: str) -> int:
        table = [[max(i, j) if not i or not j else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
        for i in range(1, len(one) + 1):
            for j in range(1, len(other) + 1):
                cost = one[i - 1] != other[j - 1]
                table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + cost)
                if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                    table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
        return table[-1][-1]

    assert distances(word, others).tolist() == [slow(word, other) for other in others]
    known = Spelling(others)
    wanted = {number for number, other in enumerate(others) if mistakes(word) and slow(word, other) <= mistakes(word)}
    assert {number for number, _ in known.near(word)} == wanted


def test_what_is_written_is_read(tmp_path: Path) -> None:
    lexicon = Lexicon(["red boots", "登山鞋 boots", "", "waterproof"])
    lexicon.save(tmp_path / "lexicon")
    read = Lexicon.load(tmp_path / "lexicon")
    assert isinstance(read._base.places, np.memmap)
    for query in ("boots", "登山", "watrproof", "none"):
        assert read.scores(query, 4).tolist() == lexicon.scores(query, 4).tolist()
    read.put(1, "green")
    assert not read.scores("登山", 4).any()
    Lexicon([]).save(tmp_path / "empty")
    assert len(Lexicon.load(tmp_path / "empty")) == 0
