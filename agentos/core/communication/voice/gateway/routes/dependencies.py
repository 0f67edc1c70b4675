"""The dependencies of the routes: the service, the principal, the session in the path, and refusing unknown input."""

from typing import Annotated, Final

from fastapi import Body, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.gateway.access.control import Permission, Principal, access_of, requires
from machines.session import VoiceSession

MAX_SESSION_ID: Final = 100  # characters; ours have a third of that


async def service_of(request: Request) -> AsyncVoiceService:
    """The service behind the app of this request."""
    service: AsyncVoiceService = request.app.state.service
    return service


Service = Annotated[AsyncVoiceService, Depends(service_of)]
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
SessionId = Annotated[str, Path(max_length=MAX_SESSION_ID, examples=["voice-4f0c3a9d1e2b5c6d7e8f9a0b"])]


class NoFields(BaseModel):
    """An empty query or an empty object."""

    model_config = ConfigDict(frozen=True, extra="forbid")


async def no_query(nothing: Annotated[NoFields, Query()]) -> None:
    """The dependency of a route without query parameters, which refuses any."""
    del nothing


async def no_body(nothing: Annotated[NoFields | None, Body()] = None) -> None:
    """The dependency of a route without a body, which refuses any field."""
    del nothing


async def visible_session(
    request: Request, service: AsyncVoiceService, principal: Principal, session_id: str
) -> VoiceSession:
    """The session with this id, as it is now. Raises `SessionNotFound`, also if `principal` may not see it."""
    return access_of(request).session(principal, session_id, await service.get_session(session_id), request)
