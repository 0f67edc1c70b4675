"""Sessions: create, look at, list, stop."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos.core.communication.voice.errors import (
    EvidenceNotDurable,
    EvidenceUnavailable,
    InvalidState,
    KeyInUse,
    PolicyDenied,
    SessionNotFound,
    StopNotConfirmed,
)
from agentos.core.communication.voice.gateway.access.control import Permission, Principal, access_of, requires
from agentos.core.communication.voice.gateway.documentation import refusals
from agentos.core.communication.voice.gateway.problems import Problem, problem_of
from agentos.core.communication.voice.gateway.routes.cursors import MAX_CURSOR, cursor_of, key_of
from agentos.core.communication.voice.gateway.routes.dependencies import (
    Reader,
    Service,
    SessionId,
    no_body,
    no_query,
    visible_session,
)
from agentos.core.communication.voice.gateway.routes.repeats import IdempotencyKey, answered_once
from agentos.core.communication.voice.gateway.views import NewSession, SessionPageView, SessionView, StoppedView
from agentos.core.communication.voice.running.request import MAX_PROJECT_ID
from machines.session import VoiceSessionState

PAGE: Final = 50
LARGEST_PAGE: Final = 500

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

Creator = Annotated[Principal, Depends(requires(Permission.CREATE))]
Stopper = Annotated[Principal, Depends(requires(Permission.STOP))]


class SessionFilter(BaseModel):
    """The requested sessions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project_id: str | None = Field(
        default=None, max_length=MAX_PROJECT_ID, description="Only sessions of this project."
    )
    state: VoiceSessionState | None = Field(default=None, description="Only sessions in this state.")
    limit: int = Field(default=PAGE, ge=1, le=LARGEST_PAGE, description="How many at most.")
    cursor: str | None = Field(default=None, max_length=MAX_CURSOR, description="The `next_cursor` of the page before.")


@router.post(
    "",
    status_code=201,
    operation_id="create_session",
    summary="Open a session",
    dependencies=[Depends(no_query)],
    response_model=SessionView,
    responses=refusals(PolicyDenied, EvidenceUnavailable, KeyInUse),
)
async def create_session(
    body: NewSession, request: Request, service: Service, principal: Creator, idempotency_key: IdempotencyKey = None
) -> Response:
    """Open a session. The answer comes when its creation is durable in evidence.

    A refusal of the policy is a problem with the `verdict`, which says what would help; evidence has the refusal under the
    problem's `session_id`.
    """
    access_of(request).project(principal, body.project_id, request)

    async def carry_out() -> Response:
        session = await service.create_session(
            body.project_id,
            body.provider,
            body.stt_provider,
            body.metadata,
            audio_format=body.audio_format,
            admin_token=None if body.admin_token is None else body.admin_token.get_secret_value(),
            resumable=body.resumable,
            silence_timeout_seconds=body.silence_timeout_seconds,
            stt_options=body.stt_options,
        )
        location = f"{request.scope.get('root_path', '')}{router.prefix}/{session.session_id}"
        return _response(SessionView.of(session), 201, {"Location": location})

    return await answered_once(request, principal, idempotency_key, carry_out)


@router.get("", operation_id="list_sessions", summary="List sessions, newest first")
async def list_sessions(
    wanted: Annotated[SessionFilter, Query()], request: Request, service: Service, principal: Reader
) -> SessionPageView:
    """Running and stopped sessions of every process of this home.

    A page ends with a cursor for the next page. Sessions that begin or end meanwhile do not shift the pages.
    """
    project_id = access_of(request).project(principal, wanted.project_id, request)
    below = None if wanted.cursor is None else key_of(wanted.cursor)
    page = await service.session_page(project_id, wanted.state, limit=wanted.limit, below=below)
    return SessionPageView(
        sessions=tuple(SessionView.of(session) for session in page.sessions),
        next_cursor=None if page.next is None else cursor_of(page.next),
    )


@router.get(
    "/{session_id}",
    operation_id="get_session",
    summary="A session as it is now",
    dependencies=[Depends(no_query)],
    responses=refusals(SessionNotFound),
)
async def get_session(session_id: SessionId, request: Request, service: Service, principal: Reader) -> SessionView:
    """The session, running or stopped."""
    return SessionView.of(await visible_session(request, service, principal, session_id))


@router.post(
    "/{session_id}/stop",
    operation_id="stop_session",
    summary="Stop a session",
    dependencies=[Depends(no_query), Depends(no_body)],
    response_model=StoppedView,
    responses={
        202: {
            "model": StoppedView,
            "description": "The session has stopped; its final record is not in the store yet.",
        },
        **refusals(SessionNotFound, InvalidState, StopNotConfirmed),
    },
)
async def stop_session(
    session_id: SessionId,
    request: Request,
    service: Service,
    principal: Stopper,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """End a session: accepted audio is recorded and transcribed first, within the drain deadline.

    A stop is never refused, and a second stop changes nothing. A session of another process can't be stopped here.
    """
    before = await visible_session(request, service, principal, session_id)

    async def carry_out() -> Response:
        problem: Problem | None = None
        snapshot = service.snapshots(session_id)
        try:
            if not await service.stop_session(session_id):
                raise InvalidState(session_id, before.state, "another process runs it, or died")
        except EvidenceNotDurable as error:
            problem = problem_of(error, request.url.path)
        # A draining service ends with its last session, and answers no more.
        after = snapshot() or await service.get_session(session_id)
        stopped = StoppedView(session=SessionView.of(after or before), durable=problem is None, problem=problem)
        return _response(stopped, 200 if problem is None else problem.status)

    return await answered_once(request, principal, idempotency_key, carry_out)


def _response(view: BaseModel, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(view.model_dump_json(), status, headers, media_type="application/json")
