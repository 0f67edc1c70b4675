"""Every error of the API as a problem (RFC 9457): one table says which error has which status and name.

A problem's `type` is a name that never changes, `detail` says what was wrong and what to do, and the fields of the error stand
beside them. What is our own fault, or tells of the inside of the server, is in the log and not in the reply.
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


class Kind(NamedTuple):
    """A kind of problem: its HTTP status, its name, what it is in a few words; and what is said of it instead of the error's
    own text, where that tells of the inside of the server."""

    status: int
    name: str
    title: str
    says: str | None = None


KINDS: Final[Mapping[type[VoiceError], Kind]] = MappingProxyType(
    {
        VoiceError: Kind(500, "internal", "A fault of the server", "the server failed; its log says where"),
        errors.InvalidRequest: Kind(422, "invalid-request", "The request is not valid"),
        errors.ChunkTooLarge: Kind(413, "chunk-too-large", "The chunk of audio is too large"),
        errors.SessionNotFound: Kind(404, "session-not-found", "There is no such session"),
        errors.InvalidState: Kind(409, "invalid-state", "The session's state does not allow it"),
        errors.NotResumable: Kind(409, "not-resumable", "The session can't be resumed"),
        errors.RecordingFinishing: Kind(503, "recording-finishing", "The recording is being finished"),
        errors.PolicyDenied: Kind(403, "policy-denied", "The policy refused the request"),
        errors.Overloaded: Kind(503, "overloaded", "There is no room now"),
        errors.EvidenceUnavailable: Kind(
            503,
            "evidence-unavailable",
            "The evidence store is not available",
            "the evidence store is not available, so nothing was done; try again later",
        ),
        errors.StoreError: Kind(
            503, "store-unavailable", "The store is not available", "the store can't be used now; try again later"
        ),
        errors.NotADatabase: Kind(
            503, "store-unavailable", "The store is not available", "the store can't be used on this server"
        ),
        errors.ChainNotContinued: Kind(
            503, "store-unavailable", "The store is not available", "the store can't be used on this server"
        ),
        errors.LocksUnavailable: Kind(
            503, "store-unavailable", "The store is not available", "the store can't be used on this server"
        ),
        errors.Unrecordable: Kind(422, "unrecordable", "The request can't be put on record"),
        errors.EvidenceNotDurable: Kind(202, "evidence-not-durable", "Stopped, and its final record is not stored yet"),
        errors.STTUnavailable: Kind(422, "stt-unavailable", "The speech-to-text engine can't be had"),
        errors.ProviderNotConfigured: Kind(422, "provider-not-configured", "The provider is not configured"),
        errors.UnusableExtension: Kind(
            503,
            "unusable-extension",
            "A provider or an engine can't be used",
            "what is registered under this name can't be used on this server; its log says why",
        ),
        errors.StopNotConfirmed: Kind(504, "stop-not-confirmed", "The session did not confirm that it stopped"),
        errors.Draining: Kind(503, "draining", "The service takes no new calls"),
        errors.ServiceClosed: Kind(503, "service-closed", "The service has ended"),
        errors.ServiceNotReachable: Kind(
            503, "service-not-reachable", "The service can't be reached", "the service can't be reached"
        ),
        errors.SettingsError: Kind(
            500, "internal", "A fault of the server", "the server is not set up; its log says how"
        ),
        errors.UnsafeExposure: Kind(
            500, "internal", "A fault of the server", "the server is not set up; its log says how"
        ),
        errors.CannotListen: Kind(
            500, "internal", "A fault of the server", "the server is not set up; its log says how"
        ),
        errors.Unauthenticated: Kind(401, "unauthenticated", "It is not known who asks"),
        errors.Forbidden: Kind(403, "forbidden", "This is not allowed"),
        errors.InvalidTicket: Kind(401, "invalid-ticket", "The ticket is not valid"),
        errors.RateLimited: Kind(429, "rate-limited", "Too many requests"),
        errors.RequestTooLarge: Kind(413, "request-too-large", "The request is too large"),
        errors.RequestTooSlow: Kind(408, "request-too-slow", "The request did not come whole in time"),
        errors.KeyReused: Kind(422, "key-reused", "The idempotency key was used for another request"),
        errors.KeyInUse: Kind(409, "key-in-use", "The request with this key is being carried out"),
    }
)
"""What each error of the tree is on the API. A class that is not here is what its nearest base is."""

_FIELDS: Final = ("field", "session_id", "state", "verdict", "reason", "spilled", "limit_bytes", "retry_after_seconds")


class InvalidField(BaseModel):
    """One thing that is wrong in a request: where, and what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    message: str


class Problem(BaseModel):
    """A problem (RFC 9457): `type` names its kind for programs, `detail` says to a person what was wrong and what to do."""

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
    instance: str = Field(default="", description="The path that was asked for.")
    field: str | None = Field(default=None, description="The field of the request that is wrong.")
    errors: tuple[InvalidField, ...] | None = Field(default=None, description="All that is wrong in the request.")
    session_id: str | None = None
    state: VoiceSessionState | None = Field(default=None, description="Where the session stands.")
    verdict: PolicyVerdict | None = Field(default=None, description="What the policy said, and what would help.")
    reason: str | None = Field(default=None, description="Why it was refused, for programs.")
    spilled: bool | None = Field(default=None, description="Whether the record is safe in a file beside the store.")
    limit_bytes: int | None = Field(default=None, description="The most bytes that are taken.")
    retry_after_seconds: float | None = Field(default=None, description="When the same request may work.")


def kind_of(error: VoiceError) -> Kind:
    """What this error is on the API."""
    return next(KINDS[base] for base in type(error).__mro__ if base in KINDS)


def problem_of(error: VoiceError, instance: str = "") -> Problem:
    """The problem that this error is, in a reply to a request for the path `instance`."""
    kind = kind_of(error)
    fields = {name: value for name in _FIELDS if (value := getattr(error, name, None)) is not None}
    return _problem(kind, instance, kind.says if kind.says is not None else str(error), **fields)


def reply(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response. What was sent and is told again, a path or a name, is told without tokens."""
    found = dict(headers or {})
    if problem.retry_after_seconds is not None:
        found["Retry-After"] = str(ceil(problem.retry_after_seconds))
    body = without_secrets(problem.model_dump_json(exclude_none=True))
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=found)


def reply_to_error(error: Exception, instance: str) -> Response:
    """The response to a request that ended in `error`, whatever it is."""
    if isinstance(error, VoiceError):
        kind = kind_of(error)
        if kind.says is not None:
            log.error("request_failed", path=instance, error=f"{type(error).__name__}: {error}")
        headers = {"WWW-Authenticate": error.challenge} if isinstance(error, errors.Unauthenticated) else {}
        return reply(problem_of(error, instance), headers)
    log.error("request_failed", path=instance, exc_info=error)
    return reply(_problem(KINDS[VoiceError], instance, KINDS[VoiceError].says or ""))


async def on_voice_error(request: Request, error: Exception) -> Response:
    """The reply to an error of ours."""
    return reply_to_error(error, request.url.path)


async def on_http_error(request: Request, error: Exception) -> Response:
    """The reply where the framework says no: there is no such path, the path has no such method, the body can't be read."""
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # the framework could not read the body
        problem = _problem(KINDS[errors.InvalidRequest], request.url.path, "the body is not JSON", field="body")
        return reply(problem)
    name = status.phrase.lower().replace(" ", "-").replace("'", "")
    detail = {404: "there is nothing at this path", 405: "this path does not have this method"}
    kind = Kind(status.value, name, status.phrase)
    return reply(_problem(kind, request.url.path, detail.get(status.value, status.description)), error.headers)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """The reply to a request that is not of the form that its path asks for. What was sent is not repeated."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    found = tuple(InvalidField(field=_place(item["loc"]), message=_message(item)) for item in error.errors())
    detail = "; ".join(f"{item.field}: {item.message}" for item in found)
    problem = _problem(KINDS[errors.InvalidRequest], request.url.path, detail, field=found[0].field, errors=found)
    return reply(problem)


def _problem(kind: Kind, instance: str, detail: str, **fields: Any) -> Problem:
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
