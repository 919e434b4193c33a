"""A search on Ray is the same search, also when a worker dies on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from planted import SPACE, Hill, search

from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.tuning.objective import FoldScore
from tastemaker.tuning.space import space_of

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'tastemaker[tune]'")
ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'tastemaker[ray]'")
MORE = ("tune.sampler=random", "tune.pruner=none")


@dataclass
class Deadly(Hill):
    """The first fold that is judged away from the caller kills its process, once."""

    caller: int = 0
    mark: Path = Path()

    def judge(self, settings: Settings, fold: int, progress: Progress | None = None) -> FoldScore:
        if fold == 1 and os.getpid() != self.caller and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), 9)
        return super().judge(settings, fold, progress)


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    from tastemaker.data._ray import connect

    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    connect(cpus=2)
    yield
    ray.shutdown()


def test_ray_finds_what_one_process_finds_though_a_worker_dies(tmp_path: Path) -> None:
    from tastemaker.tuning._optuna import Search
    from tastemaker.tuning._ray import cluster

    settings = load_settings(None, [SPACE, *MORE], {})
    hill = Deadly(caller=os.getpid(), mark=tmp_path / "died")
    found = Search(tmp_path / "ray", settings, space_of(settings), hill.folds)
    with cluster(hill, "local", 1, 1) as workers:
        assert workers.size == 2
        found.run(workers, 5)
    assert hill.mark.exists(), "a worker was to die"
    search(tmp_path / "one", 5, 0.0, None, *MORE)
    alone = Search(tmp_path / "one", settings, space_of(settings), hill.folds)
    for ours, theirs in zip(found.trials(), alone.trials(), strict=True):
        assert (ours.number, ours.changes, ours.state) == (theirs.number, theirs.changes, theirs.state)
        assert np.array_equal(ours.every(), theirs.every())
