"""Repeated requests: with an `Idempotency-Key` a request is carried out once, and its repetitions get the same answer."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Header, Request, Response

from agentos.core.communication.voice.errors import PolicyDenied
from agentos.core.communication.voice.gateway.access.control import Principal
from agentos.core.communication.voice.gateway.access.idempotency import (
    HttpAnswer,
    IdempotencyKeys,
    checked_key,
    fingerprint,
)
from agentos.core.communication.voice.gateway.problems import reply_to_error

REPLAYED: Final = "Idempotency-Replayed"
_KEPT_HEADERS: Final = ("content-type", "location")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Any text that this request alone has, a UUID for example. The same request with it is answered as the "
        f"first time, with the header `{REPLAYED}`, for a day.",
    ),
]


async def answered_once(
    request: Request, principal: Principal, key: str | None, carry_out: Callable[[], Awaitable[Response]]
) -> Response:
    """The answer of `carry_out`, or its earlier answer to this request. Without a key the request is carried out each time.

    A denial of the policy is an answer like any other; after any other error the key is free again. Raises the errors of
    `carry_out` and `IdempotencyKeys.once`.
    """
    if key is None:
        return await carry_out()
    keys: IdempotencyKeys = request.app.state.idempotency_keys

    async def run() -> HttpAnswer:
        try:
            response = await carry_out()
        except PolicyDenied as error:
            response = reply_to_error(error, request.url.path)
        kept = tuple((name, response.headers[name]) for name in _KEPT_HEADERS if name in response.headers)
        return HttpAnswer(response.status_code, kept, bytes(response.body))

    known = fingerprint(request.method, request.url.path, await request.body())
    answer = await keys.once(principal.token_id, checked_key(key), known, run)
    headers = dict(answer.headers)
    if answer.replayed:
        headers[REPLAYED] = "true"
    return Response(answer.body, answer.status, headers)
