"""The blocking client."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from tastemaker.client.transport import Budget, Transport
from tastemaker.schema.queries import Answer, EventsAnswer

_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class Client:
    """Asks a service and tells it what happened. Safe for many threads.

    Args:
        url: as in `http://127.0.0.1:8000`.
        key: an API key, where the service needs one.
        timeout: seconds for a call with all its repeats.
        budget: how many calls may be repeated; default: a fifth.

    Raises:
        InputError: the address is none.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = 5.0, budget: Budget | None = None) -> None:
        self._transport = Transport(url, key, timeout, budget)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def recommend(self, user_id: str | None = None, *, k: int = 10, **more: Any) -> Answer:
        """A list for a user, a session or nobody in particular.

        Args:
            user_id: whom for. k: length of the list.
            **more: other fields of `POST /v1/recommend`: session, filter, context, exclude, diversity, explain, …

        Raises:
            ServiceError: the service refused. Unreachable: no answer came in time. All methods raise these.
        """
        return self._post("/v1/recommend", {"user_id": user_id, "k": k, **more}, Answer)

    def rank(self, items: Sequence[str], user_id: str | None = None, **more: Any) -> Answer:
        """Given items in the order in which they suit a user."""
        return self._post("/v1/rank", {"user_id": user_id, "items": list(items), **more}, Answer)

    def search(self, query: str, *, k: int = 10, user_id: str | None = None, **more: Any) -> Answer:
        """Items by words and by meaning."""
        return self._post("/v1/search", {"query": query, "k": k, "user_id": user_id, **more}, Answer)

    def similar(self, item_id: str, *, k: int = 10) -> Answer:
        """Items like an item."""
        return self._get(f"/v1/items/{quote(item_id, safe='')}/similar?k={k}", Answer)

    def explain(self, user_id: str, item_id: str) -> dict[str, Any]:
        """Why an item is, or is not, in a user's list."""
        return self._post("/v1/explain", {"user_id": user_id, "item_id": item_id}, dict[str, Any])

    def send(self, events: Iterable[Mapping[str, Any]]) -> EventsAnswer:
        """Stores events; when it returns they are on disk.

        An event without an `event_id` gets one here, so that a repeated call stores nothing twice.
        """
        rows = [{"event_id": uuid.uuid4().hex, **event} for event in events]
        return self._post("/v1/events", {"events": rows}, EventsAnswer)

    def put_item(self, item_id: str, **fields: Any) -> None:
        """Adds or replaces an item: title, text, categories, price, created_at, hidden, image, extra."""
        self._transport.call("PUT", _item(item_id), _encode(fields))

    def put_items(self, items: Iterable[Mapping[str, Any]]) -> int:
        """Adds or replaces items, each with its `item_id`; gives how many were stored."""
        return int(self._post("/v1/items:batch", {"items": list(items)}, dict[str, int])["stored"])

    def patch_item(self, item_id: str, **fields: Any) -> None:
        """Changes fields of an item."""
        self._transport.call("PATCH", _item(item_id), _encode(fields))

    def item(self, item_id: str) -> dict[str, Any]:
        """An item."""
        return self._get(_item(item_id), dict[str, Any])

    def delete_item(self, item_id: str) -> None:
        """Deletes an item."""
        self._transport.call("DELETE", _item(item_id))

    def put_user(self, user_id: str, **extra: Any) -> None:
        """Adds or replaces a user's attributes."""
        self._transport.call("PUT", _user(user_id), _encode({"extra": extra}))

    def put_users(self, users: Iterable[Mapping[str, Any]]) -> int:
        """Adds or replaces users, each with its `user_id`; gives how many were stored."""
        return int(self._post("/v1/users:batch", {"users": list(users)}, dict[str, int])["stored"])

    def put_edges(self, edges: Iterable[Mapping[str, Any]]) -> int:
        """Stores connections, each with `head`, `relation`, `tail` and perhaps `weight`; gives how many. The next training knows them."""
        return int(self._post("/v1/edges:batch", {"edges": list(edges)}, dict[str, int])["stored"])

    def user(self, user_id: str) -> dict[str, Any]:
        """A user's attributes and latest events."""
        return self._get(_user(user_id), dict[str, Any])

    def delete_user(self, user_id: str) -> None:
        """Deletes a user's attributes."""
        self._transport.call("DELETE", _user(user_id))

    def ready(self) -> str:
        """The version of the bundle that answers."""
        return str(self._get("/readyz", dict[str, Any])["model_version"])

    def _post(self, path: str, body: Any, kind: type[T]) -> T:
        return msgspec.json.decode(self._transport.call("POST", path, _encode(body)), type=kind)

    def _get(self, path: str, kind: type[T]) -> T:
        return msgspec.json.decode(self._transport.call("GET", path), type=kind)


def _item(item_id: str) -> str:
    return f"/v1/items/{quote(item_id, safe='')}"


def _user(user_id: str) -> str:
    return f"/v1/users/{quote(user_id, safe='')}"
