"""The policy's verdict on a session, on a refused request, and on a request that is only explained."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.gateway.access.control import Permission, Principal, access_of, requires
from agentos.core.communication.voice.gateway.documentation import refusals
from agentos.core.communication.voice.gateway.routes.dependencies import (
    Reader,
    Service,
    SessionId,
    no_query,
    visible_session,
)
from agentos.core.communication.voice.gateway.views import PolicyQuestion, VerdictView
from machines.communication import PolicyVerdict, RequestStatus
from machines.evidence import EvidenceRecord
from machines.operations import SESSION_DENIED

router = APIRouter(prefix="/v1", tags=["policy"])

Asker = Annotated[Principal, Depends(requires(Permission.EXPLAIN))]


@router.get(
    "/sessions/{session_id}/verdict",
    operation_id="get_session_verdict",
    summary="The policy's verdict on a session",
    dependencies=[Depends(no_query)],
    responses=refusals(SessionNotFound),
)
async def get_session_verdict(
    session_id: SessionId, request: Request, service: Service, principal: Reader
) -> VerdictView:
    """The verdict under which the session was opened, or the refusal that stands in evidence under this id."""
    try:
        session = await visible_session(request, service, principal, session_id)
    except SessionNotFound:
        refused = await _refusal(service, session_id)
        if refused is None or not principal.sees(str(refused.request_summary.get("project_id"))):
            raise
        said: dict[str, Any] = refused.response_summary or {}
        verdict = PolicyVerdict(
            status=refused.status,
            reason_code=str(said.get("refused", "")),
            hint=str(said.get("hint", "")),
            metadata={"risk_level": refused.metadata.get("risk_tier")},
        )
        return _view(session_id, verdict)
    return _view(session_id, session.policy_verdict)


@router.post(
    "/policy/explanations",
    operation_id="explain_policy",
    summary="The policy's verdict on a possible request",
    dependencies=[Depends(no_query)],
)
async def explain_policy(body: PolicyQuestion, request: Request, service: Service, principal: Asker) -> VerdictView:
    """The policy's verdict on a request for a session, and the reasons. No session is made, and no evidence is written."""
    access_of(request).project(principal, body.project_id, request)
    verdict = await service.evaluate_request(
        body.project_id,
        body.provider,
        body.stt_provider,
        body.metadata,
        admin_token=None if body.admin_token is None else body.admin_token.get_secret_value(),
    )
    return _view(None, verdict)


async def _refusal(service: AsyncVoiceService, session_id: str) -> EvidenceRecord | None:
    first = await service.evidence(session_id, limit=1)
    return first[0].record if first and first[0].record.operation == SESSION_DENIED else None


def _view(session_id: str | None, verdict: PolicyVerdict) -> VerdictView:
    facts = verdict.metadata
    return VerdictView(
        session_id=session_id,
        allowed=verdict.status is RequestStatus.APPROVED,
        risk_level=facts.get("risk_level"),
        factors=tuple(facts.get("factors", ())),
        admin_token_required=facts.get("admin_token_required"),
        admin_token_valid=facts.get("admin_token_valid"),
        explanation=verdict.hint,
        verdict=verdict,
    )
