"""What figures of live traffic can be trusted: off-policy estimates on real logs and where the truth is known, experiments looked at again and again.

    python benchmarks/online.py [--wheel obp-0.4.1-py3-none-any.whl] [--worlds 2000] [--tests 2000]

1. Open Bandit (Y. Saito et al., 2021; 60,000 impressions of a fashion shop under two policies that ran side by side, with true propensities): from the
   log of Thompson sampling the click rate of the uniform policy, beside the rate that the uniform policy had in its own log. The wheel of obp
   carries the logs (Apache-2.0); it is downloaded by pip, read as a zip, never installed.
2. Worlds of known truth: how often the 95 % interval of IPS, SNIPS and DR holds it.
3. A/A experiments looked at twenty times: how often something is found that is not there, by confidence sequences and by a plain z-test.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl

from tastemaker.evaluation.experiment import difference
from tastemaker.evaluation.off_policy import Estimate, doubly_robust, ips, snips

WHEEL, SHA256 = "obp-0.4.1-py3-none-any.whl", "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
ITEMS = {"all": 80, "men": 34, "women": 46}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--wheel", type=Path, default=Path.home() / ".cache" / "tastemaker" / WHEEL)
    ask.add_argument("--worlds", type=int, default=2_000)
    ask.add_argument("--tests", type=int, default=2_000)
    told = ask.parse_args()
    bandit(fetched(told.wheel))
    worlds(told.worlds)
    experiments(told.tests)


def fetched(wheel: Path) -> zipfile.ZipFile:
    """The checked wheel, downloaded if it is not there."""
    if not wheel.is_file():
        wheel.parent.mkdir(parents=True, exist_ok=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            str(wheel.parent),
            "obp==0.4.1",
        ]
        subprocess.run(pip, check=True)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{wheel} has the checksum {found}, expected {SHA256}")
    return zipfile.ZipFile(wheel)


def bandit(wheel: zipfile.ZipFile) -> None:
    print("Open Bandit: the uniform policy's clicks per 1,000, from the log of Thompson sampling, beside its own log\n")
    print(
        "| campaign | own log | estimator | estimate | 95 % | holds | effective sample | relative error |\n|---|---|---|---|---|---|---|---|"
    )
    for campaign, items in ITEMS.items():
        own, other = (_log(wheel, policy, campaign) for policy in ("random", "bts"))
        truth = float(own["click"].mean())
        error = 1.96 * float(own["click"].std()) / len(own) ** 0.5
        clicks, logged = other["click"].to_numpy().astype(float), other["propensity_score"].to_numpy()
        target = np.full(len(other), 1 / items)
        rate = other.group_by("item_id").agg(guess=(pl.col("click").sum() + 1) / (pl.len() + 1 / 0.005))
        guessed = other.join(rate, "item_id", how="left", maintain_order="left")["guess"].to_numpy()
        expected = np.full(len(other), float(rate["guess"].sum()) / items)
        naive = ips(clicks, logged, logged)
        rows = {"mean of the log": naive, "IPS": ips(clicks, logged, target), "SNIPS": snips(clicks, logged, target),
                "DR": doubly_robust(clicks, logged, target, guessed, expected), "IPS, weights <= 10": ips(clicks, logged, target, clip=10.0)}  # fmt: skip
        for name, found in rows.items():
            both = found.low - error <= truth <= found.high + error
            print(
                f"| {campaign} | {1e3 * truth:.2f} ± {1e3 * error:.2f} | {name} | {1e3 * found.value:.2f} | {1e3 * found.low:.2f} to {1e3 * found.high:.2f} | "
                f"{'yes' if both else 'NO'} | {found.effective:,.0f} | {abs(found.value / truth - 1):.2f} |"
            )


def _log(wheel: zipfile.ZipFile, policy: str, campaign: str) -> pl.DataFrame:
    raw = wheel.read(f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv")
    return pl.read_csv(io.BytesIO(raw), columns=["item_id", "position", "click", "propensity_score"])


def worlds(count: int) -> None:
    """Six situations, eight things, 2,000 impressions; the model of DR is off by half."""
    held: dict[str, int] = {}
    for seed in range(count):
        random = np.random.default_rng(seed)
        chance, logged, target = (
            random.beta(1, 6, (6, 8)),
            random.dirichlet(np.full(8, 2.0), 6),
            random.dirichlet(np.full(8, 2.0), 6),
        )
        truth = float((target * chance).sum(axis=1).mean())
        at = random.integers(6, size=2_000)
        thing = (random.random((2_000, 1)) < logged[at].cumsum(axis=1)).argmax(axis=1)
        reward = (random.random(2_000) < chance[at, thing]).astype(float)
        was, would, model = logged[at, thing], target[at, thing], chance / 2 + 0.05
        found: dict[str, Estimate] = {
            "mean of the log": ips(reward, was, was), "IPS": ips(reward, was, would), "SNIPS": snips(reward, was, would),
            "DR": doubly_robust(reward, was, would, model[at, thing], (target * model).sum(axis=1)[at]),
        }  # fmt: skip
        for name, one in found.items():
            held[name] = held.get(name, 0) + (one.low <= truth <= one.high)
    print(
        f"\n{count:,} worlds of known truth: share of 95 % intervals that hold it\n\n| estimator | share | to .95 |\n|---|---|---|"
    )
    for name, number in held.items():
        print(f"| {name} | {number / count:.3f} | {number / count / 0.95:.2f} |")


def experiments(count: int) -> None:
    """Two groups of up to 5,000 users, 20 impressions each, looked at twenty times."""
    random, looks = np.random.default_rng(0), range(250, 5_001, 250)
    print(
        f"\n{count:,} experiments looked at 20 times: share decided\n\n| gain | confidence sequence | z-test at each look |\n|---|---|---|"
    )
    for gain in (0.0, 0.1, 0.2):
        sure = naive = 0
        for _ in range(count if gain == 0 else count // 4):
            new, old = random.binomial(20, 0.05 * (1 + gain), 5_000) / 20, random.binomial(20, 0.05, 5_000) / 20
            sure += any(difference(new[:n], old[:n]).decided for n in looks)
            naive += any(abs(new[:n].mean() - old[:n].mean()) > 1.96 * np.sqrt((new[:n].var() + old[:n].var()) / n) for n in looks)
        tries = count if gain == 0 else count // 4
        print(f"| {gain:+.0%} | {sure / tries:.3f} | {naive / tries:.3f} |")


if __name__ == "__main__":
    main()
