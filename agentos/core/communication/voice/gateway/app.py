"""The ASGI app in front of a voice service: this module makes it from one router a file.

    app = voice_app(service)                         for a server of its own
    host.mount("/voice", voice_app(service))         in a host's own FastAPI or Starlette app

The app neither starts nor ends the service: the host does. The app's own tasks, which look after the streams and sum refusals
up for evidence, run in its lifespan. A server runs the lifespan; a host that mounts the app enters
`app.router.lifespan_context(app)` in its own lifespan, else no stream can be opened.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Final

import anyio
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.gateway.access.control import AccessControl
from agentos.core.communication.voice.gateway.access.idempotency import IdempotencyKeys
from agentos.core.communication.voice.gateway.access.limits import ConnectionLimit, RateLimit
from agentos.core.communication.voice.gateway.access.refusals import Refusals
from agentos.core.communication.voice.gateway.access.tickets import StreamCredentials
from agentos.core.communication.voice.gateway.access.token_watch import TokenWatch
from agentos.core.communication.voice.gateway.documentation import documented
from agentos.core.communication.voice.gateway.metrics import Metrics
from agentos.core.communication.voice.gateway.problems import on_http_error, on_invalid_request, on_voice_error
from agentos.core.communication.voice.gateway.request_guard import RequestGuard
from agentos.core.communication.voice.gateway.routes import (
    console,
    events,
    evidence,
    health,
    policy,
    recordings,
    sessions,
    statistics,
    stream_schema,
    stream_tickets,
)
from agentos.core.communication.voice.gateway.routes.file_stream import FileStreams
from agentos.core.communication.voice.gateway.routes.provider_routes import ProviderRoutes
from agentos.core.communication.voice.gateway.routes.verification import Verifications
from agentos.core.communication.voice.gateway.streams.endpoint import STREAMS_PER_CLIENT, BrowserStreams, stream_route
from agentos.core.communication.voice.storage.tokens import AccessToken
from machines.evidence import EvidenceRecord

BODY_TIMEOUT_SECONDS: Final = 10.0  # for a request of some kilobytes
EVENT_STREAMS: Final = 10_000  # of all tokens together
JSON_GROWTH: Final = 6  # most bytes of JSON for one byte: \\u0041
BESIDE_METADATA_BYTES: Final = 16_384  # of a request without its metadata: ids, the audio format, a token

_TAGS: Final = [
    {"name": "sessions", "description": "Calls, what they told, what was said, and how they sounded."},
    {"name": "policy", "description": "Who may open what, and why."},
    {"name": "evidence", "description": "The hash chain of everything that was decided and done."},
    {"name": "operation", "description": "How the service is, and its end."},
]

# All apps of a process share these: FastAPI makes the validators of a route anew for every app that includes its router itself.
_ROUTES: Final = APIRouter()
for _part in (
    sessions,
    stream_tickets,
    stream_schema,
    events,
    recordings,
    evidence,
    policy,
    statistics,
    health,
    console,
):
    _ROUTES.include_router(_part.router)


def voice_app(
    service: AsyncVoiceService,
    *,
    authentication: bool = True,
    origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
    streams_per_client: int = STREAMS_PER_CLIENT,
) -> FastAPI:
    """The app in front of `service`, which may be started later; until then requests are answered with `service-closed`.

    With `authentication` every request but `/healthz`, `/readyz` and `/openapi.json` needs a bearer token of the service's
    home. Without, the app answers to loopback names only, and its server must make sure that no other machine can reach it
    (`exposure.check_exposure`). `origins` are other sites whose pages may use the app, like `https://app.example`; there is no
    CORS. `hosts` are the names to which the app answers, all if None. One client may have `streams_per_client` streams at once;
    behind the proxies in the setting `trusted_proxies`, clients are told apart by the addresses that these send. Raises
    `InvalidRequest` for a malformed origin.
    """

    def note(record: EvidenceRecord) -> None:
        service.note_evidence(record)

    def whose(tokens: Collection[str]) -> Mapping[str, AccessToken]:
        return service.token_store().whose(tokens)

    def standing(token_ids: Collection[str]) -> Collection[str]:
        return service.token_store().standing(token_ids)

    refusals = Refusals(note)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(refusals.run)
            group.start_soon(app.state.token_watch.run)
            await group.start(app.state.streams.run)
            yield
            group.cancel_scope.cancel()

    app = FastAPI(
        title="agentos-voice",
        summary="Voice calls with live transcripts, recordings and verifiable evidence.",
        description="Every error is a problem (RFC 9457, `application/problem+json`). Unknown fields are refused.",
        version=_version(),
        openapi_tags=_TAGS,
        docs_url=None,  # both documentation pages load scripts from other servers
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        middleware=[
            Middleware(
                RequestGuard,
                body_limit_bytes=BESIDE_METADATA_BYTES + JSON_GROWTH * service.settings.max_metadata_bytes,
                body_timeout_seconds=BODY_TIMEOUT_SECONDS,
            )
        ],
        exception_handlers={
            VoiceError: on_voice_error,
            HTTPException: on_http_error,
            RequestValidationError: on_invalid_request,
        },
    )
    app.state.service = service
    settings = service.settings
    app.state.access = AccessControl(
        whose,
        refusals,
        authentication=authentication,
        origins=origins,
        hosts=hosts,
        proxies=settings.trusted_proxies,
        unknown=RateLimit(settings.unknown_tokens_per_second, burst=settings.unknown_tokens_burst),
        requests=RateLimit(settings.requests_per_second, burst=settings.requests_burst),
    )
    app.state.idempotency_keys = IdempotencyKeys(service.voice_store)
    app.state.credentials = StreamCredentials(service.voice_store, service.stream_tickets)
    app.state.event_streams = ConnectionLimit(
        service.settings.max_event_streams_per_token,
        EVENT_STREAMS,
        "event streams are open, as many as a token may follow",
    )
    app.state.files = FileStreams()
    app.state.verifications = Verifications()
    app.state.metrics = Metrics()
    app.state.token_watch = TokenWatch(standing)
    app.state.streams = BrowserStreams(
        service, app.state.credentials, app.state.access, app.state.token_watch, per_client=streams_per_client
    )
    app.router.routes.append(stream_route(app.state.streams))
    app.router.routes.append(ProviderRoutes(service).mounted())
    app.router.routes.extend(_ROUTES.routes)
    app.openapi = lambda: documented(app)  # type: ignore[method-assign]
    return app


def _version() -> str:
    try:
        return metadata.version("agentos-voice")
    except metadata.PackageNotFoundError:
        return "0"
