"""One tuning of the language model, in this process or, as a folder, by processes that share nothing but a file system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table, to_table
from tastemaker.training.checkpoints import load_weights, save_weights, weights_of, write_weights
from tastemaker.training.encoder import load_encoder
from tastemaker.training.group import rank
from tastemaker.training.job import progress_file, read_result
from tastemaker.training.loop import LoopOptions, LoopResult, run
from tastemaker.training.lower_layers import CatalogueReader
from tastemaker.training.optimisers import OptimiserOptions
from tastemaker.training.precision import compute_dtype, use_threads
from tastemaker.training.search_pairs import SearchPairs
from tastemaker.training.text_task import FinetuneTask
from tastemaker.training.together import Launch, alone, do_together
from tastemaker.training.trainable import HEAD_RATE, choose_trainable

WHAT = "finetune"
FILE = "texts.json"


class TextJob(msgspec.Struct, frozen=True):
    """What is not an array.

    Attributes:
        settings: all of them, as a table; `text.model` is the folder of the model.
        users, items, frozen: how many users and items there are, and how many of the lowest layers stay as they are.
        run_dir: where curves and checkpoints go.
    """

    settings: dict[str, Any]
    users: int
    items: int
    frozen: int
    run_dir: str


def learn_texts(
    task: FinetuneTask, settings: Settings, progress: Progress | None, run_dir: Path | None, launch: Launch | None, model: Path
) -> LoopResult:
    """Trains the task's tower in place, by as many processes as there are; arguments as those of `training.together.train_together`.

    Args:
        model: folder of the language model, from which other processes load theirs.

    Raises:
        TrainingError: the processes died more often than they were started anew.
    """
    if alone(settings, launch):
        return run_texts(task, settings, progress, run_dir)

    def write(folder: Path, base: Path) -> None:
        write_text_job(folder, task, settings, model, base)

    def read(folder: Path) -> LoopResult:
        return read_result(folder, task.model)

    return do_together(WHAT, settings.train.workers, write, read, progress, run_dir, launch)


def write_text_job(folder: Path, task: FinetuneTask, settings: Settings, model: Path, run_dir: Path) -> None:
    """Writes a tuning that `perform_texts` does."""
    folder.mkdir(parents=True)
    reader, sequences = task.reader, task.sequences
    flat = [np.asarray(text, dtype=np.int64) for text in reader.tokens]
    arrays: dict[str, NDArray[Any]] = {
        "offsets": sequences.offsets,
        "items": sequences.items,
        "lengths": reader.lengths,
        "learn": task.learn,
        "hard": task.hard,
    }
    arrays["tokens"] = np.concatenate([np.zeros(0, np.int64), *flat])
    if reader.pooled is not None:
        arrays["pooled"] = reader.pooled.numpy()
    if reader.lower is not None:
        arrays["lower"] = torch.cat(reader.lower).numpy()
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    save_weights(task.model, folder / "start.safetensors")
    table = to_table(settings)
    table["text"]["model"] = str(model)
    job = TextJob(table, sequences.n_users, sequences.n_items, reader.frozen, str(run_dir))
    (folder / FILE).write_bytes(msgspec.json.encode(job))


def perform_texts(folder: Path, progress: Progress | None = None) -> None:
    """Does a tuning in this process, as one of its group; the leader leaves the weights and the result in the folder."""
    job = msgspec.json.decode((folder / FILE).read_bytes(), type=TextJob)
    settings = from_table(job.settings)
    use_threads(settings.train.threads)
    task = _task(folder, job, settings)
    tell = progress or (progress_file(folder) if rank() == 0 else None)
    result = run_texts(task, settings, tell, Path(job.run_dir))
    weights = weights_of(task.model)  # of shards, which every process has to give
    if rank() == 0:
        write_weights(weights, folder / "learned.safetensors")
        (folder / "result.json").write_bytes(msgspec.json.encode(result))


def _task(folder: Path, job: TextJob, settings: Settings) -> FinetuneTask:
    arrays = {path.stem: np.load(path, mmap_mode="c") for path in folder.glob("*.npy")}
    ends = np.cumsum(arrays["lengths"])[:-1]
    tower = load_encoder(settings.text, "fp32").tower
    pooled, full = arrays.get("pooled"), arrays["lengths"][: job.items] > 0
    of_items = np.zeros((0, 1), dtype=np.float32) if pooled is None else np.asarray(pooled)[: job.items][full]
    tower, _ = choose_trainable(tower, settings.finetune, of_items, settings.text.dim)
    load_weights(tower, folder / "start.safetensors")
    lower = list(torch.split(torch.from_numpy(arrays["lower"]), arrays["lengths"].tolist())) if "lower" in arrays else None
    tokens = [part.tolist() for part in np.split(arrays["tokens"], ends)]
    dtype = compute_dtype(settings.train.precision)
    reader = CatalogueReader(tower, tokens, job.frozen, pooled, 0.0, dtype, lower=lower)
    items = arrays["items"]
    kinds = np.zeros(len(items), dtype=np.int16)
    sequences = Sequences([""] * job.users, [""] * job.items, arrays["offsets"], items, kinds.astype(np.float64), kinds, ["event"])
    searches = SearchPairs([], arrays["learn"], np.zeros((0, 2), dtype=np.int64))
    return FinetuneTask(reader, sequences, settings.finetune, settings.train.seed, arrays["hard"], searches)


def run_texts(task: FinetuneTask, settings: Settings, progress: Progress | None, run_dir: Path | None) -> LoopResult:
    """Trains the task's tower in place, in this process as one of its group."""
    chosen = settings.finetune
    rate = chosen.learning_rate * (HEAD_RATE if chosen.mode == "head" else 1)
    how = OptimiserOptions(learning_rate=rate, weight_decay=chosen.weight_decay, warmup=chosen.warmup)
    options = LoopOptions(
        task.epochs, optimiser=how, checkpoint_seconds=settings.train.checkpoint_seconds, seed=settings.train.seed
    )
    return run(task, options, WHAT, progress, run_dir)
