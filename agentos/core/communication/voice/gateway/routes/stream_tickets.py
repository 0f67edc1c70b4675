"""Tickets for the browser stream: what a page gets instead of a token."""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request

from agentos.core.communication.voice.errors import InvalidState, Overloaded, SessionNotFound
from agentos.core.communication.voice.gateway.access.control import Permission, Principal, access_of, requires
from agentos.core.communication.voice.gateway.access.tickets import LIFETIME_SECONDS, StreamCredentials
from agentos.core.communication.voice.gateway.documentation import refusals
from agentos.core.communication.voice.gateway.routes.dependencies import (
    Service,
    SessionId,
    no_body,
    no_query,
    visible_session,
)
from agentos.core.communication.voice.gateway.views import TicketView
from agentos.core.time import utc_now
from machines.session import VoiceSessionState

STREAM_PATH: Final = "/v1/stream"

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

Streamer = Annotated[Principal, Depends(requires(Permission.STREAM))]


@router.post(
    "/{session_id}/stream-tickets",
    status_code=201,
    operation_id="create_stream_ticket",
    summary="A ticket for the browser stream of a session",
    dependencies=[Depends(no_query), Depends(no_body)],
    responses=refusals(SessionNotFound, InvalidState, Overloaded),
)
async def create_stream_ticket(
    session_id: SessionId, request: Request, service: Service, principal: Streamer
) -> TicketView:
    """A ticket that opens the stream of this session, once, within a minute. Send it in the first message of the WebSocket,
    never in a URL. It is shown this once."""
    session = await visible_session(request, service, principal, session_id)
    if session.state in (VoiceSessionState.STOPPING, VoiceSessionState.STOPPED):
        raise InvalidState(session_id, session.state)
    credentials: StreamCredentials = request.app.state.credentials
    ticket = credentials.ticket(session_id, principal)
    scheme = "wss" if access_of(request).securely(request) else "ws"
    return TicketView(
        ticket=ticket,
        expires_at=utc_now() + timedelta(seconds=LIFETIME_SECONDS),
        url=f"{scheme}://{request.url.netloc}{request.scope.get('root_path', '')}{STREAM_PATH}",
    )
