"""One training of the sequence model as a folder, so that processes that share nothing but a file system can do it together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from tastemaker.data.sequences import Sequences
from tastemaker.schema.errors import TrainingError
from tastemaker.schema.protocols import IntArray, Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table, to_table
from tastemaker.schema.signals import Signal, Signals
from tastemaker.training.checkpoints import load_weights, save_weights
from tastemaker.training.group import rank
from tastemaker.training.loop import LoopResult
from tastemaker.training.sequence import SequenceModel, Start, Validation, train_sequence

_ARRAYS = ("offsets", "items", "times", "event_types", "values")


class Job(msgspec.Struct, frozen=True):
    """What is not an array.

    Attributes:
        what: name of the training. settings: all of them, as a table. stop_after, begin_at: as in `train_sequence`.
        users, items: how many. type_names: of the events. signals: their names. run_dir: where curves and checkpoints go.
    """

    what: str
    settings: dict[str, Any]
    stop_after: int | None
    begin_at: int | None
    users: int
    items: int
    type_names: list[str]
    signals: list[str]
    run_dir: str


def write_job(
    folder: Path,
    sequences: Sequences,
    signals: Signals,
    settings: Settings,
    validation: Validation | None,
    stop_after: int | None,
    what: str,
    run_dir: Path,
    start: Start | None,
) -> None:
    """Writes a training that `perform` does; arguments as those of `train_sequence`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _ARRAYS:
        values = getattr(sequences, name)
        if values is not None:
            np.save(folder / f"{name}.npy", values)
    for part in signals.parts:
        np.save(folder / f"signal_{part.name}.npy", part.vectors)
    if validation is not None:
        np.save(folder / "history_lengths.npy", np.array([len(history) for history in validation.histories], dtype=np.int64))
        np.save(folder / "histories.npy", np.concatenate([np.zeros(0, np.int32), *validation.histories]).astype(np.int32))
        np.save(folder / "targets.npy", validation.targets)
    if start is not None:
        save_weights(start.model, folder / "start.safetensors")
        np.save(folder / "start_counts.npy", start.model.items.met[:, 0].numpy())
    job = Job(
        what,
        to_table(settings),
        stop_after,
        start.epoch if start is not None else None,
        sequences.n_users,
        sequences.n_items,
        sequences.type_names,
        list(signals.widths),
        str(run_dir),
    )
    (folder / "job.json").write_bytes(msgspec.json.encode(job))


def perform(folder: Path, progress: Progress | None = None) -> None:
    """Does a job in this process, as one of its group; the leader leaves the weights and the result in the folder."""
    if (folder / "texts.json").is_file():
        from tastemaker.training.text_job import perform_texts

        return perform_texts(folder, progress)
    job = msgspec.json.decode((folder / "job.json").read_bytes(), type=Job)
    settings = from_table(job.settings)
    sequences = _sequences(folder, job)
    signals = Signals(tuple(Signal(name, np.load(folder / f"signal_{name}.npy")) for name in job.signals))
    start = _start(folder, job, signals, settings) if job.begin_at is not None else None
    tell = progress or (progress_file(folder) if rank() == 0 else None)
    model, result = train_sequence(
        sequences, signals, settings, _validation(folder), job.stop_after, job.what, tell, Path(job.run_dir), start
    )
    if rank() == 0:
        save_weights(model, folder / "learned.safetensors")
        (folder / "result.json").write_bytes(msgspec.json.encode(result))


def read_result(folder: Path, model: nn.Module) -> LoopResult:
    """Puts what was learned into a model of the same shape.

    Raises:
        TrainingError: the job was not done.
    """
    path = folder / "result.json"
    if not path.is_file():
        raise TrainingError(f"The processes of the training {folder.name} ended without a result; their output tells why.")
    load_weights(model, folder / "learned.safetensors")
    return msgspec.json.decode(path.read_bytes(), type=LoopResult)


def steps_done(folder: Path) -> tuple[int, int]:
    """Steps done and steps in all of a job under way."""
    path = folder / "progress"
    done, _, total = (path.read_text() if path.is_file() else "0 0").partition(" ")
    return int(done or 0), int(total or 0)


def progress_file(folder: Path) -> Progress:
    """Tells the progress of a job to whoever asks `steps_done`."""

    def tell(_: str, done: int, total: int) -> None:
        partial = folder / "progress.partial"
        partial.write_text(f"{done} {total}")
        partial.replace(folder / "progress")

    return tell


def _sequences(folder: Path, job: Job) -> Sequences:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS if (folder / f"{name}.npy").is_file()}
    return Sequences([""] * job.users, [""] * job.items, **arrays, type_names=job.type_names)


def _validation(folder: Path) -> Validation | None:
    if not (folder / "targets.npy").is_file():
        return None
    lengths, flat = np.load(folder / "history_lengths.npy"), np.load(folder / "histories.npy")
    histories: Sequence[IntArray] = np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else []
    return Validation(histories, np.load(folder / "targets.npy"))


def _start(folder: Path, job: Job, signals: Signals, settings: Settings) -> Start:
    counts = torch.from_numpy(np.load(folder / "start_counts.npy"))
    model = SequenceModel(signals, counts, settings.sequence)
    load_weights(model, folder / "start.safetensors")
    return Start(model, job.begin_at or 0)
