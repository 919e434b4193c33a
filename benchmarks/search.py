"""Search on real titles: typing mistakes, Chinese, speed and live changes beside SQLite's FTS5; fused and personal search on a bundle.

    python benchmarks/search.py [--items FILE.parquet …] [--bundle FOLDER] [--queries 300]
    python benchmarks/search.py --personal

Without files it takes the titles of ../shared/data where they are. MRR@10 is the mean of 1 / place of the item whose title was asked for; a
title that several items bear counts by the first of them. FTS5 has no forgiveness; what it shares with us is BM25.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import sqlite3
import string
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl

from tastemaker.index.lexical import Lexicon
from tastemaker.index.tokens import tokens, words_of

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Search = Callable[[str], list[int]]


def catalogues(files: list[Path]) -> dict[str, list[str]]:
    """Titles by the name of their data set."""
    found: dict[str, list[str]] = {}
    if not files:
        archive = DATA / "movielens-latest-small" / "ml-latest-small.zip"
        if archive.is_file():
            with zipfile.ZipFile(archive) as whole:
                name = next(name for name in whole.namelist() if name.endswith("movies.csv"))
                table = pl.read_csv(io.BytesIO(whole.read(name)), infer_schema=False)
            found["MovieLens"] = [re.sub(r"\s*\(\d{4}\)\s*$", "", title) for title in table["title"].to_list()]
        files = [DATA / "amazon-beauty" / "items.parquet", DATA / "steam" / "items.parquet"]
    for file in files:
        if file.is_file():
            table = pl.read_parquet(file)
            name = next((name for name in ("title", "name", "item_name") if name in table.columns), None)
            if name:
                found[file.parent.name] = [title for title in table[name].to_list() if title]
    return found


def mistaken(query: str, chance: random.Random) -> str:
    """The query with one typing mistake in its longest word."""
    words = query.split()
    at = max(range(len(words)), key=lambda place: len(words[place]))
    word = words[at]
    place = chance.randrange(1, max(2, len(word) - 1))
    kind = chance.choice(("swap", "drop", "double", "other"))
    if kind == "swap" and place + 1 < len(word):
        word = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    elif kind == "drop":
        word = word[:place] + word[place + 1 :]
    elif kind == "double":
        word = word[:place] + word[place] + word[place:]
    else:
        word = word[:place] + chance.choice(string.ascii_lowercase) + word[place + 1 :]
    return " ".join([*words[:at], word, *words[at + 1 :]])


def chinese_titles(count: int, seed: int = 0) -> list[str]:
    """Made-up titles of goods."""
    chance = random.Random(seed)
    adjectives = [
        "防水",
        "轻便",
        "加厚",
        "透气",
        "家用",
        "便携",
        "智能",
        "全自动",
        "儿童",
        "男款",
        "女款",
        "专业",
        "复古",
        "简约",
        "大容量",
        "折叠",
        "静音",
        "高清",
        "无线",
        "保暖",
    ]
    things = [
        "登山鞋",
        "徒步背包",
        "咖啡机",
        "磨豆机",
        "民谣吉他",
        "电子琴",
        "蓝牙耳机",
        "机械键盘",
        "显示器",
        "手机壳",
        "保温杯",
        "羽绒服",
        "冲锋衣",
        "瑜伽垫",
        "跑步机",
        "自行车",
        "电饭煲",
        "空气炸锅",
        "吸尘器",
        "加湿器",
        "台灯",
        "书包",
        "雨伞",
        "太阳镜",
        "手表",
        "帐篷",
        "睡袋",
        "鱼竿",
        "滑板",
        "篮球",
    ]
    brands = ["山岳", "云海", "松风", "北辰", "青木", "星河", "远途", "蓝鲸", "白鹭", "金石"]
    return [
        f"{chance.choice(brands)} {chance.choice(adjectives)}{chance.choice(things)} {chance.choice(adjectives)} {number % 97 + 1}号"
        for number in range(count)
    ]


def ours(lexicon: Lexicon) -> Search:
    def search(query: str) -> list[int]:
        found = lexicon.scores(query, len(lexicon))
        best = np.argsort(-found, kind="stable")[:10]
        return [int(place) for place in best if found[place] > 0]

    return search


def fts5(titles: list[str], tokenizer: str = "unicode61 remove_diacritics 2") -> tuple[Search, sqlite3.Connection]:
    database = sqlite3.connect(":memory:")
    database.execute(f'CREATE VIRTUAL TABLE t USING fts5(title, tokenize="{tokenizer}")')
    database.executemany("INSERT INTO t(rowid, title) VALUES (?, ?)", enumerate(titles))

    def search(query: str) -> list[int]:
        words = re.findall(r"\w+", query)
        if not words:
            return []
        asked = " OR ".join(f'"{word}"' for word in words)
        return [row[0] for row in database.execute("SELECT rowid FROM t WHERE t MATCH ? ORDER BY bm25(t) LIMIT 10", (asked,))]

    return search, database


def judged(search: Search, queries: Iterable[tuple[str, int]], titles: list[str]) -> tuple[float, float]:
    """MRR@10, and milliseconds a query (median)."""
    ranks, times = [], []
    for query, wanted in queries:
        began = time.perf_counter()
        found = search(query)
        times.append(1e3 * (time.perf_counter() - began))
        same = [place for place, item in enumerate(found, 1) if titles[item] == titles[wanted]]
        ranks.append(1 / same[0] if same else 0.0)
    return float(np.mean(ranks)), float(np.median(times))


def words(name: str, titles: list[str], count: int) -> None:
    chance = random.Random(1)
    lexicon = Lexicon(words_of({"title": title}) for title in titles)
    peer, _ = fts5(titles)
    long = [place for place, title in enumerate(titles) if max(map(len, re.findall(r"[a-z]+", title.lower())), default=0) >= 5]
    some = chance.sample(long, min(count, len(long)))
    plain = [(" ".join(tokens(titles[place])), place) for place in some]
    kinds = {
        "titles": plain,
        "one mistake": [(mistaken(query, chance), place) for query, place in plain],
        "two mistakes": [(mistaken(mistaken(query, chance), chance), place) for query, place in plain],
        "longest word alone, one mistake": [(mistaken(max(query.split(), key=len), chance), place) for query, place in plain],
    }
    print(f"{name}: {len(titles):,} titles, {len(lexicon._spelling):,} words, {len(some)} queries of each kind")
    for kind, queries in kinds.items():
        (mine, ms), (theirs, other) = judged(ours(lexicon), queries, titles), judged(peer, queries, titles)
        print(
            f"  {kind:32} MRR@10 {mine:.3f}, FTS5 {theirs:.3f}, ratio {mine / max(theirs, 1e-9):5.2f}; ms {ms:.2f}, FTS5 {other:.2f}"
        )


def chinese(count: int) -> None:
    titles = list(dict.fromkeys(chinese_titles(20_000)))
    chance = random.Random(2)
    lexicon = Lexicon(titles)
    some = chance.sample(range(len(titles)), count)
    print(f"Chinese: {len(titles):,} made-up titles")
    kinds: dict[str, list[tuple[str, int]]] = {"without blanks": [(titles[place].replace(" ", ""), place) for place in some]}
    kinds["brand and number last"] = [(" ".join(titles[place].split()[::-1]), place) for place in some]
    wrong = []
    for place in some:
        letters = list(titles[place].replace(" ", ""))
        letters[chance.randrange(2, 6)] = "龘"
        wrong.append(("".join(letters), place))
    kinds["one letter wrong, without blanks"] = wrong
    for kind, queries in kinds.items():
        mine, ms = judged(ours(lexicon), queries, titles)
        theirs, _ = judged(fts5(titles)[0], queries, titles)
        trigram, _ = judged(fts5(titles, "trigram")[0], queries, titles)
        print(f"  {kind:32} MRR@10 {mine:.3f}, FTS5 {theirs:.3f} (trigrams {trigram:.3f}); ms {ms:.2f}")


def spelt(number: int) -> str:
    """A number in letters."""
    return "".join(string.ascii_lowercase[int(digit)] for digit in str(number))


def live(titles: list[str]) -> None:
    lexicon = Lexicon(titles)
    began = time.perf_counter()
    Lexicon(titles)
    made = time.perf_counter() - began
    slowest, total = 0.0, 0.0
    for number in range(5_000):
        began = time.perf_counter()
        lexicon.put(number % len(titles) if number % 2 else len(lexicon), f"{titles[number % len(titles)]} new{spelt(number)}")
        took = time.perf_counter() - began
        slowest, total = max(slowest, took), total + took
    began = time.perf_counter()
    found = lexicon.scores(f"nw{spelt(4_998)}", len(lexicon))
    print(
        f"live: {5_000 / total:,.0f} changes/s ({5_000 / total / 1_000:.1f} of 1,000), slowest {1e3 * slowest:.1f} ms "
        f"({1e3 * slowest / 50:.2f} of 50); made anew in {made:.2f} s; a query with a mistake after: {1e3 * (time.perf_counter() - began):.2f} ms, "
        f"{int((found > 0).sum())} found"
    )


def fused(folder: Path, count: int) -> None:
    """How the weight of the words moves three kinds of questions; and what a user's eyes do."""
    from tastemaker.serving import wire

    bundle = wire.Live(folder, check=False)
    rows = bundle.state.rows
    titles = [str(row.get("title") or "") for row in rows]
    chance = random.Random(3)
    long = [place for place, title in enumerate(titles) if max(map(len, re.findall(r"[a-z]+", title.lower())), default=0) >= 5]
    some = chance.sample(long, min(count, len(long)))
    plain = [(" ".join(tokens(titles[place])), place) for place in some]
    wrong = [(mistaken(query, chance), place) for query, place in plain]
    shares = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    print(f"{folder.name}: {len(titles):,} items; MRR@10 by the weight of the words in the fusion")
    for share in shares:
        wire.WORDS_SHARE = share
        scores = [judged(lambda text: bundle.search(text, 10)[0], queries, titles)[0] for queries in (plain, wrong)]
        print(
            f"  {share:.1f}: titles {scores[0]:.3f}, one mistake {scores[1]:.3f}, kind asked for among the first ten {kinds(bundle):.3f}"
        )


def kinds(bundle: object) -> float:
    """The share of the first ten items that bear the category that was asked for in a sentence."""
    rows = bundle.state.rows  # type: ignore[attr-defined]
    names = sorted({name for row in rows for name in row.get("categories") or [] if name.isascii()})[:40]
    shares = []
    for name in names:
        found = bundle.search(f"a good one for somebody who likes {name.lower()}", 10)[0]  # type: ignore[attr-defined]
        shares.append(np.mean([name in (rows[place].get("categories") or []) for place in found]) if found else 0.0)
    return float(np.mean(shares))


def personal(count: int) -> None:
    """What a user's eyes do: asked for a genre, how high stands the film that this user took next? Learned before, asked after a moment in time."""
    from tastemaker import Dataset, Recommender
    from tastemaker.serving import wire

    with zipfile.ZipFile(DATA / "movielens-latest-small" / "ml-latest-small.zip") as whole, tempfile.TemporaryDirectory() as folder:
        for name in ("movies.csv", "ratings.csv"):
            (Path(folder) / name).write_bytes(whole.read(next(one for one in whole.namelist() if one.endswith(name))))
        data = Dataset.read(events=str(Path(folder) / "ratings.csv"), items=str(Path(folder) / "movies.csv"))
    moment = data.events["timestamp"].quantile(0.9)
    before, after = data.events.filter(pl.col("timestamp") <= moment), data.events.filter(pl.col("timestamp") > moment)
    bundle = Recommender(train={"effort": "quick"}).fit(data.with_events(before))._ready()
    known = set(before["user_id"].unique().to_list())
    next_one = after.sort("timestamp").group_by("user_id", maintain_order=True).head(20).filter(pl.col("value") >= 4)
    asked = []
    for user, item in next_one.select("user_id", "item_id").iter_rows():
        place = bundle.state.index_of.get(item)
        if user in known and place is not None and bundle.state.rows[place]["categories"]:
            asked += [(user, place, kind.lower()) for kind in bundle.state.rows[place]["categories"][:2]]
    chance = random.Random(4)
    asked = chance.sample(asked, min(count, len(asked)))
    titles = [str(row.get("title") or "") for row in bundle.state.rows]
    known_items = [(title, place) for place, title in enumerate(titles) if len(title) > 8]
    for share in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0):
        wire.PERSONAL_SHARE = share
        ranks = []
        for user, place, query in asked:
            found = bundle.search(query, 100, bundle.state.history(user))[0]
            ranks.append(1 / (found.index(place) + 1) if place in found else 0.0)
        eyes = [bundle.state.history(user) for user, _, _ in asked]
        some = list(zip(chance.sample(known_items, min(200, len(known_items))), eyes, strict=False))
        kept = [float(bundle.search(title, 1, history)[0][:1] == [place]) for (title, place), history in some]
        print(
            f"  share {share:.2f}: MRR@100 of the film taken next, asked for its genre {np.mean(ranks):.4f} ({len(ranks)} questions, in the list "
            f"{np.mean(np.array(ranks) > 0):.3f}); a title asked for stands first {np.mean(kept):.3f}"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--items", type=Path, nargs="*", default=[])
    options.add_argument("--bundle", type=Path)
    options.add_argument("--personal", action="store_true", help="train on MovieLens small up to a moment, and ask after it")
    options.add_argument("--queries", type=int, default=300)
    given = options.parse_args()
    if given.personal:
        personal(given.queries)
        return
    sets = catalogues(given.items)
    for name, titles in sets.items():
        words(name, titles, given.queries)
    chinese(given.queries)
    if sets:
        live(max(sets.values(), key=len))
    if given.bundle:
        fused(given.bundle, given.queries)


if __name__ == "__main__":
    main()
