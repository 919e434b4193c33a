"""The table of routes, and the bodies that only they know. The router and the OpenAPI document both read it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from tastemaker.schema.queries import (
    Answer,
    Body,
    EventsAnswer,
    EventsQuery,
    ExplainQuery,
    ItemBody,
    RankQuery,
    RecommendQuery,
    SearchQuery,
)
from tastemaker.schema.rules import Identifier
from tastemaker.serving.openapi import Operation, document
from tastemaker.serving.releases import ReleaseBody


class ItemsBatch(Body, kw_only=True, frozen=True):
    """Items to be stored: each with its `item_id` and the fields of an item."""

    items: list[dict[str, Any]]


class UserBody(Body, kw_only=True, frozen=True):
    """A user as a client writes it."""

    extra: dict[str, Any] = {}


class UsersBatch(Body, kw_only=True, frozen=True):
    """Users to be stored: each with its `user_id`."""

    users: list[dict[str, Any]]


class Edge(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A connection of two nodes, such as `user:1`, `friend`, `user:2`; a node without a prefix is an entity. A weight of 0 takes it away."""

    head: Identifier
    relation: Identifier
    tail: Identifier
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class EdgesBatch(Body, kw_only=True, frozen=True):
    """Connections to be stored; the next training knows them."""

    edges: list[Edge]


class ItemPatch(Body, kw_only=True, frozen=True):
    """Fields of an item to be changed."""

    title: str | msgspec.UnsetType | None = msgspec.UNSET
    text: str | msgspec.UnsetType | None = msgspec.UNSET
    categories: list[str] | msgspec.UnsetType = msgspec.UNSET
    image: str | msgspec.UnsetType | None = msgspec.UNSET
    audio: str | msgspec.UnsetType | None = msgspec.UNSET
    price: float | msgspec.UnsetType | None = msgspec.UNSET
    created_at: float | msgspec.UnsetType | None = msgspec.UNSET
    hidden: bool | msgspec.UnsetType = msgspec.UNSET
    extra: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Stored(msgspec.Struct, frozen=True):
    """How many things were stored or deleted."""

    stored: int


TABLE: tuple[Operation, ...] = (
    Operation("POST", "/v1/recommend", "recommend", "A list for a user or a session.", RecommendQuery, Answer),
    Operation("POST", "/v1/rank", "rank", "Given items in the order in which they suit a user.", RankQuery, Answer),
    Operation("POST", "/v1/search", "search", "Items by words and by meaning.", SearchQuery, Answer),
    Operation("POST", "/v1/explain", "explain", "Why an item stands where it does.", ExplainQuery, dict[str, Any]),
    Operation(
        "POST", "/v1/events", "events", "Store events; answered when they are on disk.", EventsQuery, EventsAnswer, 202, "write"
    ),
    Operation("POST", "/v1/items:batch", "put_items", "Store many items.", ItemsBatch, Stored, scope="write"),
    Operation("POST", "/v1/users:batch", "put_users", "Store many users.", UsersBatch, Stored, scope="write"),
    Operation(
        "POST", "/v1/edges:batch", "put_edges", "Store connections of users, items and entities.", EdgesBatch, Stored, scope="write"
    ),
    Operation("GET", "/v1/items", "items", "Some items of the catalogue.", None, dict[str, Any], query=(("limit", 50),)),
    Operation("GET", "/v1/users", "users", "Some users.", None, dict[str, Any], scope="admin", query=(("limit", 50),)),
    Operation("GET", "/v1/items/{item_id:path}/similar", "similar", "Items like an item.", None, Answer, query=(("k", 10),)),
    Operation(
        "GET",
        "/v1/items/{item_id:path}/audience",
        "audience",
        "Whom an item would be shown to.",
        None,
        dict[str, Any],
        scope="admin",
        query=(("k", 10),),
    ),
    Operation("PUT", "/v1/items/{item_id:path}", "put_item", "Add or replace an item.", ItemBody, Stored, scope="write"),
    Operation("PATCH", "/v1/items/{item_id:path}", "patch_item", "Change fields of an item.", ItemPatch, Stored, scope="write"),
    Operation("GET", "/v1/items/{item_id:path}", "get_item", "An item.", None, dict[str, Any]),
    Operation("DELETE", "/v1/items/{item_id:path}", "delete_item", "Delete an item.", None, Stored, scope="write"),
    Operation("PUT", "/v1/users/{user_id:path}", "put_user", "Add or replace a user.", UserBody, Stored, scope="write"),
    Operation("PATCH", "/v1/users/{user_id:path}", "patch_user", "Change attributes of a user.", UserBody, Stored, scope="write"),
    Operation("GET", "/v1/users/{user_id:path}", "get_user", "A user with the latest events.", None, dict[str, Any]),
    Operation("DELETE", "/v1/users/{user_id:path}", "delete_user", "Delete a user's attributes.", None, Stored, scope="admin"),
    Operation("GET", "/v1/bundles", "bundles", "Bundles with their stages and figures.", None, dict[str, Any], scope="admin"),
    Operation(
        "POST", "/v1/bundles:release", "release", "Make a bundle live.", ReleaseBody, dict[str, Any], scope="admin", asks=True
    ),
    Operation(
        "POST", "/v1/bundles:rollback", "rollback", "Make the previous bundle live.", None, dict[str, Any], scope="admin", asks=True
    ),
    Operation("GET", "/v1/reports", "reports", "Names of the reports.", None, dict[str, Any], scope="admin"),
    Operation("GET", "/v1/reports/{name}", "report", "A report as an HTML page.", None, dict[str, Any], scope="admin"),
)


if __name__ == "__main__":  # python -m tastemaker.serving.routes > docs/openapi.json
    print(msgspec.json.format(msgspec.json.encode(document(TABLE))).decode())
