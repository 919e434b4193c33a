"""Pictures and sounds become vectors: prepared as the model's own processor does, read once, exported; what is broken is left out and named."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
import torch
from media_models import RATE, picture, tone, write_audio_model, write_vision_model
from PIL import Image

from tastemaker.features.fetch import Unreadable
from tastemaker.features.item_audio import fitted
from tastemaker.features.item_image import ImagePreparation, pixels
from tastemaker.schema.errors import InputError, SettingsError
from tastemaker.schema.settings import AudioSettings, ImageSettings, Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.export import export_media
from tastemaker.training.media import MediaEncoder, encode_references, load_media_encoder, read_media

VISION, AUDIO = ("vit", "clip", "siglip", "dinov2", "convnext"), ("wav2vec2", "hubert", "clap", "clap_fused")
WIDTH = {"clip": 12, "clap": 12, "clap_fused": 12}


def load(folder: Path, kind: str) -> MediaEncoder:
    if kind in VISION:
        return load_media_encoder(ImageSettings(model=str(write_vision_model(folder / kind, kind))), "fp32")
    return load_media_encoder(AudioSettings(model=str(write_audio_model(folder / kind, kind)), seconds=1.0), "fp32")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> MediaEncoder:
    return load(tmp_path_factory.mktemp("vision"), "vit")


@pytest.mark.parametrize("kind", VISION)
def test_pictures_are_prepared_as_the_models_own_processor_does(tmp_path: Path, kind: str) -> None:
    from transformers import AutoImageProcessor

    encoder = load(tmp_path, kind)
    processor = AutoImageProcessor.from_pretrained(encoder.folder)
    for size in ((60, 44), (44, 61), (32, 32), (300, 100)):
        data = picture("red", size=size)
        wanted = processor(Image.open(io.BytesIO(data)), return_tensors="np")["pixel_values"][0]
        assert np.abs(encoder.reader.prepared(data) - wanted).max() < 1e-5
    vectors = encoder.encode([encoder.reader.prepared(picture(colour)) for colour in ("red", "blue")])
    assert vectors.shape == (2, WIDTH.get(kind, 16))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_the_vector_of_a_picture_is_that_of_the_models_own_picture_half(tmp_path: Path) -> None:
    from transformers import AutoModel

    for kind in ("clip", "siglip"):
        encoder = load(tmp_path, kind)
        given = encoder.reader.prepared(picture("green"))
        with torch.inference_mode():
            wanted = AutoModel.from_pretrained(encoder.folder).get_image_features(pixel_values=torch.from_numpy(given[None]))
        wanted = getattr(wanted, "pooler_output", wanted)
        assert np.allclose(encoder.encode([given])[0], wanted[0] / wanted[0].norm(), atol=1e-5)


@pytest.mark.parametrize("kind", AUDIO)
def test_sounds_are_prepared_as_the_models_own_extractor_does(tmp_path: Path, kind: str) -> None:
    from transformers import AutoFeatureExtractor, AutoModel

    encoder = load(tmp_path, kind)
    extractor = AutoFeatureExtractor.from_pretrained(encoder.folder)
    for seconds in (1.0, 0.3, 0.45):
        wave = np.frombuffer(tone(300, seconds)[44:], dtype=np.int16).astype(np.float32) / 32_768
        found = encoder.reader.prepared(tone(300, seconds))
        if kind.startswith("clap"):
            wanted = extractor(wave, sampling_rate=RATE, return_tensors="np")["input_features"][0][:1]
            assert np.abs(found - wanted).max() < 1e-3
        else:
            wanted = extractor(fitted(wave, RATE), sampling_rate=RATE, return_tensors="np")["input_values"][0]
            assert np.abs(found - wanted).max() < 1e-5
    if kind == "clap_fused":
        model = AutoModel.from_pretrained(encoder.folder)
        four, short = torch.from_numpy(found)[None].repeat(1, 4, 1, 1), torch.zeros(1, 1, dtype=torch.bool)
        with torch.inference_mode():
            wanted = model.get_audio_features(input_features=four, is_longer=short)
        wanted = getattr(wanted, "pooler_output", wanted)
        assert np.allclose(encoder.encode([found])[0], wanted[0] / wanted[0].norm(), atol=1e-4)


def test_sounds_of_other_rates_channels_and_numbers_sound_alike(tmp_path: Path) -> None:
    encoder = load(tmp_path, "wav2vec2")
    plain = encoder.reader.prepared(tone(300, 2.0))
    for other in (
        tone(300, 2.0, 44_100),
        tone(300, 2.0, kind=np.float32),
        tone(300, 2.0, kind=np.int32),
        tone(300, 2.0, kind=np.uint8, channels=2),
    ):
        assert np.corrcoef(plain[500:3_500], encoder.reader.prepared(other)[500:3_500])[0, 1] > 0.99
    for broken in (b"RIFF", tone(300)[:30], tone(300, 0.0), b"ID3 no sound", tone(300, 1.0, 100)):
        with pytest.raises(Unreadable):
            encoder.reader.prepared(broken)


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3"])
def test_compressed_sounds_are_heard_and_of_a_long_one_its_middle(tmp_path: Path, form: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    encoder = load(tmp_path, "wav2vec2")
    wave = np.concatenate(
        [np.zeros(8_000 * 60), 0.5 * np.sin(2 * np.pi * 300 * np.arange(8_000 * 3) / 8_000), np.zeros(8_000 * 60)]
    )
    out = io.BytesIO()
    soundfile.write(out, wave.astype(np.float32), 8_000, format=form)
    heard = encoder.reader.prepared(out.getvalue())
    power = np.abs(np.fft.rfft(heard)) ** 2
    assert power[295:306].sum() > 0.9 * power.sum()
    with pytest.raises(Unreadable):
        encoder.reader.prepared(out.getvalue()[:60])


def test_transparent_turned_moving_and_grey_pictures_are_seen_as_people_see_them() -> None:
    seen = lambda data: pixels(data, ImagePreparation(8, 8, 0, (0, 0, 0), (1, 1, 1)), 10_000)  # noqa: E731
    clear = io.BytesIO()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(clear, "PNG")
    assert (seen(clear.getvalue()) == 1).all(), "what is transparent is white"
    turned, upright = io.BytesIO(), Image.new("RGB", (20, 10), "red")
    upright.paste("blue", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    upright.save(turned, "PNG", exif=exif)
    assert seen(turned.getvalue())[2, 0].min() > 0.9, "its left is now its top"
    frames, moving = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime")], io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    assert seen(moving.getvalue())[0].min() > 0.9, "the first frame"
    assert seen(picture("red", mode="L", form="JPEG")).shape == (3, 8, 8)


def test_bombs_strips_and_broken_files_are_refused_before_they_cost_anything() -> None:
    import struct
    import zlib

    def png(width: int, height: int) -> bytes:
        chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1_000)) + chunk(b"IEND", b"")

    wanted = ImagePreparation(8, 8, 8)
    for data, why in (
        (png(8_000, 8_000), "more pixels"),
        (png(60_000, 60_000), "more pixels"),
        (png(40, 40), "no readable"),
        (picture("red")[:-40], "no readable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no readable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no readable"),
        (picture("red", size=(3_000, 3)), "strip"),
    ):
        with pytest.raises(Unreadable, match=why):
            pixels(data, wanted, 50_000_000)


def test_each_file_is_read_by_the_model_once_and_remembered(
    vit: MediaEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("copy.png", "red")):
        Path(name).write_bytes(picture(colour))
    Path("broken.png").write_bytes(picture("red")[:50])
    inline = base64.b64encode(picture("red")).decode()
    seen: list[int] = []
    encode = MediaEncoder.encode
    monkeypatch.setattr(MediaEncoder, "encode", lambda self, given: (seen.append(len(given)), encode(self, given))[1])
    references = ["a.png", None, "b.png", "copy.png", "broken.png", "absent.png", inline, ""]
    vectors, unread = encode_references(vit, references, tmp_path / "cache")
    assert seen == [2]
    assert sorted(unread) == [4, 5]
    assert np.array_equal(vectors[0], vectors[3])
    assert np.array_equal(vectors[0], vectors[6])
    assert not vectors[[1, 4, 5, 7]].any()
    Path("a.png").write_bytes(picture("lime"))
    again, _ = encode_references(vit, references, tmp_path / "cache")
    assert seen == [2, 1]
    assert np.array_equal(again[3], vectors[3])
    assert not np.array_equal(again[0], vectors[0]), "the same name with another picture"


def read(model: Path, settings: str, references: list[str | None]) -> object:
    catalogue = pl.DataFrame({"item_id": [f"i{row}" for row in range(len(references))], "image": references, "audio": references})
    return read_media(settings, catalogue, load_settings(None, [f"{settings}.model={model}", "train.precision=fp32"], {}))


def test_what_cannot_be_read_is_counted_and_named(vit: MediaEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = [
        base64.b64encode(picture(colour)).decode() for colour in ("red", "blue", "lime", "black", "gray", "orange", "teal", "navy")
    ]
    found = read(vit.folder, "image", [*good, "a.png", "b.png", "data:,x", None])
    assert found.metrics["image_items"] == 8
    assert found.metrics["image_unread"] == 3
    assert found.notes == [
        "3 of 11 pictures can't be read; their items count as having none: 2 no such file in image.folder (i8, i9); "
        "1 no readable JPEG, PNG, WEBP, GIF, BMP picture (UnidentifiedImageError) (i10)."
    ]
    assert found.signal.present.tolist() == [True] * 8 + [False] * 4
    assert np.allclose(np.linalg.norm(found.signal.vectors[:8], axis=1), 1, atol=1e-5)


def test_nothing_to_read_is_no_signal(vit: MediaEncoder, tmp_path: Path) -> None:
    assert read(vit.folder, "image", [None, ""]).notes == ["image.model is set, but no item has a picture (column image)."]
    alike = read(vit.folder, "image", [base64.b64encode(picture("red")).decode()] * 5)
    assert alike.signal is None
    assert "all alike" in alike.notes[0]
    nothing = read(vit.folder, "image", ["absent.png"])
    assert nothing.signal is None
    assert nothing.metrics == {"image_items": 0, "image_unread": 1}
    assert read_media("image", pl.DataFrame(), Settings()).notes == []


def test_models_of_another_kind_are_refused_with_advice(vit: MediaEncoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image.model 'nobody/x' is no folder here.*Give a local folder as image.model"):
        load_media_encoder(ImageSettings(model="nobody/x"))
    with pytest.raises(InputError, match="holds no Hugging Face model"):
        load_media_encoder(ImageSettings(model=str(tmp_path)))
    with pytest.raises(SettingsError, match="reads no waves"):
        load_media_encoder(AudioSettings(model=str(vit.folder)))
    with pytest.raises(InputError, match="gives no vector"):
        load_media_encoder(ImageSettings(model=str(write_audio_model(tmp_path / "wave", "wav2vec2"))))


@pytest.mark.long
@pytest.mark.parametrize("kind", [*VISION, *AUDIO])
def test_every_kind_is_exported(tmp_path: Path, kind: str) -> None:
    encoder = load(tmp_path, kind)
    image = kind in VISION
    contents = [picture(colour) if image else tone(hertz) for colour, hertz in (("red", 200), ("blue", 500), ("lime", 900))]
    references = [f"data:;base64,{base64.b64encode(content).decode()}" for content in contents]
    found = read(encoder.folder, "image" if image else "audio", references) if image else _heard(encoder, references)
    (tmp_path / "out").mkdir()
    assert export_media(found, tmp_path / "out") == encoder.reader.name
    graph = tmp_path / "out" / f"{encoder.reader.name}_encoder" / "model.onnx"
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    given = [found.encoder.reader.prepared(content) for content in contents]
    for count in (1, 3):
        made = session.run(None, {encoder.reader.name: np.stack(given[:count])})[0]
        assert np.abs(made - found.encoder.encode(given[:count])).max() < 1e-4


def _heard(encoder: MediaEncoder, references: list[str]) -> object:
    settings = load_settings(None, [f"audio.model={encoder.folder}", "audio.seconds=1", "train.precision=fp32"], {})
    return read_media("audio", pl.DataFrame({"item_id": ["a", "b", "c"], "audio": references}), settings)
