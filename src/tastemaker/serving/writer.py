"""One thread that writes, so that answering never waits for the disk. Events that arrive while it is busy share the next flush."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tastemaker.journal.append import Journal
from tastemaker.schema.errors import TastemakerError
from tastemaker.schema.events import AppendResult, Event
from tastemaker.schema.items import Item

Contents = Callable[[Sequence[Item]], tuple[list[bytes], str]]


class Crowded(TastemakerError):
    """The disk does not keep up; `wait` is in seconds."""

    wait = 1

    def __init__(self, queued: int) -> None:
        super().__init__(f"{queued:,} events wait for the disk; these were not taken. Send them again in {self.wait} s.")


class Writer:
    """Writes to the journal through a connection of its own.

    Args:
        journal: used by the writing thread alone: what it has begun is not visible to others before it is durable.
        most: events that may wait; one request is always taken.
    """

    def __init__(self, journal: Journal, most: int = 50_000) -> None:
        self.journal, self._most, self._queued = journal, most, 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._waiting: list[tuple[Sequence[Event], asyncio.Future[AppendResult]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a call, made in the writing thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def put_items(self, items: list[Item], contents: Contents) -> None:
        """Reads items in a thread of its own, one call after the other, then stores them; while a picture is fetched, events are written all the same.

        Args:
            contents: what models read of items, float32 as bytes, and the models' version.
        """
        vectors, version = await asyncio.get_running_loop().run_in_executor(self._reader, contents, items)
        await self.do(self.journal.put_items, items, vectors, version)

    async def append(self, events: Sequence[Event]) -> AppendResult:
        """Stores events; returns when they are on disk.

        Raises:
            Crowded: too many wait for the disk already; nothing of these was taken.
        """
        if self._queued and self._queued + len(events) > self._most:
            raise Crowded(self._queued)
        self._queued += len(events)
        future: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, future))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return await future

    def close(self) -> None:
        """Waits for the writes under way."""
        self._reader.shutdown(wait=True)
        self._thread.shutdown(wait=True)
        self.journal.close()

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting, self._queued = self._waiting, [], 0
            try:
                results = await self.do(self.journal.append_batches, [events for events, _ in batch])
            except Exception as error:  # handed to every caller whose events were in the transaction
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
