"""The events of sessions, page by page or live as server-sent events, and their transcripts."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import InvalidRequest, RateLimited, SessionNotFound
from agentos.core.communication.voice.gateway.access.limits import ConnectionLimit
from agentos.core.communication.voice.gateway.access.token_watch import TokenWatch
from agentos.core.communication.voice.gateway.documentation import refusals
from agentos.core.communication.voice.gateway.routes import event_stream
from agentos.core.communication.voice.gateway.routes.dependencies import (
    Reader,
    Service,
    SessionId,
    no_query,
    visible_session,
)
from agentos.core.communication.voice.gateway.routes.event_stream import EventStream
from agentos.core.communication.voice.gateway.views import EventPageView, TranscriptView
from machines.session import VoiceSessionState
from machines.stream.messages import LAST_NUMBER

PAGE: Final = 100
LARGEST_PAGE: Final = 1000

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


class EventFilter(BaseModel):
    """The requested events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: int = Field(default=0, ge=0, le=LAST_NUMBER, description="Only events with a higher number.")
    limit: int = Field(default=PAGE, ge=1, le=LARGEST_PAGE, description="How many at most; a live stream has no limit.")


@router.get(
    "/{session_id}/events",
    operation_id="get_session_events",
    summary="The events of a session",
    response_model=EventPageView,
    responses={
        200: {
            "description": "A page of stored events; or, with `Accept: text/event-stream`, all of them and then those to come.",
            "content": {event_stream.MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        204: {"description": "To `Accept: text/event-stream`: the session has stopped, and nothing follows."},
        **refusals(SessionNotFound, RateLimited),
    },
)
async def get_session_events(
    session_id: SessionId,
    wanted: Annotated[EventFilter, Query()],
    request: Request,
    service: Service,
    principal: Reader,
    last_event_id: Annotated[
        str | None,
        Header(max_length=20, description="The last event that the stream's reader saw; goes before `after`."),
    ] = None,
) -> Any:
    """The session's stored events, in order. Partial results and levels are only sent live, and are not stored.

    With `Accept: text/event-stream` they come as server-sent events: all stored events behind `after`, and then new ones until
    the session has stopped or the token is no longer valid. A reader that was cut off comes back with `Last-Event-ID`, as
    browsers do. The setting `max_event_streams_per_token` bounds the streams of one token.
    """
    session = await visible_session(request, service, principal, session_id)
    if event_stream.MEDIA_TYPE in request.headers.get("accept", ""):
        after = wanted.after if last_event_id is None else _number(last_event_id)
        if session.state is VoiceSessionState.STOPPED and not await service.kept_events(session_id, after, limit=1):
            return Response(status_code=204)
        streams: ConnectionLimit = request.app.state.event_streams
        watch: TokenWatch = request.app.state.token_watch
        return EventStream(
            _live(service, session_id, after),
            place=streams.counted(principal.token_id),
            allowed=partial(watch.open_for, principal.token_id),
        )
    found = await service.kept_events(session_id, wanted.after, limit=wanted.limit + 1)
    events = tuple(found[: wanted.limit])
    return EventPageView(
        session_id=session_id,
        events=events,
        last_number=events[-1].number if events else wanted.after,
        more=len(found) > wanted.limit,
    )


@router.get(
    "/{session_id}/transcript",
    operation_id="get_session_transcript",
    summary="The transcript of a session",
    dependencies=[Depends(no_query)],
    responses=refusals(SessionNotFound),
)
async def get_session_transcript(
    session_id: SessionId, request: Request, service: Service, principal: Reader
) -> TranscriptView:
    """The finished utterances with their times, and the text: so far, or of the whole session if it has stopped."""
    await visible_session(request, service, principal, session_id)
    return TranscriptView.model_validate(await service.transcript(session_id), from_attributes=True)


def _number(last_event_id: str) -> int:
    if not (last_event_id.isascii() and last_event_id.isdecimal() and int(last_event_id) <= LAST_NUMBER):
        raise InvalidRequest("Last-Event-ID must be the number of an event", field="Last-Event-ID")
    return int(last_event_id)


async def _live(service: AsyncVoiceService, session_id: str, after: int) -> AsyncGenerator[bytes]:
    async with aclosing(service.events(session_id, after)) as events:
        async for event in events:
            yield event_stream.written(event.model_dump_json(), event=event.event_type.value, number=event.number)
