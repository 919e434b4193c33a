"""Work on a Ray cluster: `each` for steps that need nothing but their task, `stream` for those that need a model first.

All machines must see the journal, the bundles and the folders that are written under the same path (a shared file system).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
import ray.data

from tastemaker.schema.cluster import LOCAL, check_machines, check_package, no_cluster, package, prepare
from tastemaker.schema.errors import InputError, TastemakerError

In = TypeVar("In")
Out = TypeVar("Out")
_RETRIES = 5
"""How often a task whose worker died runs again: a task that kills every worker must end as an error, not run for ever."""

_SHARE = 0.5
"""Cores that Ray sets aside for an actor. With whole ones the actors of a pool held all cores of a machine, no task could feed them, and all stood still."""
_BLOCKS = 2_000
"""Tasks are numbered in so many blocks at most: one block is one step of the pool."""
_AHEAD = 4
"""Results that wait for the reader."""
PATIENCE = 600.0
"""Seconds without a result after which the work counts as stuck."""


def connect(address: str | None = None, cpus: int | None = None) -> None:
    """Joins a cluster, or starts one on this machine; a connection that is there already is kept.

    Args:
        address: `auto`, `HOST:6379`, `ray://HOST:10001`; `local` or None: one on this machine.
        cpus: workers at once, of a cluster started here.

    Raises:
        InputError: nothing answers at the address. Unfit: a machine runs another version of the package.
    """
    if ray.is_initialized():
        return
    found = prepare(address)
    try:
        ray.init(address=found, num_cpus=cpus, include_dashboard=False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if found == LOCAL:
            raise
        raise InputError(no_cluster(found, error)) from None
    if found != LOCAL:
        check_machines(ray)


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


def stream(
    make: Callable[..., Callable[[int], bytes]],
    arguments: tuple[Any, ...],
    count: int,
    progress: Callable[[int], None] = lambda done: None,
    patience: float = PATIENCE,
    workers: int | None = None,
) -> Iterator[bytes]:
    """`make(*arguments)(n)` for n from 0 to `count`, in order, by a pool of actors on Ray Data; memory is bounded by what lies between them and the reader.

    Each actor calls `make` once. An actor that dies is started anew, and its task with it: a task may be done twice, its result comes once.

    Args:
        make, arguments: give what does a task, such as one that has loaded a model.
        progress: called with the number of tasks whose results have come.
        patience: seconds without a result after which the work counts as stuck.
        workers: actors at most; None: as many as the cluster has cores.

    Raises:
        Stuck: no result came for so long. InputError: what `make` or a task said, that refused on a worker.
    """
    size = max(min(workers or int(ray.cluster_resources().get("CPU", 1)), count), 1)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    numbers = ray.data.range(count, override_num_blocks=max(min(count, _BLOCKS), 1))
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size)
    done = numbers.map_batches(
        _Worker,
        fn_constructor_args=(package(), make, arguments),
        batch_size=1,
        compute=pool,
        num_cpus=_SHARE,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}},
    )
    for expected, row in enumerate(_watched(lambda: done.iter_rows(), patience)):
        if row["place"] != expected:
            raise Stuck(f"Result {row['place']} came where {expected} was due. Start again.")
        if row["refused"]:
            raise InputError(row["refused"])
        progress(expected + 1)
        yield row["found"]


class Stuck(TastemakerError):
    """A cluster does not get on with its work."""


class _Worker:
    """One actor: what `make` gave, for as many tasks as come."""

    def __init__(self, told: str, make: Callable[..., Callable[[int], bytes]], arguments: tuple[Any, ...]) -> None:
        self._told, self._make, self._arguments = told, make, arguments
        self._act: Callable[[int], bytes] | None = None

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        places = [int(place) for place in rows["id"]]
        done = [self._one(place) for place in places]
        return {"place": places, "found": [found for found, _ in done], "refused": [refused for _, refused in done]}

    def _one(self, place: int) -> tuple[bytes, str]:
        """A result, or why there is none: errors made on purpose go back as their text, as Ray would wrap them in pages of frames and try again."""
        try:
            if self._act is None:
                check_package(self._told, package(), os.uname().nodename)
                self._act = self._make(*self._arguments)
            return self._act(place), ""
        except TastemakerError as error:
            return b"", str(error)


def _watched(rows: Callable[[], Iterable[dict[str, Any]]], patience: float) -> Iterator[dict[str, Any]]:
    """The rows as they come; Ray waits without a word and for ever where actors hold all cores and none is left to feed them."""
    found: queue.Queue[Any] = queue.Queue(maxsize=_AHEAD)
    stop = threading.Event()

    def pull() -> None:
        try:
            for row in rows():
                while not stop.is_set():
                    try:
                        found.put((row, None), timeout=0.5)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
            found.put((None, None))
        except BaseException as error:  # handed to the reader
            found.put((None, error))

    threading.Thread(target=pull, daemon=True).start()
    try:
        while True:
            try:
                row, error = found.get(timeout=patience)
            except queue.Empty:
                free, all_of = ray.available_resources().get("CPU", 0.0), ray.cluster_resources().get("CPU", 0.0)
                raise Stuck(
                    f"No result for {patience:g} s; {free:g} of the cluster's {all_of:g} cores are free. "
                    "Where none is, end what else runs there or add machines; where some are, look at Ray's logs for what a task waits for."
                ) from None
            if error is not None:
                raise error
            if row is None:
                return
            yield row
    finally:
        stop.set()
