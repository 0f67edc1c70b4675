"""The JSON Schema of the browser stream's messages, for authors of other clients."""

from typing import Any

from fastapi import APIRouter, Depends

from agentos.core.communication.voice.gateway.access.control import checked
from machines.stream.messages import json_schema

router = APIRouter(prefix="/v1/schemas", tags=["sessions"])


@router.get(
    "/stream.json",
    operation_id="get_stream_schema",
    summary="The JSON Schema of the browser stream's messages",
    dependencies=[Depends(checked)],
)
async def get_stream_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of every text message of the sub-protocol `agentos-voice.v1`, both ways. Open to everybody."""
    return json_schema()
