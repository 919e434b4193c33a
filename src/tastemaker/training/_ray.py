"""A job on the workers of a Ray cluster. All machines must see the run's folder under the same path (a shared file system)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

RESTARTS = 3


def launch_on(address: str | None = None) -> Callable[[Path, int], None]:
    """Joins a cluster (or starts one here where `address` is None) and gives what has jobs done on it.

    A worker that dies takes all back to the last checkpoint, at most `RESTARTS` times.
    """
    if not ray.is_initialized():
        ray.init(address=address, include_dashboard=False, log_to_driver=False)

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


def _work(config: dict[str, Any]) -> None:
    from tastemaker.training.job import perform

    perform(Path(config["folder"]))
