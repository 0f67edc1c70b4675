"""Tickets for the browser stream: a page gets a ticket instead of a token."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request

from agentos.core.communication.voice.errors import InvalidState, Overloaded, SessionNotFound
from agentos.core.communication.voice.gateway.access.control import Permission, Principal, access_of, requires
from agentos.core.communication.voice.gateway.documentation import refusals
from agentos.core.communication.voice.gateway.routes.dependencies import (
    Service,
    SessionId,
    no_body,
    no_query,
    visible_session,
)
from agentos.core.communication.voice.gateway.views import TicketView

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
    never in a URL. It can't be read again."""
    session = await visible_session(request, service, principal, session_id)
    issued = service.stream_tickets.issue_for(session, principal.token_id)
    scheme = "wss" if access_of(request).securely(request) else "ws"
    return TicketView(
        ticket=issued.ticket,
        expires_at=issued.expires_at,
        url=f"{scheme}://{request.url.netloc}{request.scope.get('root_path', '')}{STREAM_PATH}",
    )
