"""The stage on Ray gives the bytes that threads give, also when a worker dies on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.data.stage import stage
from tastemaker.journal.append import Journal
from tastemaker.schema.settings import DataSettings

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'tastemaker[ray]'")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    from tastemaker.data._ray import connect

    connect(cpus=2)
    yield
    ray.shutdown()


@pytest.fixture
def segments(tmp_path: Path) -> list[tuple[Path, int]]:
    rng = np.random.default_rng(3)
    users, items = (pl.Series(rng.zipf(a, 4_000) % n) for a, n in ((1.3, 200), (1.2, 90)))
    table = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": 1.6e9 + rng.integers(0, 10**6, 4_000)})
    table = table.with_columns(pl.format("u{}", "user_id").alias("user_id"), pl.format("i{}", "item_id").alias("item_id"))
    journal = Journal.open(tmp_path / "journal")
    for place in range(3):
        path = tmp_path / f"{place}.parquet"
        table.slice(place * 1_400, 1_400).write_parquet(path)
        Intake(journal, DataSettings(), Quarantine(tmp_path)).events([path])
    return journal.sealed(tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_ray_gives_the_bytes_of_one_machine(tmp_path: Path, segments: list[tuple[Path, int]]) -> None:
    from tastemaker.data._ray import each

    stage(segments, tmp_path / "threads", rows=500)
    stage(segments, tmp_path / "ray", rows=500, each=each)
    assert len(content(tmp_path / "threads")) > 8
    assert content(tmp_path / "ray") == content(tmp_path / "threads")


def test_a_worker_that_dies_is_replaced(tmp_path: Path, segments: list[tuple[Path, int]]) -> None:
    from tastemaker.data._ray import each

    deaths, caller = tmp_path / "deaths", os.getpid()
    deaths.mkdir()

    def deadly(step: Callable[[Any], Any], tasks: Iterable[Any]) -> list[Any]:
        """Every step's second task does its work, then kills its process, once."""
        mark = deaths / str(len(list(deaths.iterdir())))

        def act(numbered: tuple[int, Any]) -> Any:
            found = step(numbered[1])
            if numbered[0] == 1 and not mark.exists() and os.getpid() != caller:
                mark.touch()
                os.kill(os.getpid(), 9)
            return found

        return each(act, enumerate(tasks))

    stage(segments, tmp_path / "threads", rows=500)
    stage(segments, tmp_path / "ray", rows=500, each=deadly)
    assert len(list(deaths.iterdir())) == 5, "a worker of each of the five steps was to die"
    assert content(tmp_path / "ray") == content(tmp_path / "threads")
