"""The picture model in eight bits: calibrated on the catalogue's own pictures, close on others, and a sentence where it can't be done."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

import media_models

from tastemaker.compression import media
from tastemaker.compression.step import NotApplicable, Tools
from tastemaker.features.item_image import ImagePreparation
from tastemaker.features.media_reader import MediaReader
from tastemaker.inference import runtimes
from tastemaker.inference.media import MediaSignal
from tastemaker.schema.items import Item
from tastemaker.schema.settings import CompressSettings
from tastemaker.schema.settings_file import load_settings, to_table
from toy_bundle import graph

COLOURS = ("red", "lime", "blue", "white", "yellow", "black")


def references(count: int, seed: int = 0) -> list[str]:
    random, found = np.random.default_rng(seed), []
    for place in range(count):
        size = (int(random.integers(30, 60)), int(random.integers(30, 60)))
        content = media_models.picture(COLOURS[place % 6], ("disc", "square")[place % 2], size)
        found.append(f"data:;base64,{base64.b64encode(content).decode()}")
    return found


SIDE, HIDDEN, WIDTH = 16, 128, 48
MODEL = f"""agraph (float[n,3,{SIDE},{SIDE}] image) => (float[n,{WIDTH}] vector) {{
    flat = Flatten (image)
    wide = MatMul (flat, one)
    bent = Tanh (wide)
    vector = MatMul (bent, two)
}}"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A payload with a picture model, wide enough for eight bits, and a catalogue of pictures."""
    made, random = tmp_path_factory.mktemp("bundle"), np.random.default_rng(0)
    folder = made / "image_encoder"
    folder.mkdir()
    weights = {"one": random.normal(size=(3 * SIDE * SIDE, HIDDEN)) / 20, "two": random.normal(size=(HIDDEN, WIDTH))}
    onnx.save(graph(MODEL, {name: table.astype(np.float32) for name, table in weights.items()}), folder / "model.onnx")
    settings = load_settings(None, [], {})
    MediaReader.of(ImagePreparation(SIDE, SIDE, 0), settings.image).save(folder, {"fingerprint": "toy", "width": WIDTH})
    np.save(folder / "whitening_mean.npy", np.zeros(WIDTH, np.float32))
    np.save(folder / "whitening_components.npy", np.eye(WIDTH, dtype=np.float32))
    items = pl.DataFrame({"item_id": [str(place) for place in range(40)], "image": [*references(38), "data:;base64,AAAA", None]})
    (made / "catalogue").mkdir()
    items.write_parquet(made / "catalogue" / "items.parquet")
    (made / "settings.json").write_bytes(msgspec.json.encode(to_table(settings)))
    return made


def tools(folder: Path, calibration: int = 32) -> Tools:
    return Tools(None, None, None, CompressSettings(calibration=calibration), folder)  # type: ignore[arg-type]


def test_pictures_look_the_same_in_eight_bits(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTEMAKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes, "SECONDS", 0.05)
    place = tmp_path / "place"
    place.mkdir()
    facts = media.int8("image")(bundle, place, tools(tmp_path))
    assert facts["int8 products"] == 2
    one, other = (folder / "image_encoder" for folder in (bundle, place))
    assert (other / "model.onnx").stat().st_size < 0.5 * (one / "model.onnx").stat().st_size
    settings = load_settings(None, [], {}).image
    new = [Item(item_id=str(place), image=text) for place, text in enumerate(references(12, seed=5))]
    wanted, found = (MediaSignal(folder, settings).vectors(new) for folder in (one, other))
    assert ((wanted * found).sum(axis=1) > 0.97).all()
    assert (other / "golden.npz").is_file()
    assert list((tmp_path / "cache").rglob("*.json")), "the runtime was chosen by the golden pictures"


def test_what_can_not_be_done_is_told(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotApplicable, match="no model that reads the items' sounds"):
        media.int8("audio")(bundle, tmp_path, tools(tmp_path))
    with pytest.raises(NotApplicable, match="only 8 pictures of the catalogue can be read now"):
        media.int8("image")(bundle, tmp_path, tools(tmp_path, 8))
    monkeypatch.setattr(media, "LEAST_ALIKE", 1.1)
    (tmp_path / "place").mkdir()
    with pytest.raises(NotApplicable, match=r"would keep a cosine of \d\.\d+ only"):
        media.int8("image")(bundle, tmp_path / "place", tools(tmp_path))
