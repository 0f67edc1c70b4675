"""Requests to an app without a socket, so that every byte of a header can be chosen."""

import json
from typing import Any, NamedTuple

from starlette.types import ASGIApp

LOCALHOST = ("127.0.0.1", 50_000)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: ASGIApp,
    method: str,
    url: str,
    *headers: tuple[str, str],
    client: tuple[str, int] | None = LOCALHOST,
    scheme: str = "http",
) -> Reply:
    """The app's answer; without a Host header the server's own is sent."""
    path, _, query = url.partition("?")
    given = [("host", "127.0.0.1:8000"), *headers] if "host" not in dict(headers) else list(headers)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given],
        "client": client,
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    start, *parts = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], answered, b"".join(part.get("body", b"") for part in parts))


ACCEPT, CLOSE = "websocket.accept", "websocket.close"


async def connect(app: ASGIApp, path: str, headers: list[tuple[str, str]]) -> list[Any]:
    """What the app sends to a WebSocket whose client says nothing."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": LOCALHOST,
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
        "state": {},
    }
    await app(scope, receive, send)
    return sent
