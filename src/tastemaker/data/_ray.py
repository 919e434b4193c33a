"""The stage's steps on Ray Data: each task is one block, so that a task whose worker dies runs again elsewhere.

All machines must see the journal and the stage's folder under the same path (a shared file system).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import ray
import ray.data

In = TypeVar("In")
Out = TypeVar("Out")
_RETRIES = 5
"""How often a task whose worker died runs again: a task that kills every worker must end as an error, not run for ever."""


def connect(address: str | None = None, cpus: int | None = None) -> None:
    """Joins a cluster, or starts one on this machine where `address` is None; a connection that is there already is kept.

    Args:
        address: as `ray.init` takes it, such as `auto` or `ray://host:10001`.
        cpus: workers at once, of a cluster started here.
    """
    if not ray.is_initialized():
        ray.init(address=address, num_cpus=cpus, include_dashboard=False, log_to_driver=False)


def each(step: Callable[[In], Out], tasks: Iterable[In]) -> list[Out]:
    """`[step(task) for task in tasks]` on the cluster's workers."""
    work = list(tasks)

    def block(rows: dict[str, Any]) -> dict[str, list[Any]]:
        places = [int(place) for place in rows["id"]]
        return {"place": places, "found": [step(work[place]) for place in places]}

    numbers = ray.data.range(len(work), override_num_blocks=max(len(work), 1))
    done = numbers.map_batches(block, batch_size=1, max_retries=_RETRIES).take_all()
    found = {int(row["place"]): row["found"] for row in done}
    return [found[place] for place in range(len(work))]
