"""One process of a group that does a job: `python -m tastemaker.training.worker FOLDER`, started by torchrun or its like."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

from tastemaker.data.allocators import keep_freed
from tastemaker.training.group import enter
from tastemaker.training.job import perform


def main(folder: Path) -> None:
    """Enters the group that the environment announces, does the job and leaves."""
    keep_freed()
    enter()
    try:
        perform(folder)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
