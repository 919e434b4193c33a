"""Folds judged on a Ray cluster. Optuna still proposes and keeps everything here, so a search with Ray and one without are the same search.

Plain Ray tasks, not Ray Tune: a task whose worker died judges one fold again, where a trial of Ray Tune begins anew with its first; trials end between folds
and epochs by all that is known here; no machine but this one needs Optuna or writes the journal. `benchmarks/tuning_ray.py` runs both side by side, with the same
trials: Ray Tune took 2.3 times as long undisturbed, as it starts an actor and keeps a record of its own for every trial, and judged three folds again where a task judged one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import ray

from tastemaker.data._ray import connect
from tastemaker.schema.settings import Settings
from tastemaker.tuning.objective import FoldScore, Objective
from tastemaker.tuning.race import Curve
from tastemaker.tuning.workers import judged

_RETRIES = 5
"""How often a fold whose worker died runs again: one that kills every worker must end as an error, not run for ever."""


class Cluster:
    """Judges folds as tasks of a cluster; the log and the text vectors are sent once.

    Args:
        objective: what judges.
        size: folds at the same time. cores: that each of them takes.
    """

    def __init__(self, objective: Objective, size: int, cores: int) -> None:
        self.size, self._objective = size, ray.put(objective)
        self._judge = ray.remote(_judge).options(num_cpus=cores, max_retries=_RETRIES)

    def submit(self, settings: Settings, fold: int, rivals: Sequence[Curve] = ()) -> Future[FoldScore]:
        """Judges where the cluster has room."""
        future: Future[FoldScore] = self._judge.remote(self._objective, settings, fold, rivals).future()
        return future


@contextmanager
def cluster(objective: Objective, address: str | None, jobs: int, cores: int) -> Iterator[Cluster]:
    """Workers on the cluster at `address` (`auto`, `ray://host:10001`, `local` for one on this machine), as many as it has room for.

    Args:
        objective: what judges.
        address: where the cluster is.
        jobs: folds at the same time where it is more than 1; else as many as fit.
        cores: of each fold.
    """
    connect(address)
    room = int(ray.cluster_resources().get("CPU", 1)) // cores
    yield Cluster(objective, jobs if jobs > 1 else max(room, 1), cores)


def _judge(objective: Objective, settings: Settings, fold: int, rivals: Sequence[Curve]) -> FoldScore:
    return judged(objective, settings, fold, rivals)
