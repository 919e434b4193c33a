"""A new item that only a picture tells about reaches the right people at once, without torch; what can't be read does no harm."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from media_models import picture, write_vision_model

from live_service import Service, serving
from tastemaker.bundle.registry import Registry
from tastemaker.bundle.write import write_bundle
from tastemaker.data.dataset import Dataset
from tastemaker.inference.brain import Brain
from tastemaker.journal.append import Journal
from tastemaker.schema.items import Item
from tastemaker.schema.settings_file import load_settings
from tastemaker.serving.wire import open_live
from tastemaker.training.fit import TrainedBrain, fit

COLOURS = ("red", "lime", "blue")


class Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(picture("blue", size=(52, 50)))

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    service = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{service.server_address[1]}/new.png"
    service.shutdown()
    service.server_close()


def data(folder: Path) -> Dataset:
    """60 things without a word, each of one of three colours; people like one colour. Every fifth has no picture."""
    random = np.random.default_rng(0)
    for number in range(60):
        size = (int(random.integers(40, 70)), int(random.integers(40, 70)))
        (folder / f"{number}.png").write_bytes(picture(COLOURS[number % 3], ("disc", "square")[number % 2], size))
    items = pl.DataFrame(
        {
            "item_id": [f"{COLOURS[n % 3]}-{n}" for n in range(60)],
            "image_path": [None if n % 5 == 4 else f"{n}.png" for n in range(60)],
        }
    )
    rows = []
    for user in range(90):
        liked = random.permutation([f"{COLOURS[n % 3]}-{n}" for n in range(60) if n % 3 == user % 3])[:9]
        rows += [(f"u{user}", item, 1_600_000_000.0 + 100 * user + at) for at, item in enumerate(liked)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return Dataset.read(events=events, items=items)


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> TrainedBrain:
    folder = tmp_path_factory.mktemp("pictures")
    model = write_vision_model(tmp_path_factory.mktemp("model") / "convnext", "convnext")
    lines = [
        f"image.model={model}",
        f"image.folder={folder}",
        "image.fetch=true",
        "image.fetch_from=127.0.0.1/32",
        "sequence.dim=24",
    ]
    lines += ["sequence.min_steps=150", "sequence.dropout=0.1", "train.threads=1", "train.precision=fp32"]
    return fit(data(folder), load_settings(None, lines, {}), cache_dir=folder / "cache", rows=False)


@pytest.fixture(scope="module")
def workspace(brain: TrainedBrain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    Journal.open(folder / "journal").close()
    (folder / "tastemaker.toml").touch()
    Registry(folder / "bundles").add(write_bundle(folder / "bundles", brain.export))
    return folder


def inline(colour: str) -> str:
    return "data:image/png;base64," + base64.b64encode(picture(colour, size=(55, 48))).decode()


def test_the_bundles_reader_gives_the_vectors_of_training(brain: TrainedBrain, workspace: Path) -> None:
    live = open_live(workspace / "bundles", None)
    rows = brain.catalogue.filter(pl.col("image").is_not_null())
    places = [live.brain.index_of[item] for item in rows["item_id"]]
    items = [Item(item_id=row["item_id"], image=row["image"]) for row in rows.iter_rows(named=True)]
    contents = live.brain.contents(items)
    assert live.brain.item.widths == dict(brain.model.items.widths)
    assert np.abs(contents - live.channels.text.rows(np.array(places))).max() < 1e-4
    assert not live.brain.contents(items, quick=True).any()
    assert brain.media[0].encoder is not None
    assert brain.media[0].encoder.fingerprint in live.reader.version, (
        "a content of another vision model is not taken for one of this"
    )
    assert brain.metrics["image_items"] == len(items) == 48
    one = live.brain.new_item(contents[0])
    assert np.isclose(np.linalg.norm(one), 1, atol=1e-5)


def test_a_new_item_is_seen_live_and_broken_ones_do_no_harm(workspace: Path, shop: str) -> None:
    with serving(workspace) as service:
        for name, image in (("new-red", inline("red")), ("new-lime", inline("lime")), ("new-blue", shop)):
            service.ask("PUT", f"/v1/items/{name}", {"image": image})
        for colour in COLOURS:
            near = [item["item_id"] for item in service.ask("GET", f"/v1/items/new-{colour}/similar?k=12")["items"]]
            assert sum(one.startswith((colour, "new")) for one in near) >= 9, (colour, near)
        assert_liked(service)
        for name, image in (
            ("bad-1", "data:,x"),
            ("bad-2", "/etc/passwd"),
            ("bad-3", "http://127.0.0.2:1/a.png"),
            ("bad-4", "no.png"),
        ):
            service.ask("PUT", f"/v1/items/{name}", {"image": image, "audio": "x.wav"})
            assert service.ask("GET", f"/v1/items/{name}")["image"] == image
        service.ask("PATCH", "/v1/items/new-red", {"image": inline("blue")})
        near = [item["item_id"] for item in service.ask("GET", "/v1/items/new-red/similar?k=12")["items"]]
        assert sum(one.startswith(("blue", "new-blue")) for one in near) >= 9
        log = service.log.read_text()
    for name, why in (
        ("bad-1", "no readable"),
        ("bad-2", "outside of image.folder"),
        ("bad-3", "private network"),
        ("bad-4", "no such file"),
    ):
        assert any(f"{name!r} can't be read" in line and why in line for line in log.splitlines()), (name, log)
    assert "Traceback" not in log


def assert_liked(service: Service) -> None:
    """Each new item stands higher with those who like its colour than with the others."""
    for user, colour in enumerate(COLOURS):
        ranked = [
            item["item_id"]
            for item in service.ask("POST", "/v1/rank", {"user_id": f"u{user}", "items": [f"new-{c}" for c in COLOURS]})["items"]
        ]
        assert ranked[0] == f"new-{colour}", (user, ranked)


def test_items_that_an_import_brings_wait_for_their_picture_and_known_ones_keep_theirs(workspace: Path) -> None:
    """Answers never wait for a picture: without the content that the service stores, a journal's change is read by its text alone."""
    journal = Journal.open(workspace / "journal")
    live = open_live(workspace / "bundles", journal)
    known, width = live.brain.index_of["red-0"], live.brain.text.width
    before = live.channels.content(known).copy()
    journal.put_items(
        [Item(item_id="red-0", image="elsewhere.png", price=3.0), Item(item_id="imported", image=inline("lime") + " " * 2_048)]
    )
    live.poll()
    assert np.array_equal(live.channels.content(known)[width:], before[width:])
    assert not live.channels.content(live.state.index_of["imported"]).any()
    assert live.state.rows[live.state.index_of["imported"]]["image"] == "data:,"
    restarted = open_live(workspace / "bundles", journal)
    place = restarted.state.index_of.get("new-lime")
    assert place is None or restarted.channels.content(place).any(), "what the service read is stored"
    journal.close()


def test_a_bundle_without_its_signals_is_read_as_text_only(tmp_path: Path) -> None:
    """Bundles of before: no list of signals, and the tower's input bears another name."""
    from toy_bundle import WIDTH, histories, items, write_payload

    catalogue = items()
    write_payload(tmp_path, catalogue, histories(catalogue))
    old = Brain(tmp_path)
    assert old.item.widths == {"text": WIDTH}
    assert old.contents([catalogue[0]]).shape == (1, WIDTH)
    assert old.content_version == old.text.version
    assert json.loads((tmp_path / "settings.json").read_text())["image"]["model"] == ""
