"""ONNX Runtime against OpenVINO on a bundle's own graphs: text encoder and user tower, batches of 1 and 64, one thread.

    python benchmarks/engines.py WORKSPACE      (the live bundle of a workspace, such as the demo's)

Prints milliseconds a batch (median), the ratio, and the largest difference of the answers. Needs `pip install openvino`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.bundle.registry import Registry
from tastemaker.inference.runtimes import by_onnxruntime

TOKENS, EVENTS, SECONDS = 32, 50, 1.5
Run = Callable[[dict[str, Any]], Any]


def median_ms(run: Run, inputs: dict[str, Any]) -> float:
    for _ in range(3):
        run(inputs)
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 5:
        began = time.perf_counter()
        run(inputs)
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


def by_onnx(path: Path) -> Run:
    found = by_onnxruntime(path, 1)
    return lambda inputs: found.run(None, inputs)[0]


def by_openvino(path: Path, precision: str) -> Run:
    import openvino as ov

    hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = ov.Core().compile_model(path, "CPU", hints).create_infer_request()

    def run(inputs: dict[str, Any]) -> Any:
        return next(iter(request.infer(inputs).values()))

    return run


def main() -> None:
    folder = Registry(Path(sys.argv[1]) / "bundles").live()
    dim = int(np.load(folder / "channels" / "items.npy", mmap_mode="r").shape[1])
    random = np.random.default_rng(0)
    print(
        f"{'graph':14}{'batch':>6}{'ONNX Runtime ms':>17}{'OpenVINO fp32':>15}{'ratio':>7}{'OpenVINO bf16':>15}{'ratio':>7}{'bf16 differs':>14}"
    )
    for name in ("text_encoder", "user_tower"):
        path = folder / name / "model.onnx"
        runs = [by_onnx(path), by_openvino(path, "f32"), by_openvino(path, "bf16")]
        for batch in (1, 64):
            if name == "text_encoder":
                inputs: dict[str, Any] = {"input_ids": random.integers(1_000, 20_000, (batch, TOKENS))}
                inputs["attention_mask"] = np.ones((batch, TOKENS), np.int64)
            else:
                inputs = {"vectors": random.normal(size=(batch, EVENTS, dim)).astype(np.float32) / np.float32(dim**0.5)}
                inputs["lengths"] = np.full(batch, EVENTS)
            times = [median_ms(run, inputs) for run in runs]
            apart = float(np.abs(runs[0](inputs) - runs[2](inputs)).max())
            print(
                f"{name:14}{batch:6}{times[0]:17.2f}{times[1]:15.2f}{times[0] / times[1]:6.2f}x{times[2]:15.2f}"
                f"{times[0] / times[2]:6.2f}x{apart:14.1e}"
            )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("Skipped: give a workspace with a live bundle, such as the demo's: python benchmarks/engines.py demo")
    else:
        main()
