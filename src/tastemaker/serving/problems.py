"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from tastemaker.schema.errors import InputError, JournalError, TastemakerError
from tastemaker.schema.queries import Problem
from tastemaker.serving.admission import TooMany
from tastemaker.serving.answers import NotFound
from tastemaker.serving.auth import NoKey, NotAllowed
from tastemaker.serving.ladder import Busy
from tastemaker.serving.releases import Refused
from tastemaker.serving.writer import Crowded

PROBLEM_JSON = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Not authorised",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Refused",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Bad input",
    429: "Too many requests",
    501: "Not there",
    503: "Not ready",
    507: "Not stored",
}


class Unsupported(TastemakerError):
    """A route that clients of another service know, and that makes no sense here."""


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A problem document as a response."""
    detail = detail.encode("utf-8", "backslashreplace").decode("utf-8")
    body = Problem(title=TITLES.get(status, "Error"), status=status, detail=detail)
    return Response(msgspec.json.encode(body), status, headers, PROBLEM_JSON)


def of_error(error: TastemakerError) -> Response:
    """The problem document of an error that was made on purpose."""
    if isinstance(error, NotFound):
        return problem(404, str(error))
    if isinstance(error, Refused):
        return problem(409, str(error))
    if isinstance(error, NoKey):
        return problem(401, str(error), {"WWW-Authenticate": "Bearer", "Connection": "close"})
    if isinstance(error, NotAllowed):
        return problem(403, str(error), {"Connection": "close"})
    if isinstance(error, Unsupported):
        return problem(501, str(error))
    if isinstance(error, TooMany | Busy | Crowded):
        return problem(429, str(error), {"Retry-After": str(error.wait)})
    if isinstance(error, InputError):
        return problem(422, str(error))
    if isinstance(error, JournalError):
        return problem(507, str(error), {"Retry-After": "1"})
    return problem(503, str(error), {"Retry-After": "1"})
