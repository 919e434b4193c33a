"""A tuning in a process of its own, which ends itself with SIGKILL after some steps: FOLDER KILL_AFTER (0: never)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from language_models import write_model
from ring_world import ring

from tastemaker.data.sequences import build
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.encoder import load_encoder
from tastemaker.training.finetune import finetune
from tastemaker.training.holdout import hold_out
from tastemaker.training.precision import use_threads
from tastemaker.training.reading import item_texts


def tune(folder: Path, kill_after: int = 0) -> dict[str, Any]:
    """Figures, fingerprint of the weights, and the first step that was made."""
    if not (folder / "model").is_dir():
        write_model(folder / "model", "bert", layers=2)
    lines = [
        "train.threads=1",
        "train.precision=fp32",
        "train.checkpoint_seconds=0.0",
        f"text.model={folder / 'model'}",
        "text.dim=16",
    ]
    lines += ["finetune.mode=last", "finetune.layers=1", "finetune.steps=60", "finetune.batch_size=16", "finetune.blends=1.0"]
    settings, data, seen = load_settings(None, lines, {}), ring(users=60), []

    def tell(what: str, done: int, total: int) -> None:
        seen.append((what, done))
        if what == "finetune" and kill_after and done >= kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    use_threads(settings.train.threads)  # as `fit` does: sums of two threads are rounded in another order than those of one
    encoder = load_encoder(settings.text, "fp32")
    texts = item_texts(data.catalogue(), settings.text.template)
    tuned = finetune(encoder, texts, encoder.encode(texts), hold_out(build(data), 0.1, 0), settings, tell, folder / "run")
    steps = [done for what, done in seen if what == "finetune"]
    return {"metrics": tuned.metrics, "weights": tuned.encoder.fingerprint, "first": min(steps)}


if __name__ == "__main__":
    tune(Path(sys.argv[1]), int(sys.argv[2]))
