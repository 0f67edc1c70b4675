"""Sessions over HTTP: what a program that streams needs of the API. The whole of it is in `/openapi.json`."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import anyio
import httpx2

from agentos.core.communication.voice.client.stream import (
    PATIENCE_SECONDS,
    RING_SECONDS,
    VoiceStream,
    connect_stream,
)
from agentos.core.communication.voice.errors import RequestRefused
from machines.stream.messages import StreamFormat

URN: Final = "urn:agentos-voice:problem:"
FINISHING: Final = "recording-finishing"
RECORDING_PATIENCE_SECONDS: Final = 60.0
TIMEOUTS: Final = httpx2.Timeout(60, connect=10)  # a stop takes as long as its deadlines


class VoiceClient:
    """The sessions of a server at `base_url`, as whoever has `token`; None where the server asks nobody who they are.

    Sessions are the API's JSON objects. Every method raises `RequestRefused`, and `httpx2.TransportError` when the
    server can't be reached. Use it in an `async with`, or end with `aclose`.
    """

    def __init__(self, base_url: str, token: str | None = None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUTS)
        # A stream is opened with its ticket, not with the token, and each has a connection.
        self._plain = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None))
        self._stream_url = f"{base_url.rstrip('/').replace('http', 'ws', 1)}/v1/stream"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections, also those of its streams."""
        await self._http.aclose()
        await self._plain.aclose()

    async def create_session(
        self,
        project_id: str,
        *,
        provider: str = "local",
        stt_provider: str = "pocketsphinx",
        metadata: Mapping[str, Any] | None = None,
        audio_format: Mapping[str, Any] | None = None,
        resumable: bool = False,
        silence_timeout_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Open a session. With an `idempotency_key` it can be asked for again and is made once.

        It ends when nobody speaks for `silence_timeout_seconds`; None leaves that to the server's settings.
        """
        body: dict[str, Any] = {
            "project_id": project_id,
            "provider": provider,
            "stt_provider": stt_provider,
            "metadata": dict(metadata or {}),
            "resumable": resumable,
        }
        if silence_timeout_seconds is not None:
            body["silence_timeout_seconds"] = silence_timeout_seconds
        if audio_format is not None:
            body["audio_format"] = dict(audio_format)
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return await self._asked("POST", "/v1/sessions", json=body, headers=headers)

    async def get_session(self, session_id: str) -> dict[str, Any]:
        """The session as it is now."""
        return await self._asked("GET", _path(session_id))

    async def stop_session(self, session_id: str) -> dict[str, Any]:
        """Stop a session; it has stopped when this returns."""
        return await self._asked("POST", f"{_path(session_id)}/stop")

    async def recording(
        self, session_id: str, *, patience_seconds: float = RECORDING_PATIENCE_SECONDS
    ) -> AsyncGenerator[bytes]:
        """The file of a session's recording, FLAC or WAV, piece by piece, once it is there.

        While the server finishes it, this waits, up to `patience_seconds`. After that `RequestRefused` has the name
        `recording-finishing`; without a recording it has `no-recording`.
        """
        deadline = anyio.current_time() + patience_seconds
        while True:
            async with self._http.stream("GET", f"{_path(session_id)}/recording") as response:
                if response.is_success:
                    async for piece in response.aiter_bytes():
                        yield piece
                    return
                await response.aread()
                refused = _refused(response)
            wait_seconds = refused.retry_after_seconds or 1
            if refused.name != FINISHING or anyio.current_time() + wait_seconds > deadline:
                raise refused
            await anyio.sleep(wait_seconds)

    async def ticket(self, session_id: str) -> str:
        """What opens the stream of a session, once, within a minute."""
        answer = await self._asked("POST", f"{_path(session_id)}/stream-tickets")
        return str(answer["ticket"])

    def stream(
        self,
        session_id: str,
        *,
        formats: Sequence[StreamFormat] = (StreamFormat("pcm_s16le", 16_000),),
        ring_seconds: float = RING_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> AbstractAsyncContextManager[VoiceStream]:
        """The stream of a session; see `connect_stream`."""

        async def ticket() -> str:
            return await self.ticket(session_id)

        return connect_stream(
            self._stream_url,
            ticket_source=ticket,
            formats=formats,
            ring_seconds=ring_seconds,
            patience_seconds=patience_seconds,
            http=self._plain,
        )

    async def _asked(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = await self._http.request(method, path, **options)
        if response.is_success:
            return _object(response)
        raise _refused(response)


def _object(response: httpx2.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    return answer if isinstance(answer, dict) else {}


def _refused(response: httpx2.Response) -> RequestRefused:
    found = _object(response)
    name = str(found.get("type", "")).removeprefix(URN) or response.reason_phrase
    return RequestRefused(response.status_code, name, found)


def _path(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"
