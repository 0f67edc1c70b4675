"""Health, readiness and drain, for an operator's monitoring and deployment."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from agentos.core.communication.voice.errors import Draining, EvidenceUnavailable, Overloaded, ServiceClosed
from agentos.core.communication.voice.gateway.access.control import Permission, Principal, access_of, checked, requires
from agentos.core.communication.voice.gateway.documentation import refusals
from agentos.core.communication.voice.gateway.routes.dependencies import Service, no_body, no_query
from agentos.core.communication.voice.gateway.views import DrainView, HealthView

router = APIRouter(tags=["operation"])

Drainer = Annotated[Principal, Depends(requires(Permission.DRAIN))]


@router.get(
    "/healthz",
    operation_id="get_health",
    summary="Whether the server is alive",
    dependencies=[Depends(checked)],
)
async def get_health() -> HealthView:
    """The server answers, so the server is alive. Open to everybody."""
    return HealthView(status="ok")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether new calls are taken",
    dependencies=[Depends(checked)],
    responses=refusals(Draining, Overloaded, EvidenceUnavailable, ServiceClosed),
)
async def get_readiness(service: Service) -> HealthView:
    """The service would take a new call now. Answers 503, with a problem that says why, while the service drains, is
    overloaded, or can't record a call. Open to everybody."""
    await service.check_ready()
    return HealthView(status="ok")


@router.post(
    "/v1/drain",
    status_code=202,
    operation_id="drain_service",
    summary="End the service in order",
    dependencies=[Depends(no_query), Depends(no_body)],
)
async def drain_service(request: Request, service: Service, _: Drainer) -> DrainView:
    """Take no new calls from now on. Running calls may end by themselves for `drain_timeout_seconds`; then the service stops
    them, and ends. A second request changes nothing."""
    access_of(request).refusals.write_sum()  # the service takes no evidence after its end
    service.begin_drain()
    return DrainView(draining=True, sessions=service.statistics().sessions)
