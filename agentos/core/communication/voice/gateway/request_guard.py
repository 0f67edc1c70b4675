"""The request guard: checks every request before its route, and gives every reply security headers, and errors as problems."""

from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentos.core.communication.voice.errors import InvalidRequest
from agentos.core.communication.voice.gateway.access.limits import read_body
from agentos.core.communication.voice.gateway.problems import reply_to_error
from machines.strict_json import AmbiguousJson, read_strictly

FIELD_LIMIT: Final = 100  # longest part of a name that a reply repeats, in characters

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""The headers of every reply, unless its route sets others."""


ONCE: Final = (b"idempotency-key", b"last-event-id", b"content-type")
"""Headers that may come only once: different parsers take the first or the last."""

REPEATED: Final = ("head",)
"""Query parameters that may be repeated: noted heads of the evidence chain."""


class RequestGuard:
    """Middleware. It refuses requests that can be read in two ways: with a query parameter or a header twice, or with JSON that
    has a name twice or is not UTF-8. It reads a request's body whole before the route runs, at most `body_limit_bytes` within
    `body_timeout_seconds`. It answers an unhandled error with a problem, and does not raise it again."""

    def __init__(self, app: ASGIApp, *, body_limit_bytes: int, body_timeout_seconds: float) -> None:
        self._app = app
        self._body_limit_bytes = body_limit_bytes
        self._body_timeout_seconds = body_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sending = _Reply(send)
        try:
            _check_once_each(scope)
            body = await read_body(
                scope, receive, limit_bytes=self._body_limit_bytes, timeout_seconds=self._body_timeout_seconds
            )
            _check_json(body)
            await self._app(scope, _Body(body, receive), sending)
        except ClientDisconnect:
            return
        except Exception as error:
            if sending.begun:
                raise  # the server closes the connection, so that half a reply is not taken for a whole one
            response = reply_to_error(error, scope["path"])
            response.headers["Connection"] = "close"  # the rest of the body is not read
            await response(scope, receive, sending)


def _check_once_each(scope: Scope) -> None:
    """Raise `InvalidRequest`, naming the parameter or header, for one that comes twice or can't be read."""
    try:
        query = parse_qsl(scope.get("query_string", b"").decode(), keep_blank_values=True, errors="strict")
    except ValueError:  # also `UnicodeDecodeError`
        raise InvalidRequest("the query can't be read: it must be UTF-8, percent-encoded", field="query") from None
    names = [name for name, _ in query if name not in REPEATED]
    headers = [name for name, _ in scope["headers"] if name in ONCE]
    for kind, found in (("query parameter", names), ("header", [name.decode() for name in headers])):
        twice = next((name for at, name in enumerate(found) if name in found[:at]), None)
        if twice is not None:
            raise InvalidRequest(f"a {kind} comes twice", field=twice[:FIELD_LIMIT])


def _check_json(body: bytes) -> None:
    """Raise `InvalidRequest` for JSON that two parsers could read differently. The route itself refuses a body that is no JSON
    at all."""
    try:
        if body:
            read_strictly(body)
    except AmbiguousJson as error:
        raise InvalidRequest(f"the body is not JSON that can be read in one way only: {error}", field="body") from None
    except (ValueError, RecursionError):
        pass


class _Body:
    """The `receive` of a request whose body was read: gives the body, and then the server's further messages."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Reply:
    """Sends a reply, with the headers of every reply."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)
