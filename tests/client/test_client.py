"""The client against a real service, and against connections that break."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from live_service import Service, serving
from tastemaker.client import AsyncClient, Client, ServiceError, Unreachable
from tastemaker.client.transport import ATTEMPTS, Budget
from tastemaker.schema.errors import InputError
from tastemaker.serving.auth import KeyFile
from toy_bundle import write_workspace


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str, str]]:
    folder = tmp_path_factory.mktemp("client") / "space"
    write_workspace(folder)
    file = KeyFile(folder / "keys.json")
    _, key = file.add("", ["admin"])
    _, slow = file.add("", ["read"], rate=0.2)
    with serving(folder) as service:
        yield service, key, slow


def test_the_whole_contract(space: tuple[Service, str, str]) -> None:
    service, key, _ = space
    with Client(service.url, key) as client:
        assert client.ready()
        answer = client.recommend("u0", k=3, explain=True, filter={"field": "categories", "any_of": ["boots"]})
        assert [item.item_id.split("-")[0] for item in answer.items] == ["boots"] * 3
        assert all(item.reason for item in answer.items)
        said = client.send([{"user_id": "c1", "item_id": "guitar-1", "request_id": answer.request_id}, {"user_id": "c1"}])
        assert (said.accepted, said.duplicates, [bad.index for bad in said.rejected]) == (1, 0, [1])
        client.put_item("a/b é", title="Heron acoustic guitar", categories=["guitar"])
        client.patch_item("a/b é", price=3)
        assert (client.item("a/b é")["title"], client.item("a/b é")["price"]) == ("Heron acoustic guitar", 3)
        assert client.search("heron", k=1, user_id="c1").items[0].item_id == "a/b é"
        assert client.similar("a/b é", k=2).items[0].item_id.startswith("guitar")
        assert client.rank(["boots-1", "guitar-2"], "c1").items[0].item_id == "guitar-2"
        assert client.explain("c1", "guitar-2")["item_id"] == "guitar-2"
        client.delete_item("a/b é")
        with pytest.raises(ServiceError, match="no item") as gone:
            client.item("a/b é")
        assert gone.value.status == 404
        assert gone.value.request_id
        client.put_user("c1", city="Graz")
        assert client.user("c1")["extra"] == {"city": "Graz"}
        client.delete_user("c1")
        assert client.put_items([{"item_id": "x1", "title": "x"}]) == 1
        assert client.put_users([{"user_id": "x"}]) == 1
        assert client.put_edges([{"head": "user:x", "relation": "friend", "tail": "user:c1"}]) == 1


def test_refusals_are_told_and_not_repeated(space: tuple[Service, str, str]) -> None:
    service, key, _ = space
    with pytest.raises(ServiceError, match="API key") as refused:
        Client(service.url, "tm_00000000_x").recommend("u0")
    assert refused.value.status == 401
    with pytest.raises(ServiceError, match="colour"):
        Client(service.url, key).recommend("u0", colour=1)
    with pytest.raises(Unreachable):
        Client("http://127.0.0.1:9", timeout=0.5).ready()
    with pytest.raises(InputError, match="no address"):
        Client("127.0.0.1:8000")


def test_many_at_a_time(space: tuple[Service, str, str]) -> None:
    service, key, _ = space

    async def ask() -> list[str]:
        async with AsyncClient(service.url, key, connections=8) as client:
            answers = await asyncio.gather(*(client.recommend(f"u{number % 3}", k=1) for number in range(40)))
            said = await client.send({"user_id": "async", "item_id": f"boots-{number}"} for number in range(5))
            assert said.accepted == 5
            assert (await client.user("async"))["history"][0]["item_id"] == "boots-4"
            return [answer.items[0].item_id for answer in answers]

    found = asyncio.run(ask())
    assert [item.split("-")[0] for item in found[:3]] == ["boots", "coffee", "guitar"]
    with Client(service.url, key) as client, ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(lambda _: client.ready(), range(40)))) == 40
        assert 1 <= len(client._transport._idle) <= 8


@contextmanager
def between(port: int, wrong: Callable[[int], bytes | None]) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy of whole requests; `wrong(n)` is what the client gets for the n-th one instead of the answer: b"" a closed connection."""
    seen: list[bytes] = []
    door = socket.create_server(("127.0.0.1", 0))

    def one(client: socket.socket) -> None:
        with client, client.makefile("rb") as lines:
            while head := lines.readline():
                headers = {}
                while (line := lines.readline().strip()) != b"":
                    name, _, value = line.partition(b":")
                    headers[name.decode()] = value.strip().decode()
                method, path, _ = head.decode().split()
                body = lines.read(int(headers.get("content-length", headers.get("Content-Length", 0))))
                up = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                up.request(method, path, body, {name: value for name, value in headers.items() if name.lower() != "content-length"})
                answer = up.getresponse()
                text = answer.read()
                seen.append(body)
                said = wrong(len(seen))
                if said == b"":
                    return
                client.sendall(said or b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%s" % (answer.status, len(text), text))

    def accept() -> None:
        while True:
            try:
                client, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{door.getsockname()[1]}", seen
    door.close()


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_stored_twice(space: tuple[Service, str, str]) -> None:
    service, key, _ = space
    with between(service.port, lambda number: b"" if number in (1, 2) else None) as (url, seen), Client(url, key) as client:
        said = client.send([{"user_id": "lost", "item_id": "boots-1"}, {"user_id": "lost", "item_id": "boots-2"}])
        assert (said.accepted, said.duplicates) == (0, 2)
        assert len(seen) == 3
        assert len(set(seen)) == 1
        assert json.loads(seen[0])["events"][0]["event_id"]
    assert len(Client(service.url, key).user("lost")["history"]) == 2
    with between(service.port, lambda number: b"" if number == 1 else None) as (url, seen), Client(url, key) as client:
        Client(service.url, key).put_item("once", title="once")
        client.delete_item("once")
        assert len(seen) == 2


def test_repeats_end_with_the_budget_the_attempts_or_the_time(space: tuple[Service, str, str]) -> None:
    service, key, slow = space
    busy = b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"
    with between(service.port, lambda number: busy) as (url, seen):
        with pytest.raises(ServiceError) as refused, Client(url, key) as client:
            client.recommend("u0")
        assert (refused.value.status, len(seen)) == (503, ATTEMPTS)
        seen.clear()
        with Client(url, key, budget=Budget(share=0.1, least=2)) as client:
            for _ in range(20):
                with pytest.raises(ServiceError):
                    client.recommend("u0")
        assert 22 <= len(seen) <= 24, "two repeats in hand and a tenth of the calls"
    later = b"HTTP/1.1 429 x\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
    with between(service.port, lambda number: later if number == 1 else None) as (url, seen), Client(url, key) as client:
        began = time.monotonic()
        assert client.recommend("u0").items
        assert time.monotonic() - began >= 1
    with between(service.port, lambda number: later) as (url, seen), Client(url, key, timeout=0.5) as client:
        began = time.monotonic()
        with pytest.raises(ServiceError):
            client.recommend("u0")
        assert time.monotonic() - began < 1
        assert len(seen) == 1
    with pytest.raises(ServiceError, match="requests per second"), Client(service.url, slow, timeout=0.5) as client:
        _ = [client.recommend("u0") for _ in range(8)]


def test_a_kept_connection_that_was_closed_is_replaced(space: tuple[Service, str, str]) -> None:
    service, key, _ = space
    with Client(service.url, key, budget=Budget(share=0, least=0)) as client:
        client.ready()
        client._transport._idle[0].sock.shutdown(socket.SHUT_RDWR)
        assert client.ready()


def test_a_service_that_does_not_answer_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer"):
            Client(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout=0.4).ready()
        assert time.monotonic() - began < 3
