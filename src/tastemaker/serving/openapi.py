"""The OpenAPI 3.1 document, made from the same table that routes requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tastemaker import __version__
from tastemaker.schema.queries import Problem
from tastemaker.serving.auth import Scope

SECURITY: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key made by `tastemaker keys add`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key in a header of its own."},
}
"""The ways in which a key may come. A service that only its own machine can reach needs none."""


@dataclass(frozen=True)
class Operation:
    """One row of the route table.

    Attributes:
        method, path: as in `POST /v1/recommend`; path parameters in braces.
        name: the handler's name and the operation id.
        summary: one sentence.
        body, answer: msgspec types of the JSON in and out; None: no body.
        status: of a good answer.
        scope: what an API key must be allowed; None: nobody needs one.
        query: integer query parameters with their defaults.
        asks: the handler is given the request, too, before the body.
        waits: the handler has requests wait for a turn and tells the ladder itself how long they did.
    """

    method: str
    path: str
    name: str
    summary: str
    body: Any = None
    answer: Any = None
    status: int = 200
    scope: Scope | None = "read"
    query: tuple[tuple[str, int], ...] = ()
    asks: bool = False
    waits: bool = False


def document(table: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of a route table."""
    types = [kind for row in table for kind in (row.body, row.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template="#/components/schemas/{name}")
    of = iter(schemas)
    paths: dict[str, Any] = {}
    for row in table:
        entry: dict[str, Any] = {"operationId": row.name, "summary": row.summary, "responses": {}}
        entry["description"] = f"Needs an API key with the scope `{row.scope}`, unless the service is open to this machine alone."
        entry["security"] = [{name: []} for name in SECURITY] + [{}]
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 512}}
            for name in re.findall(r"{(\w+)(?::\w+)?}", row.path)
        ]
        parameters += [
            {"name": name, "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 1_000_000, "default": default}}
            for name, default in row.query
        ]
        if parameters:
            entry["parameters"] = parameters
        if row.body is not None:
            entry["requestBody"] = {"required": True, "content": {"application/json": {"schema": next(of)}}}
        content = {"content": {"application/json": {"schema": next(of)}}} if row.answer is not None else {}
        entry["responses"][str(row.status)] = {"description": row.summary, **content}
        for status, words in _problems(row):
            schema = {"$ref": "#/components/schemas/Problem"}
            entry["responses"][status] = {"description": words, "content": {"application/problem+json": {"schema": schema}}}
        paths.setdefault(re.sub(r"{(\w+):\w+}", r"{\1}", row.path), {})[row.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tastemaker", "version": __version__, "description": "Recommendations, search and events."},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SECURITY},
    }


def _problems(row: Operation) -> list[tuple[str, str]]:
    found = [("400", "The request can't be read."), ("401", "No known API key came."), ("403", "The key has not the scope.")]
    found += [("422", "The request makes no sense."), ("429", "Too many requests with this key.")]
    if row.body is not None:
        found += [
            ("408", "The body came too slowly."),
            ("413", "The body is too large."),
            ("415", "The body is no JSON."),
            ("507", "Nothing could be stored."),
        ]
    if row.path.startswith("/v1/bundles:"):
        found.append(("409", "Something speaks against it."))
    if "{" in row.path or row.name == "release" or row.name == "explain":
        found.append(("404", "It is not there."))
    return [*found, ("503", "Not ready.")]
