"""Texts that another process reads, and what is counted while requests wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tastemaker.inference.engine import TextEncoder
from tastemaker.schema.protocols import FloatArray
from tastemaker.serving.far_encoder import FarEncoder
from tastemaker.serving.ongoing import Ongoing
from toy_bundle import WIDTH, write_text_encoder

TEXTS = ["waterproof boots", "", "espresso machine"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_text_encoder(tmp_path / "text_encoder")
    return tmp_path / "text_encoder"


def far(folder: Path, ask: Callable[[str, int, list[str]], Awaitable[FloatArray]], loop: asyncio.AbstractEventLoop) -> FarEncoder:
    return FarEncoder(folder, WIDTH, 1, ask, 0.2, loop)


def opened(encoder: FarEncoder) -> bool:
    return "_session" in vars(encoder)


def test_texts_are_read_elsewhere_and_the_model_stays_closed_here(folder: Path) -> None:
    near = TextEncoder(folder, WIDTH)

    async def ask(place: str, width: int, texts: list[str]) -> FloatArray:
        assert (place, width) == (str(folder), WIDTH)
        return near.encode(texts)

    async def both() -> tuple[FarEncoder, FloatArray, FloatArray]:
        encoder = far(folder, ask, asyncio.get_running_loop())
        return encoder, await encoder.read(TEXTS), await asyncio.to_thread(encoder.encode, TEXTS)

    encoder, read, encoded = asyncio.run(both())
    assert np.array_equal(read, near.encode(TEXTS))
    assert np.array_equal(encoded, read)
    assert not opened(encoder)
    assert encoder.version == near.version


@pytest.mark.parametrize("fault", ["late", "gone"])
def test_a_reader_that_is_late_or_gone_costs_no_answer(folder: Path, fault: str) -> None:
    waited_for = []

    async def ask(place: str, width: int, texts: list[str]) -> FloatArray:
        if fault == "gone":
            raise ConnectionError("the actor died")
        await asyncio.sleep(5)
        waited_for.append(texts)
        raise AssertionError

    async def read() -> FloatArray:
        return await far(folder, ask, asyncio.get_running_loop()).read(TEXTS)

    assert np.array_equal(asyncio.run(read()), TextEncoder(folder, WIDTH).encode(TEXTS))
    assert waited_for == []


def test_whoever_may_not_wait_reads_here(folder: Path) -> None:
    asked = []

    async def ask(place: str, width: int, texts: list[str]) -> FloatArray:
        asked.append(texts)
        raise AssertionError

    async def encode() -> FloatArray:
        return far(folder, ask, asyncio.get_running_loop()).encode(TEXTS)

    assert np.array_equal(asyncio.run(encode()), TextEncoder(folder, WIDTH).encode(TEXTS))
    assert asked == []


def test_requests_that_wait_are_counted_over_time() -> None:
    now = 0.0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal now
        now += 2.0  # busy, and nobody else gets the thread

    async def four() -> float:
        counted = Ongoing(app, lambda: now)
        await asyncio.gather(*(counted({"type": "http"}, None, None) for _ in range(4)))  # type: ignore[arg-type]
        return counted.mean()

    assert asyncio.run(four()) == (4 + 3 + 2 + 1) / 4


def test_the_count_begins_anew_with_each_look_and_survives_faults() -> None:
    now = 0.0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal now
        now += 1.0
        raise RuntimeError

    async def look() -> list[float]:
        nonlocal now
        counted = Ongoing(app, lambda: now)
        with pytest.raises(RuntimeError):
            await counted({"type": "http"}, None, None)  # type: ignore[arg-type]
        first = counted.mean()
        now += 1.0
        return [first, counted.mean()]

    assert asyncio.run(look()) == [1.0, 0.0]


def test_the_plain_loop_is_not_asked_before_it_runs(folder: Path) -> None:
    loop = asyncio.new_event_loop()

    async def ask(place: str, width: int, texts: list[str]) -> FloatArray:
        raise AssertionError

    found: list[FloatArray] = []
    thread = threading.Thread(target=lambda: found.append(far(folder, ask, loop).encode(TEXTS)))
    thread.start()
    thread.join(20)
    loop.close()
    assert np.array_equal(found[0], TextEncoder(folder, WIDTH).encode(TEXTS))
