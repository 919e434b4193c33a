"""Which products of a graph lose most in eight bits: they are left in float."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from tastemaker.compression.calibration import Feed, calibrate
from tastemaker.compression.quantize import products, quantize
from tastemaker.compression.step import NotApplicable

SHARE = 0.25
"""Of the products, the most sensitive, that stay in float."""


def keep_sensitive(source: Path, target: Path, feeds: Sequence[Feed]) -> dict[str, float | int | str]:
    """Quantizes all products but those that cost most when they alone are int8, on inputs that set no scale.

    Raises:
        NotApplicable: the graph has too few products to choose among.
    """
    from tastemaker.compression.text import answers_of, cosine

    model = onnx.load(str(source))
    every = products(model)
    names = [one.node for one in every]
    if len(names) < 4:
        raise NotApplicable(f"it has {len(names)} products, too few to leave some in float")
    cut = max(len(feeds) * 3 // 4, 1)
    learn, check = feeds[:cut], (feeds[cut:] or feeds[:1])[:4]
    wanted, costs = answers_of(source, check), dict[str, float]()
    seen = calibrate(model, list(dict.fromkeys(one.given for one in every)), learn)
    attempt = target.with_name("attempt.onnx")
    for name in names:
        quantize(source, attempt, learn, [other for other in names if other != name], seen=seen)
        costs[name] = 1 - cosine(wanted, answers_of(attempt, check))
    attempt.unlink()
    worst = sorted(names, key=lambda name: -costs[name])[: max(round(len(names) * SHARE), 1)]
    facts = quantize(source, target, learn, worst, seen=seen)
    return {**facts, "left in float": ", ".join(worst), "cosine": round(cosine(wanted, answers_of(target, check)), 5)}
