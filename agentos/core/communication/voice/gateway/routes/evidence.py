"""Evidence: the records of a session, and the verification of the chain."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.gateway.access.control import Permission, Principal, requires
from agentos.core.communication.voice.gateway.documentation import refusals
from agentos.core.communication.voice.gateway.routes.dependencies import Service, SessionId
from agentos.core.communication.voice.gateway.routes.verification import Verifications
from agentos.core.communication.voice.gateway.views import EvidencePageView, LinkView, VerificationView
from machines.heads import HEAD_PATTERN, read_head
from machines.stream.messages import LAST_NUMBER

PAGE: Final = 100
LARGEST_PAGE: Final = 1000

MOST_HEADS: Final = 100

router = APIRouter(prefix="/v1", tags=["evidence"])

Examiner = Annotated[Principal, Depends(requires(Permission.EVIDENCE))]


class EvidenceFilter(BaseModel):
    """The requested records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: int = Field(default=0, ge=0, le=LAST_NUMBER, description="Only records behind this place of the chain.")
    limit: int = Field(default=PAGE, ge=1, le=LARGEST_PAGE, description="How many at most.")


class NotedHeads(BaseModel):
    """The noted heads to compare the chain with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: tuple[Annotated[str, Field(pattern=HEAD_PATTERN)], ...] = Field(
        default=(), max_length=MOST_HEADS, description="A noted head, PLACE:HASH; may be repeated."
    )

    @field_validator("head")
    @classmethod
    def _heads(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            read_head(text)
        return texts


@router.get(
    "/sessions/{session_id}/evidence",
    operation_id="get_session_evidence",
    summary="The evidence of a session",
    responses=refusals(SessionNotFound),
)
async def get_session_evidence(
    session_id: SessionId, wanted: Annotated[EvidenceFilter, Query()], service: Service, _: Examiner
) -> EvidencePageView:
    """The session's records in the order of the chain, each with its place and hashes. A request that the policy refused has
    records too, under an id that no session has. Refusals at the server's door have the id `gateway`."""
    found = await service.evidence(session_id, wanted.after, limit=wanted.limit + 1)
    if not found and not await service.evidence(session_id, limit=1):
        raise SessionNotFound(session_id)
    links = tuple(LinkView.of(link) for link in found[: wanted.limit])
    return EvidencePageView(
        session_id=session_id,
        links=links,
        last_seq=links[-1].seq if links else wanted.after,
        more=len(found) > wanted.limit,
    )


@router.get(
    "/evidence/verification",
    operation_id="verify_evidence",
    summary="Verify the whole evidence chain, and what is stored beside it",
)
async def verify_evidence(
    noted: Annotated[NotedHeads, Query()], request: Request, service: Service, _: Examiner
) -> VerificationView:
    """Walk along the chain from its first record to its last, and check whether it goes on from the noted heads; then compare
    stored sessions, events and recordings with their records. That takes two seconds for some ten thousand records. Requests
    that come during one verification share the next."""
    verifications: Verifications = request.app.state.verifications
    heads = [read_head(text) for text in noted.head]
    return VerificationView.of(*await verifications.next(service, heads))
