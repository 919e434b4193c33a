"""Do alerts fire when they should, and only then: faults planted in a simulated service, and a day of clean traffic.

    python benchmarks/drift.py [--hours 24] [--faults-only] [--clean-only] [--seed 0] [--few]

The service is the real one, asked through its HTTP application in this process; people are simulated (`evaluation.replay`), and so is the clock. Limits:
each of the faults is told of and nothing in the clean minutes before it, and at most one false alarm falls into 24 clean hours.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from monitoring_faults import FAULTS
from tastemaker.schema.settings import Settings
from toy_ranker import FEATURES
from watched_world import World

SETTLE, WAIT = 5_400.0, 7_200.0


def faults(seed: int, only: str, features: Sequence[str]) -> int:
    """Prints the matrix; gives how many faults nobody told of, and how many of the quiet times before them were not quiet."""
    missed = early = 0
    print(f"| fault | told of by | minutes | also fired |\n|{'---|' * 4}")
    for name, (plant, expected) in FAULTS.items():
        if only and only != name:
            continue
        with tempfile.TemporaryDirectory() as folder, World(Path(folder) / "world", seed=seed, features=features) as world:
            before = world.run(SETTLE)
            plant(world)
            fired = world.run(WAIT)
            told = {alert: after for alert, after in fired.items() if alert in expected}
            first = min(told, key=lambda alert: told[alert], default="")
            missed, early = missed + (not told), early + bool(before)
            minutes = f"{told[first] / 60:.1f}" if first else "never"
            others = ", ".join(f"{alert} {after / 60:.0f}" for alert, after in fired.items() if alert != first)
            print(f"| {name} | {first or '-'} | {minutes} | {others or '-'} |{f' before: {before}' if before else ''}", flush=True)
    print(f"{len(FAULTS) - missed if not only else 1 - missed} of {len(FAULTS) if not only else 1} faults told of (limit: all)")
    print(f"clean minutes before with an alarm: {early} times {SETTLE / 60:g} (limit: none)")
    return missed + early


def clean(hours: float, seed: int, features: Sequence[str]) -> int:
    """Prints what fired in clean traffic; gives how many did."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, World(Path(folder) / "world", seed=seed, features=features) as world:
        world.every.append(lambda now: world.add_item() if now % 900 < 30 else None)
        fired = world.run(3_600.0 * hours)
        samples = world.metrics.samples()
        lists = samples[("tastemaker_answers_total", ())]
        closest = sorted(
            (
                (value / samples[("tastemaker_drift_threshold", labels)], dict(labels)["check"])
                for (name, labels), value in samples.items()
                if name == "tastemaker_drift_statistic" and samples[("tastemaker_drift_threshold", labels)]
            ),
            reverse=True,
        )
    print(
        f"clean traffic: {hours:g} simulated hours, {lists:,.0f} lists, {time.perf_counter() - began:.0f} s: {len(fired)} false alarms"
    )
    print(f"ratio to the limit of one in 24 hours: {len(fired) / max(hours / 24, 1e-9):.2f}; fired: {fired or 'nothing'}")
    print("closest at the end: " + ", ".join(f"{check} {share:.2f}" for share, check in closest[:4]))
    return len(fired)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults-only", action="store_true")
    parser.add_argument("--clean-only", action="store_true")
    parser.add_argument(
        "--few", action="store_true", help="watch two features instead of all that are declared by default: half the time"
    )
    parser.add_argument("--only", default="", help="one fault, by name")
    chosen = parser.parse_args()
    features = FEATURES if chosen.few else Settings().features.use
    missed = 0 if chosen.clean_only else faults(chosen.seed, chosen.only, features)
    false = 0 if chosen.faults_only or chosen.only else clean(chosen.hours, chosen.seed, features)
    sys.exit(1 if missed or false > max(chosen.hours / 24, 1) else 0)


if __name__ == "__main__":
    main()
