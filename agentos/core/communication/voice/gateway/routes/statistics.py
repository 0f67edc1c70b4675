"""The state of the service: figures, a picture of its inside, and metrics for Prometheus."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos.core.communication.voice.async_service import ServiceStatistics
from agentos.core.communication.voice.gateway.access.control import Permission, Principal, requires
from agentos.core.communication.voice.gateway.metrics import MEDIA_TYPE, Metrics
from agentos.core.communication.voice.gateway.routes.dependencies import Service, no_query
from agentos.core.communication.voice.running.inspection import ServicePicture

ACTORS: Final = 100
MOST_ACTORS: Final = 1000  # a hundred milliseconds of the service's loop

router = APIRouter(tags=["operation"])

Watcher = Annotated[Principal, Depends(requires(Permission.STATISTICS))]


class InspectionFilter(BaseModel):
    """The requested extent of the picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most_actors: int = Field(
        default=ACTORS, ge=0, le=MOST_ACTORS, description="At most so many actors, those in the worst trouble first."
    )


@router.get(
    "/v1/statistics",
    operation_id="get_statistics",
    summary="The figures of the service",
    dependencies=[Depends(no_query)],
)
async def get_statistics(service: Service, _: Watcher) -> ServiceStatistics:
    """The counts of running and ended sessions, the load that limits new ones, the actor system, and each port."""
    return service.statistics()


@router.get("/v1/inspection", operation_id="inspect_service", summary="A picture of the inside of the service")
async def inspect_service(wanted: Annotated[InspectionFilter, Query()], service: Service, _: Watcher) -> ServicePicture:
    """Actors with their mail, ages, restarts and timers, dead letters, ports, the lag of the loop. Shows no private data."""
    return service.inspect(wanted.most_actors)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics for Prometheus",
    dependencies=[Depends(no_query)],
    response_class=Response,
    responses={
        200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def get_metrics(request: Request, service: Service, _: Watcher) -> Response:
    """The figures of the service in the text format of Prometheus."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.text(service), media_type=MEDIA_TYPE)
