"""Trains a model in one process, in several on this machine, or in a group that somebody else started.

train.workers = 1                                     this process
train.workers = 2                                     two processes here; one that dies takes all back to the last checkpoint
torchrun --nproc-per-node 2 -m tastemaker train DIR   the processes of torchrun: the first does all, the others help it train
tastemaker train DIR --ray ADDRESS                    workers of a Ray cluster
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from tastemaker.data.sequences import Sequences
from tastemaker.schema.errors import TrainingError
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.signals import Signals
from tastemaker.training.group import announced, enter, from_leader, rank, world
from tastemaker.training.job import perform, read_result, steps_done, write_job
from tastemaker.training.loop import LoopResult, Watch
from tastemaker.training.sequence import SequenceModel, Start, Validation, train_sequence

T = TypeVar("T")
RESTARTS = 3
_PATIENCE = timedelta(days=2)  # followers wait while the leader reads texts
Launch = Callable[[Path, int], None]
"""Called as launch(job folder, workers): has the job done by so many processes."""


def train_together(
    sequences: Sequences,
    signals: Signals,
    settings: Settings,
    validation: Validation | None = None,
    stop_after: int | None = None,
    what: str = "sequence",
    progress: Progress | None = None,
    run_dir: Path | None = None,
    start: Start | None = None,
    launch: Launch | None = None,
    watch: Watch | None = None,
) -> tuple[SequenceModel, LoopResult]:
    """`training.sequence.train_sequence`, by as many processes as there are.

    Args:
        launch: starts the processes; None: those of the group that this process leads, else `train.workers` of them on this machine.
        watch: as in `training.loop.run`; heard where this process trains alone.

    Raises:
        TrainingError: the processes died more often than they were started anew.
    """
    if alone(settings, launch):
        return train_sequence(sequences, signals, settings, validation, stop_after, what, progress, run_dir, start, watch)

    def write(folder: Path, base: Path) -> None:
        write_job(folder, sequences, signals, settings, validation, stop_after, what, base, start)

    def read(folder: Path) -> tuple[SequenceModel, LoopResult]:
        model = SequenceModel(signals, torch.from_numpy(sequences.counts()), settings.sequence)
        return model, read_result(folder, model)

    return do_together(what, settings.train.workers, write, read, progress, run_dir, launch)


def alone(settings: Settings, launch: Launch | None) -> bool:
    """Whether this process trains without others."""
    return settings.train.workers == 1 and world() == 1 and launch is None


def do_together(
    what: str,
    workers: int,
    write: Callable[[Path, Path], None],
    read: Callable[[Path], T],
    progress: Progress | None,
    run_dir: Path | None,
    launch: Launch | None,
) -> T:
    """Has a job done by as many processes as there are, and gives what it came to.

    Args:
        what: its name. workers: processes that are started where there are none.
        write: called as write(job folder, run folder): writes what `training.job.perform` does.
        read: called as read(job folder): what was learned.
        progress, run_dir: as in `training.loop.run`.
        launch: as in `train_together`.
    """
    with tempfile.TemporaryDirectory(prefix="tastemaker-") as room:
        base = run_dir or Path(room)
        folder = base / f"{what}.job"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut short: its checkpoints lie beside it
        write(folder, base)
        if world() > 1:
            _job(str(folder))
            perform(folder, progress)
        else:
            with _watched(folder, what, progress):
                (launch or launch_here)(folder, workers)
        found = read(folder)
        shutil.rmtree(folder)
        return found


def launch_here(folder: Path, workers: int) -> None:
    """Has a job done by processes of this machine; when one dies, all begin anew at the last checkpoint, at most `RESTARTS` times.

    Raises:
        TrainingError: they died once more.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=workers,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=RESTARTS,
        run_id=folder.parent.name or "train",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "tastemaker.training.worker", str(folder))
    except ChildFailedError as error:
        raise TrainingError(
            f"The {workers} processes of the training ended {RESTARTS + 1} times without finishing: {error}"
        ) from None


def join() -> bool:
    """Enters the group that torchrun announces in the environment; whether there is one."""
    if announced():
        enter(_PATIENCE)
    return world() > 1


def follow() -> None:
    """Helps the leader with its trainings until it dismisses the group."""
    while (folder := _job(None)) is not None:
        perform(Path(folder))


def dismiss() -> None:
    """Ends the group; the leader's followers return."""
    if rank() == 0:
        _job(None)
    dist.destroy_process_group()


def _job(folder: str | None) -> str | None:
    """The leader's next job, told to all; None: there is none."""
    return from_leader(folder)


class _watched:
    """Tells the progress of a job that other processes do."""

    def __init__(self, folder: Path, what: str, progress: Progress | None) -> None:
        self._folder, self._what, self._progress, self._done = folder, what, progress, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        if self._progress is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._progress is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            done, total = steps_done(self._folder)
            if self._progress is not None and total:
                self._progress(self._what, done, total)
