"""Servers that all tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from live_kafka import Broker, kafka_broker
from live_redis import RedisServer, redis_server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture(scope="module")
def kafka() -> Iterator[Broker]:
    with kafka_broker() as found:
        yield found
