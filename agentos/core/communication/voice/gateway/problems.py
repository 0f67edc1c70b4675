"""Every error of the API as a problem (RFC 9457): one table has the status and the name of each error.

A problem's `type` is a name that never changes, `detail` says what was wrong and what to do, and the error's fields are added
to them. Faults of the server, and details of its inside, go into the log and not into the reply.
"""

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from agentos.core.communication.voice import errors
from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.secrets_in_text import without_secrets
from machines.communication import PolicyVerdict
from machines.session import VoiceSessionState

log = logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:agentos-voice:problem:"


class ProblemKind(NamedTuple):
    """A kind of problem: its HTTP status, its name, its title; and a text that replaces the error's own, if that would tell of
    the inside of the server."""

    status: int
    name: str
    title: str
    says: str | None = None


KINDS: Final[Mapping[type[VoiceError], ProblemKind]] = MappingProxyType(
    {
        VoiceError: ProblemKind(500, "internal", "A fault of the server", "the server failed; its log says where"),
        errors.InvalidRequest: ProblemKind(422, "invalid-request", "The request is not valid"),
        errors.ChunkTooLarge: ProblemKind(413, "chunk-too-large", "The chunk of audio is too large"),
        errors.SessionNotFound: ProblemKind(404, "session-not-found", "There is no such session"),
        errors.InvalidState: ProblemKind(409, "invalid-state", "The session's state does not allow it"),
        errors.NotResumable: ProblemKind(409, "not-resumable", "The session can't be resumed"),
        errors.RecordingFinishing: ProblemKind(503, "recording-finishing", "The recording is being finished"),
        errors.PolicyDenied: ProblemKind(403, "policy-denied", "The policy refused the request"),
        errors.Overloaded: ProblemKind(503, "overloaded", "There is no room now"),
        errors.EvidenceUnavailable: ProblemKind(
            503,
            "evidence-unavailable",
            "The evidence store is not available",
            "the evidence store is not available, so nothing was done; try again later",
        ),
        errors.StoreError: ProblemKind(
            503, "store-unavailable", "The store is not available", "the store can't be used now; try again later"
        ),
        errors.NotADatabase: ProblemKind(
            503, "store-unavailable", "The store is not available", "the store can't be used on this server"
        ),
        errors.ChainNotContinued: ProblemKind(
            503, "store-unavailable", "The store is not available", "the store can't be used on this server"
        ),
        errors.LocksUnavailable: ProblemKind(
            503, "store-unavailable", "The store is not available", "the store can't be used on this server"
        ),
        errors.Unrecordable: ProblemKind(422, "unrecordable", "The request can't be put on record"),
        errors.EvidenceNotDurable: ProblemKind(
            202, "evidence-not-durable", "Stopped, and its final record is not stored yet"
        ),
        errors.STTUnavailable: ProblemKind(422, "stt-unavailable", "The speech-to-text engine can't be had"),
        errors.ProviderNotConfigured: ProblemKind(422, "provider-not-configured", "The provider is not configured"),
        errors.UnusableExtension: ProblemKind(
            503,
            "unusable-extension",
            "A provider or an engine can't be used",
            "what is registered under this name can't be used on this server; its log says why",
        ),
        errors.StopNotConfirmed: ProblemKind(504, "stop-not-confirmed", "The session did not confirm that it stopped"),
        errors.Draining: ProblemKind(503, "draining", "The service takes no new calls"),
        errors.ServiceClosed: ProblemKind(503, "service-closed", "The service has ended"),
        errors.ServiceNotReachable: ProblemKind(
            503, "service-not-reachable", "The service can't be reached", "the service can't be reached"
        ),
        errors.SettingsError: ProblemKind(
            500, "internal", "A fault of the server", "the server is not set up; its log says how"
        ),
        errors.UnsafeExposure: ProblemKind(
            500, "internal", "A fault of the server", "the server is not set up; its log says how"
        ),
        errors.CannotListen: ProblemKind(
            500, "internal", "A fault of the server", "the server is not set up; its log says how"
        ),
        errors.Unauthenticated: ProblemKind(401, "unauthenticated", "The request is not authenticated"),
        errors.Forbidden: ProblemKind(403, "forbidden", "This is not allowed"),
        errors.InvalidTicket: ProblemKind(401, "invalid-ticket", "The ticket is not valid"),
        errors.RateLimited: ProblemKind(429, "rate-limited", "Too many requests"),
        errors.RequestTooLarge: ProblemKind(413, "request-too-large", "The request is too large"),
        errors.RequestTooSlow: ProblemKind(408, "request-too-slow", "The request did not come whole in time"),
        errors.KeyReused: ProblemKind(422, "key-reused", "The idempotency key was used for another request"),
        errors.KeyInUse: ProblemKind(409, "key-in-use", "The request with this key is being carried out"),
    }
)
"""The kind of problem of each error class. A class that is not listed has the kind of its nearest base."""

_FIELDS: Final = ("field", "session_id", "state", "verdict", "reason", "spilled", "limit_bytes", "retry_after_seconds")


class InvalidField(BaseModel):
    """One mistake in a request: its place, and a sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    message: str


class Problem(BaseModel):
    """A problem (RFC 9457): `type` names its kind for programs, `detail` tells a person what was wrong and what to do."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:agentos-voice:problem:session-not-found",
                    "title": "There is no such session",
                    "status": 404,
                    "detail": "there is no session 'voice-0'",
                    "instance": "/v1/sessions/voice-0",
                    "session_id": "voice-0",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = Field(default="", description="The path of the request.")
    field: str | None = Field(default=None, description="The mistaken field of the request.")
    errors: tuple[InvalidField, ...] | None = Field(default=None, description="All mistakes in the request.")
    session_id: str | None = None
    state: VoiceSessionState | None = Field(default=None, description="The state of the session.")
    verdict: PolicyVerdict | None = Field(default=None, description="The policy's verdict, and what would help.")
    reason: str | None = Field(default=None, description="The reason of the refusal, for programs.")
    spilled: bool | None = Field(default=None, description="Whether the record is safe in a file beside the store.")
    limit_bytes: int | None = Field(default=None, description="The largest number of bytes allowed.")
    retry_after_seconds: float | None = Field(default=None, description="When the same request may work.")


def kind_of(error: VoiceError) -> ProblemKind:
    """The kind of problem for this error."""
    return next(KINDS[base] for base in type(error).__mro__ if base in KINDS)


def problem_of(error: VoiceError, instance: str = "") -> Problem:
    """The problem for this error, in a reply to a request for the path `instance`."""
    kind = kind_of(error)
    fields = {name: value for name in _FIELDS if (value := getattr(error, name, None)) is not None}
    return _problem(kind, instance, kind.says if kind.says is not None else str(error), **fields)


def reply(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response. Tokens are removed from texts of the request that it repeats, such as a path or a name."""
    found = dict(headers or {})
    if problem.retry_after_seconds is not None:
        found["Retry-After"] = str(ceil(problem.retry_after_seconds))
    body = without_secrets(problem.model_dump_json(exclude_none=True))
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=found)


def reply_to_error(error: Exception, instance: str) -> Response:
    """The response to a request that ended in any `error`."""
    if isinstance(error, VoiceError):
        kind = kind_of(error)
        if kind.says is not None:
            log.error("request_failed", path=instance, error=f"{type(error).__name__}: {error}")
        headers = {"WWW-Authenticate": error.challenge} if isinstance(error, errors.Unauthenticated) else {}
        return reply(problem_of(error, instance), headers)
    log.error("request_failed", path=instance, exc_info=error)
    return reply(_problem(KINDS[VoiceError], instance, KINDS[VoiceError].says or ""))


async def on_voice_error(request: Request, error: Exception) -> Response:
    """The reply to a `VoiceError`."""
    return reply_to_error(error, request.url.path)


async def on_http_error(request: Request, error: Exception) -> Response:
    """The reply to an error of the framework: no such path, no such method, or a body that can't be read."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # the framework could not read the body
        problem = _problem(KINDS[errors.InvalidRequest], request.url.path, "the body is not JSON", field="body")
        return reply(problem)
    name = status.phrase.lower().replace(" ", "-").replace("'", "")
    detail = {404: "there is nothing at this path", 405: "this path does not have this method"}
    kind = ProblemKind(status.value, name, status.phrase)
    return reply(_problem(kind, request.url.path, detail.get(status.value, status.description)), error.headers)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """The reply to a request of the wrong form. It does not repeat the client's values."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    found = tuple(InvalidField(field=_place(item["loc"]), message=_message(item)) for item in error.errors())
    detail = "; ".join(f"{item.field}: {item.message}" for item in found)
    problem = _problem(KINDS[errors.InvalidRequest], request.url.path, detail, field=found[0].field, errors=found)
    return reply(problem)


def _problem(kind: ProblemKind, instance: str, detail: str, **fields: Any) -> Problem:
    return Problem(
        type=URN + kind.name, title=kind.title, status=kind.status, detail=detail, instance=instance, **fields
    )


def _place(where: tuple[int | str, ...]) -> str:
    names = [str(name) for name in where]
    return ".".join(names[1:] or names)


def _message(item: Mapping[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return f"the body is not JSON: {item.get('ctx', {}).get('error', 'it can not be read')}"
    if tuple(item["loc"]) == ("body",):
        return "it must be a JSON object, sent as Content-Type: application/json"
    if item["type"] == "extra_forbidden":
        return "there is no such field"
    text = str(item["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
