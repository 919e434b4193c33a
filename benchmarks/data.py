"""From a raw log to training data, beside pandas doing the same work: read, clean, drop repeats, sort, split, pack histories, features.

    BENCH_PYTHON=path/to/python python benchmarks/data.py [--rows 1e6 1e7 1e8] [--work DIR] [--format parquet] [--pandas-rows 1e7] [--ray]
                                                    [--windows]

Makes a synthetic log (Zipf items whose popularity drifts, visits in bursts, ids as strings, 1 % malformed rows, 1 % repeats, 2 % late arrivals; a
seed; written in chunks), then runs each contestant in a process of its own, one after the other, and prints rows a second, the ratio to pandas, the
ratio to the limit of a million rows a second, and peak memory as a share of 4 GiB; CPU seconds (interpreter's start included) tell what a shared machine
hides. Both make the features that `stage` makes by default, as of strictly before each event; with `--windows` also the events of the item and of the
user in the last 1, 7 and 30 days (pandas: `groupby(…).rolling("7D", closed="left")`). Counts and sums of features must agree, else it fails.
BENCH_PYTHON names an interpreter with pandas and pyarrow (the extra `bench`; default: this one). RECTOOLS_PYTHON and RECBOLE_PYTHON, where given, name
interpreters whose library loads the log its own way: no cleaning, no features, so that time is only a bound. The work folder holds about 250 bytes a row.
`--ray` runs the stage a second time on two Ray workers (RAY_PYTHON names an interpreter with the extra `ray`; default: this one), prints both times, and
fails unless every byte is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

LIMIT_ROWS, LIMIT_GIB = 1e6, 4.0
FILE_ROWS, CHUNK_ROWS = 10_000_000, 1_000_000
WINDOWS = [(key, days) for key in ("item", "user") for days in (1, 7, 30)]
BEGIN, FUTURE, HALF_LIFE, SHARE = 1_600_000_000, 4_000_000_000, 7 * 86_400.0, 0.1

PEER = """
import json, resource, sys, time
from pathlib import Path
def report(begun, **found):
    print(json.dumps({"seconds": time.perf_counter() - begun, "cpu": time.process_time(), "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, **found}))
paths, half_life, share, work = sorted(Path(sys.argv[1]).glob("events-*")), float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
windows = json.loads(sys.argv[5])
"""
PANDAS = """
import numpy as np, pandas as pd
begun = time.perf_counter()
read = pd.read_parquet if paths[0].suffix == ".parquet" else pd.read_csv
log = pd.concat([read(path) for path in paths], ignore_index=True)
log = log[log.user_id.notna() & log.item_id.notna() & np.isfinite(log.value) & (log.timestamp < time.time() + 86400)]
log = log.drop_duplicates()
log = log.sort_values("timestamp", kind="stable", ignore_index=True)
cut = log.timestamp.quantile(1 - share, interpolation="lower")
user, users = pd.factorize(log.user_id)
item, items = pd.factorize(log.item_id)
kind, kinds = pd.factorize(log.event_type)
log = pd.DataFrame({"user": user, "item": item, "kind": kind, "time": log.timestamp, "value": log.value})
log["pair"] = log.user * len(items) + log["item"]
age = (log.time - log.time.iloc[0]) / half_life
weight = np.exp2(age)

def earlier(key, **columns):
    # as of the first event at the row's time: what happened before it, ties left out
    return pd.DataFrame(columns).groupby([log[key], log.time], sort=False).transform("first")

by_item, by_user, by_pair = (log.groupby(key, sort=False) for key in ("item", "user", "pair"))
of_item = earlier("item", events=by_item.cumcount(), faded=weight.groupby(log["item"], sort=False).cumsum() - weight)
of_user = earlier("user", events=by_user.cumcount(), last=by_user.time.shift())
again = by_pair.cumcount()
of_pair = earlier("pair", times=again, last=by_pair.time.shift(), total=by_pair.value.cumsum() - log.value)
days = lambda then: np.log1p((log.time - then).clip(0, 1e10).fillna(1e10) / 86400)
first = by_user.time.transform("first")
features = pd.DataFrame({
    "item_events": np.log1p(of_item.events),
    "item_faded": np.log1p(of_item.faded / weight),
    "user_events": np.log1p(of_user.events),
    "user_recency.last": days(of_user["last"]),
    "user_recency.first": days(first),
    "user_item.times": np.log1p(of_pair.times),
    "user_item.recency": days(of_pair["last"]),
    "user_item.value": np.sign(of_pair.total) * np.log1p(of_pair.total.abs()),
})
when = pd.to_datetime(log.time, unit="s")
counted = {"item": {}, "user": {}}
for key, days in windows:
    rolled = pd.DataFrame({"key": log[key], "when": when, "one": 1.0}).groupby("key").rolling(f"{days}D", on="when", closed="left")["one"].count()
    column = counted[key][f"{key}_{days}"] = np.empty(len(log))
    column[np.argsort(log[key].to_numpy(), kind="stable")] = rolled.fillna(0).to_numpy()
for key, columns in counted.items():
    if columns:
        features = features.join(np.log1p(earlier(key, **columns)))
features = features.astype("float32")
late = log.time > cut
early = log[~late].user.unique()
target = late & (again == 0) & log.user.isin(early)
order = np.argsort(user, kind="stable")
np.save(work / "items.npy", item[order].astype("int32"))
np.save(work / "times.npy", log.time.to_numpy()[order])
np.save(work / "types.npy", kind[order].astype("int16"))
np.save(work / "offsets.npy", np.concatenate([[0], np.cumsum(np.bincount(user))]))
names = list(features.columns)
features["part"] = np.where(target, 1, np.where(late, 2, 0)).astype("int8")
features.iloc[order].to_parquet(work / "features.parquet")
report(begun, accepted=len(log), users=len(users), items=len(items), targets=int(target.sum()),
       sums=[float(features[name].astype("float64").sum()) for name in names])
"""
RECTOOLS = """
import pandas as pd
from rectools.dataset import Dataset
begun = time.perf_counter()
read = pd.read_parquet if paths[0].suffix == ".parquet" else pd.read_csv
log = pd.concat([read(path) for path in paths], ignore_index=True).dropna(subset=["user_id", "item_id", "value"])
log["datetime"] = pd.to_datetime(log.pop("timestamp"), unit="s")
Dataset.construct(log.rename(columns={"value": "weight"})[["user_id", "item_id", "weight", "datetime"]])
report(begun)
"""
RECBOLE = """
import pandas as pd
from recbole.config import Config
from recbole.data import create_dataset
read = pd.read_parquet if paths[0].suffix == ".parquet" else pd.read_csv
log = pd.concat([read(path) for path in paths], ignore_index=True).dropna(subset=["user_id", "item_id", "value"])
(work / "log").mkdir()
log = log[["user_id", "item_id", "timestamp"]].set_axis(["user_id:token", "item_id:token", "timestamp:float"], axis=1)
log.to_csv(work / "log" / "log.inter", sep="\\t", index=False)
begun = time.perf_counter()
create_dataset(Config(model="SASRec", dataset="log", config_dict={"data_path": str(work), "train_neg_sample_args": None, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}))
report(begun)
"""
OURS = """
from tastemaker.data.allocators import keep_freed
keep_freed()
import polars as pl
from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.data.stage import FEATURES, feature_table, histories, stage
from tastemaker.features.feature_set import FeatureSet
from tastemaker.journal.append import Journal
from tastemaker.schema.settings import DataSettings
begun = time.perf_counter()
journal, quarantine = Journal.open(work / "journal"), Quarantine(work)
got = Intake(journal, DataSettings(), quarantine).events(paths)
quarantine.close()
imported = time.perf_counter() - begun
declared = (*FEATURES, *(f"{key}_events(window={days}d)" for key, days in windows))
made = stage(journal.sealed(work), work / "stage", share=share, features=FeatureSet.declared(declared))
whole = time.perf_counter() - begun
names = FeatureSet.declared(declared).names
features = feature_table(work / "stage")
sums = features.select(pl.col(names).cast(pl.Float64).sum()).collect(engine="streaming").row(0)
targets = features.filter(pl.col("part") == 1).select(pl.len()).collect(engine="streaming").item()
packed = histories(work / "stage")
refused = sum(got.quarantined.values())
assert got.read == got.accepted + got.duplicates + refused, got
begun = time.perf_counter() - whole
report(begun, accepted=got.accepted, duplicates=got.duplicates, refused=refused, users=packed.n_users, items=packed.n_items,
       targets=targets, sums=sums, imported=imported)
"""
RAY = """
from tastemaker.data.allocators import keep_freed
keep_freed()
import hashlib
from tastemaker.data import _ray
from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.data.stage import stage
from tastemaker.journal.append import Journal
from tastemaker.schema.settings import DataSettings
journal, quarantine = Journal.open(work / "journal"), Quarantine(work)
Intake(journal, DataSettings(), quarantine).events(paths)
_ray.connect(cpus=2)
_ray.each(abs, [1, 2])
took, bytes_of = [], []
for name, each in (("threads", None), ("ray", _ray.each)):
    begun = time.perf_counter()
    stage(journal.sealed(work), work / name, share=share, each=each)
    took.append(time.perf_counter() - begun)
    files = sorted(path for path in (work / name).rglob("*") if path.is_file())
    bytes_of.append({str(path.relative_to(work / name)): hashlib.file_digest(path.open("rb"), "sha256").hexdigest() for path in files})
assert len(bytes_of[0]) > 8 and bytes_of[0] == bytes_of[1], bytes_of
report(time.perf_counter(), threads=took[0], ray=took[1], files=len(bytes_of[0]))
"""


def write_log(folder: Path, rows: int, kind: str, seed: int = 0) -> None:
    """The synthetic log as files of at most `FILE_ROWS` rows."""
    rng = np.random.default_rng(seed)
    users, items = max(rows // 20, 10), int(min(max(rows // 50, 1_000), 200_000))
    names = pl.Series([f"i{number}" for number in rng.permutation(items)])
    old: pl.DataFrame | None = None
    parts: list[Path] = []
    for begin in range(0, rows, CHUNK_ROWS):
        table = log_chunk(rng, begin, min(CHUNK_ROWS, rows - begin), rows, users, names)
        if old is not None and table.height > 100:
            table = pl.concat([table.head(table.height - table.height // 100), old.sample(table.height // 100, seed=begin)])
        old = table
        place = begin // FILE_ROWS
        parts.append(folder / f"part-{place:04d}-{len(parts):04d}.parquet")
        table.write_parquet(parts[-1])
    for place in range((rows - 1) // FILE_ROWS + 1):
        table_ = pl.scan_parquet(folder / f"part-{place:04d}-*.parquet")
        path = folder / f"events-{place:04d}.{kind}"
        table_.sink_parquet(path) if kind == "parquet" else table_.sink_csv(path)
    for part in parts:
        part.unlink()


def log_chunk(rng: np.random.Generator, begin: int, size: int, rows: int, users: int, names: pl.Series) -> pl.DataFrame:
    """Some rows of the log: a year in all, whatever its length."""
    visits = np.repeat(rng.integers(0, users, size // 4 + 1), 4)[:size]  # bursts: four events a visit
    moment = (begin + np.arange(size)) / rows
    rank = np.minimum(rng.zipf(1.2, size), names.len()) - 1
    item = (rank + (moment * 50).astype(np.int64) * 7) % names.len()  # drift: every week other items are the popular ones
    times = BEGIN + (moment * 365 * 86_400).astype(np.int64)
    late = rng.random(size) < 0.02
    times[late] -= rng.integers(0, 86_400, int(late.sum()))
    value = rng.integers(1, 100, size).astype(np.float64)
    wrong = rng.random(size)
    value[wrong < 0.0025] = np.nan
    times[(wrong >= 0.0025) & (wrong < 0.005)] = FUTURE
    kinds = pl.Series(rng.choice(np.array(["view", "cart", "purchase"]), size, p=[0.9, 0.07, 0.03]))
    table = pl.DataFrame(
        {"user_id": visits, "item_id": names.gather(item), "timestamp": times, "event_type": kinds, "value": value, "wrong": wrong}
    )
    missing = pl.col("wrong")
    return table.select(
        pl.when(~missing.is_between(0.005, 0.0075)).then(pl.format("u{}", "user_id")).alias("user_id"),
        pl.when(~missing.is_between(0.0075, 0.01)).then("item_id").alias("item_id"),
        "timestamp", "event_type", "value",
    )  # fmt: skip


def run(python: str, program: str, log: Path, work: Path, windows: bool = False) -> dict[str, object] | None:
    """What a contestant's process reports, or None where its interpreter lacks the library."""
    work.mkdir()
    done = subprocess.run(
        [python, "-c", PEER + program, str(log), str(HALF_LIFE), str(SHARE), str(work), json.dumps(WINDOWS if windows else [])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    shutil.rmtree(work)
    if done.returncode:
        if "ModuleNotFoundError" in done.stderr:
            return None
        raise SystemExit(f"failed:\n{done.stderr[-3000:]}")
    found: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def agree(ours: dict[str, object], theirs: dict[str, object]) -> None:
    """Both did the same work.

    Raises:
        SystemExit: a count or a sum of features differs.
    """
    same = all(ours[name] == theirs[name] for name in ("accepted", "users", "items", "targets"))
    if not same or not np.allclose(ours["sums"], theirs["sums"], rtol=1e-4):  # type: ignore[arg-type]
        raise SystemExit(f"the results differ:\nours   {ours}\npandas {theirs}")


def main() -> None:
    """Prints a line a size."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--rows", type=float, nargs="+", default=[1e6])
    reader.add_argument("--pandas-rows", type=float, default=1e7, help="pandas is left out beyond: it needs about 300 bytes a row")
    reader.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    reader.add_argument("--work", type=Path, default=None, help="folder for temporary files")
    reader.add_argument("--ray", action="store_true", help="the stage on two Ray workers too")
    reader.add_argument("--windows", action="store_true", help="features of windows too")
    asked = reader.parse_args()
    pandas = os.environ.get("BENCH_PYTHON", sys.executable)
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {asked.format}, {8 + len(WINDOWS) * asked.windows} features; limit {LIMIT_ROWS:,.0f} rows/s, {LIMIT_GIB:.0f} GiB"
    )
    print(
        "| rows | s | of it import | CPU s | rows/s | of the limit | GiB | of the limit | pandas s | CPU s | GiB | times pandas | by CPU |\n|"
        + "---:|" * 13
    )
    for rows in (int(rows) for rows in asked.rows):
        with tempfile.TemporaryDirectory(dir=asked.work) as name:
            folder = Path(name)
            (folder / "log").mkdir()
            write_log(folder / "log", rows, asked.format)
            ours = run(sys.executable, OURS, folder / "log", folder / "ours", asked.windows)
            assert ours is not None
            theirs = run(pandas, PANDAS, folder / "log", folder / "pandas", asked.windows) if rows <= asked.pandas_rows else None
            if theirs is not None:
                agree(ours, theirs)
            line(rows, ours, theirs)
            if asked.ray:
                staged = run(os.environ.get("RAY_PYTHON", sys.executable), RAY, folder / "log", folder / "ray")
                if staged is None:
                    raise SystemExit("--ray: Ray is not installed in RAY_PYTHON. Try: pip install 'tastemaker[ray]'")
                print(
                    f"  stage alone: threads {staged['threads']:.1f} s, two Ray workers {staged['ray']:.1f} s; {staged['files']} files, the same bytes"
                )
            for peer, program in (("RECTOOLS", RECTOOLS), ("RECBOLE", RECBOLE)):
                python = os.environ.get(f"{peer}_PYTHON")
                loaded = run(python, program, folder / "log", folder / peer) if python else None
                if loaded is None:
                    print(f"  {peer}: skipped, {peer}_PYTHON names no interpreter that has it")
                else:
                    print(f"  {peer} only loads: {loaded['seconds']:.1f} s, {loaded['gib']:.2f} GiB")


def line(rows: int, ours: dict[str, object], theirs: dict[str, object] | None) -> None:
    """A line of the table."""
    seconds, gib = float(ours["seconds"]), float(ours["gib"])  # type: ignore[arg-type]
    cells = [
        f"{rows:,}",
        f"{seconds:.1f}",
        f"{ours['imported']:.1f}",
        f"{ours['cpu']:.1f}",
        f"{rows / seconds:,.0f}",
        f"{rows / seconds / LIMIT_ROWS:.2f}",
    ]
    cells += [f"{gib:.2f}", f"{gib / LIMIT_GIB:.2f}"]
    if theirs is None:
        cells += ["skipped"] * 5
    else:
        other = float(theirs["seconds"])  # type: ignore[arg-type]
        cells += [f"{other:.1f}", f"{theirs['cpu']:.1f}", f"{theirs['gib']:.2f}", f"{other / seconds:.1f}"]
        cells += [f"{float(theirs['cpu']) / float(ours['cpu']):.1f}"]  # type: ignore[arg-type]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
