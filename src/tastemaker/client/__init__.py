"""A typed client of the REST API, blocking and asynchronous. It needs nothing but the standard library and msgspec.

    from tastemaker.client import Client

    with Client("http://127.0.0.1:8000", key="tm_…") as service:
        answer = service.recommend("u1", k=10)
        service.send([{"user_id": "u1", "item_id": answer.items[0].item_id, "event_type": "click", "request_id": answer.request_id}])

Why no HTTP library: `http.client` answers a kept-alive request in the time that the fastest of them needs, and a client that a shop puts into
its own service should not argue with its versions. `AsyncClient` waits in threads, one a connection.
"""

from __future__ import annotations

from tastemaker.client.asynchronous import AsyncClient
from tastemaker.client.blocking import Client
from tastemaker.client.transport import ServiceError, Unreachable

__all__ = ["AsyncClient", "Client", "ServiceError", "Unreachable"]
