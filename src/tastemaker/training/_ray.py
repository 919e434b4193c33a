"""Jobs, and texts read, on the workers of a Ray cluster. All machines must see the run's folder under the same path (a shared file system)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from tastemaker.data._ray import connect, stream
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table, to_table
from tastemaker.training.encoder import Spread, Tokens

RESTARTS = 3


def launch_on(address: str | None = None) -> Callable[[Path, int], None]:
    """Joins a cluster (or starts one here where `address` is None) and gives what has jobs done on it.

    A worker that dies takes all back to the last checkpoint, at most `RESTARTS` times.
    """
    connect(address)

    def launch(folder: Path, workers: int) -> None:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"folder": str(folder)},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=False),
            run_config=RunConfig(
                name=folder.name, storage_path=str(folder / "ray"), failure_config=FailureConfig(max_failures=RESTARTS)
            ),
        )
        trainer.fit()

    return launch


def reader_on(address: str | None, settings: Settings, folder: Path) -> Spread:
    """Joins a cluster and gives what has batches of tokens read on it, by as many processes as it has cores, one thread each.

    The batches are those of one machine, so the vectors are too. They lie in a file; only numbers go to the workers, and vectors come back as they are read.

    Args:
        address: of the cluster. settings: `text` and `train.precision` are read. folder: for the file, the same path on every machine.
    """
    connect(address)

    def spread(batches: Sequence[Tokens]) -> Iterator[FloatArray]:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="texts-") as room:
            write_batches(batches, Path(room))
            for found in stream(reader, (to_table(settings), room), len(batches)):
                yield np.load(io.BytesIO(found), allow_pickle=False)

    return spread


def write_batches(batches: Sequence[Tokens], folder: Path) -> None:
    """Batches of tokens as arrays that can be memory-mapped: all tokens, where texts end, and where batches end."""
    texts = [text for batch in batches for text in batch]
    np.save(folder / "tokens.npy", np.concatenate([np.zeros(0, np.int32), *(np.asarray(text, np.int32) for text in texts)]))
    np.save(folder / "texts.npy", np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64))
    np.save(folder / "batches.npy", np.cumsum([0, *(len(batch) for batch in batches)], dtype=np.int64))


def reader(settings: dict[str, Any], folder: str) -> Callable[[int], bytes]:
    """What a worker does: loads the language model, then reads one batch after the other; gives the vectors as a `.npy` file."""
    import torch

    from tastemaker.training.encoder import load_encoder

    torch.set_num_threads(1)
    told = from_table(settings)
    encoder = load_encoder(told.text, told.train.precision)
    tokens, texts, batches = (np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in ("tokens", "texts", "batches"))

    def one(number: int) -> bytes:
        places = range(int(batches[number]), int(batches[number + 1]))
        batch = [tokens[texts[place] : texts[place + 1]].tolist() for place in places]
        found = io.BytesIO()
        np.save(found, next(iter(encoder.read([batch]))))
        return found.getvalue()

    return one


def _work(config: dict[str, Any]) -> None:
    from tastemaker.training.job import perform

    perform(Path(config["folder"]))
