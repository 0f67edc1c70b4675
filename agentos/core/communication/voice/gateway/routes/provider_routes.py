"""What providers bring for the gateway: the routes of a transport, below `/v1/providers/NAME`.

A provider is asked for its routes when somebody first comes for them, so that one that is installed is loaded no sooner.
"""

from typing import Final

from starlette.exceptions import HTTPException
from starlette.routing import Mount, Router
from starlette.types import Receive, Scope, Send

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.logs import logger

PREFIX: Final = "/v1/providers"
REFUSED: Final = 1008  # a WebSocket that is closed before it was accepted is answered with 403

log = logger(__name__)


class ProviderRoutes:
    """Hands requests and WebSockets on to the routes of the provider that their path names."""

    def __init__(self, service: AsyncVoiceService) -> None:
        self._service = service
        self._routers: dict[str, Router] = {}

    def mounted(self) -> Mount:
        """All of it as one route of the app."""
        return Mount(f"{PREFIX}/{{provider}}", app=self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request. Raises what its problem is, but for a WebSocket, which is refused."""
        name = scope["path_params"]["provider"]
        try:
            router = self._router(name)
        except (VoiceError, HTTPException) as error:
            if scope["type"] != "websocket":
                raise
            log.warning("provider_stream_refused", provider=name, problem=str(error))
            await receive()
            await send({"type": "websocket.close", "code": REFUSED, "reason": ""})
            return
        await router(scope, receive, send)

    def _router(self, name: str) -> Router:
        """The provider's routes. Raises 404 where there are none, and why a provider can't be used."""
        transport = self._service.transport(name) if name in self._service.provider_names() else None
        if transport is None:
            raise HTTPException(404)
        router = self._routers.get(name)
        if router is None:
            router = self._routers[name] = Router(transport.routes(self._service), redirect_slashes=False)
        return router
