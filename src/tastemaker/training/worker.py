"""One process of a group that does a job: `python -m tastemaker.training.worker FOLDER`, started by torchrun or its like."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch.distributed as dist

from tastemaker.training.job import perform


def main(folder: Path) -> None:
    """Enters the group that the environment announces, does the job and leaves."""
    place = {name: os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")}
    store = dist.TCPStore(place["MASTER_ADDR"], int(place["MASTER_PORT"]), is_master=False)  # type: ignore[attr-defined]
    turn = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store outlives a worker that died, and holds its address
    turns = dist.PrefixStore(f"turn-{turn}", store)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=turns, rank=int(place["RANK"]), world_size=int(place["WORLD_SIZE"]))
    try:
        perform(folder)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
