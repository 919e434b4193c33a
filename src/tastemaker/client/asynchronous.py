"""The asynchronous client: the blocking one, waiting in threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from tastemaker.client.blocking import Client
from tastemaker.client.transport import Budget
from tastemaker.schema.queries import Answer, EventsAnswer

P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient:
    """The methods of `Client`, to be awaited.

    Args:
        url, key, timeout, budget: as of `Client`. connections: calls that can be under way at a time; further ones wait.
    """

    def __init__(
        self, url: str, key: str | None = None, timeout: float = 5.0, budget: Budget | None = None, connections: int = 32
    ) -> None:
        self._client = Client(url, key, timeout, budget)
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="tastemaker-client")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits for the calls under way and closes the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    async def recommend(self, user_id: str | None = None, *, k: int = 10, **more: Any) -> Answer:
        """A list for a user, a session or nobody in particular."""
        return await self._do(self._client.recommend, user_id, k=k, **more)

    async def rank(self, items: Sequence[str], user_id: str | None = None, **more: Any) -> Answer:
        """Given items in the order in which they suit a user."""
        return await self._do(self._client.rank, items, user_id, **more)

    async def search(self, query: str, *, k: int = 10, user_id: str | None = None, **more: Any) -> Answer:
        """Items by words and by meaning."""
        return await self._do(self._client.search, query, k=k, user_id=user_id, **more)

    async def similar(self, item_id: str, *, k: int = 10) -> Answer:
        """Items like an item."""
        return await self._do(self._client.similar, item_id, k=k)

    async def explain(self, user_id: str, item_id: str) -> dict[str, Any]:
        """Why an item is, or is not, in a user's list."""
        return await self._do(self._client.explain, user_id, item_id)

    async def send(self, events: Iterable[Mapping[str, Any]]) -> EventsAnswer:
        """Stores events; when it returns they are on disk."""
        return await self._do(self._client.send, events)

    async def put_item(self, item_id: str, **fields: Any) -> None:
        """Adds or replaces an item."""
        await self._do(self._client.put_item, item_id, **fields)

    async def put_items(self, items: Iterable[Mapping[str, Any]]) -> int:
        """Adds or replaces items; gives how many were stored."""
        return await self._do(self._client.put_items, items)

    async def patch_item(self, item_id: str, **fields: Any) -> None:
        """Changes fields of an item."""
        await self._do(self._client.patch_item, item_id, **fields)

    async def item(self, item_id: str) -> dict[str, Any]:
        """An item."""
        return await self._do(self._client.item, item_id)

    async def delete_item(self, item_id: str) -> None:
        """Deletes an item."""
        await self._do(self._client.delete_item, item_id)

    async def put_user(self, user_id: str, **extra: Any) -> None:
        """Adds or replaces a user's attributes."""
        await self._do(self._client.put_user, user_id, **extra)

    async def put_users(self, users: Iterable[Mapping[str, Any]]) -> int:
        """Adds or replaces users; gives how many were stored."""
        return await self._do(self._client.put_users, users)

    async def put_edges(self, edges: Iterable[Mapping[str, Any]]) -> int:
        """Stores connections; gives how many."""
        return await self._do(self._client.put_edges, edges)

    async def user(self, user_id: str) -> dict[str, Any]:
        """A user's attributes and latest events."""
        return await self._do(self._client.user, user_id)

    async def delete_user(self, user_id: str) -> None:
        """Deletes a user's attributes."""
        await self._do(self._client.delete_user, user_id)

    async def ready(self) -> str:
        """The version of the bundle that answers."""
        return await self._do(self._client.ready)

    async def _do(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments, **named))
