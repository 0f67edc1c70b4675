"""The API of a server for Python programs, under the names of the service. The whole of it is in `/openapi.json`."""

import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
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
PAGE: Final = 500  # of sessions, events or records in one request
MOST_LINKS: Final = 1_000  # of one request for evidence, if nothing else is asked for
DATA: Final = "data: "  # what a line of a server-sent event begins with that has it
TIMEOUTS: Final = httpx2.Timeout(60, connect=10)  # a stop takes as long as its deadlines

JSON = dict[str, Any]


class VoiceClient:
    """The sessions of a server at `base_url`, as whoever has `token`; None where the server asks nobody who they are.

    What it returns are the API's JSON objects. Every method raises `RequestRefused`, and `httpx2.TransportError` when the
    server can't be reached. Use it in an `async with`, or end with `aclose`.
    """

    def __init__(self, base_url: str, token: str | None = None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUTS)
        # Streams are opened with tickets, not with the token, and each needs a connection.
        self._plain = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None))
        self._stream_url = f"{base_url.rstrip('/').replace('http', 'ws', 1)}/v1/stream"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client's connections, including those of its streams."""
        await self._http.aclose()
        await self._plain.aclose()

    # The names and arguments are those of `AsyncVoiceService`.

    async def create_session(  # noqa: PLR0913 - as many as the service takes, and a key
        self,
        project_id: str,
        provider: str = "local",
        stt_provider: str = "pocketsphinx",
        metadata: Mapping[str, Any] | None = None,
        *,
        audio_format: Mapping[str, Any] | None = None,
        admin_token: str | None = None,
        resumable: bool = False,
        silence_timeout_seconds: float | None = None,
        stt_options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> JSON:
        """Open a session. With an `idempotency_key` it can be asked for again and is made once.

        It ends when nobody speaks for `silence_timeout_seconds`; None leaves that to the server's settings. `stt_options` is
        what is asked of the engine.
        """
        body = _request(project_id, provider, stt_provider, metadata, admin_token)
        body["resumable"] = resumable
        if stt_options:
            body["stt_options"] = dict(stt_options)
        if silence_timeout_seconds is not None:
            body["silence_timeout_seconds"] = silence_timeout_seconds
        if audio_format is not None:
            body["audio_format"] = dict(audio_format)
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return await self._asked("POST", "/v1/sessions", json=body, headers=headers)

    async def evaluate_request(
        self,
        project_id: str,
        provider: str = "local",
        stt_provider: str = "pocketsphinx",
        metadata: Mapping[str, Any] | None = None,
        *,
        admin_token: str | None = None,
    ) -> JSON:
        """What the policy would say to `create_session` with these arguments: `allowed`, the `explanation`, the `verdict`.
        Nothing is made."""
        body = _request(project_id, provider, stt_provider, metadata, admin_token)
        return await self._asked("POST", "/v1/policy/explanations", json=body)

    async def get_session(self, session_id: str) -> JSON:
        """The session as it is now."""
        return await self._asked("GET", _path(session_id))

    async def stop_session(self, session_id: str) -> JSON:
        """Stop a session, and return it once it has stopped."""
        return await self._asked("POST", f"{_path(session_id)}/stop")

    async def list_sessions(self, project_id: str | None = None, state: str | None = None) -> list[JSON]:
        """All sessions, newest first; of one project or in one state if given."""
        found: list[JSON] = []
        below: str | None = None
        while True:
            page = await self.session_page(project_id, state, limit=PAGE, below=below)
            found += page["sessions"]
            below = page["next_cursor"]
            if below is None:
                return found

    async def session_page(
        self, project_id: str | None = None, state: str | None = None, *, limit: int, below: str | None = None
    ) -> JSON:
        """At most `limit` of what `list_sessions` has, as `sessions`, from behind `below` on, which is the `next_cursor` of the
        page before."""
        wanted = {"project_id": project_id, "state": state, "limit": limit, "cursor": below}
        return await self._asked("GET", "/v1/sessions", params=_given(wanted))

    async def events(self, session_id: str, after: int = 0) -> AsyncGenerator[JSON]:
        """The events of a session with a number above `after`, then new ones as they come, until it has stopped.

        A connection that breaks raises `httpx2.TransportError`; `after` the last number it goes on.
        """
        path, headers = f"{_path(session_id)}/events", {"Accept": "text/event-stream"}
        async with self._http.stream("GET", path, params={"after": after}, headers=headers) as response:
            if not response.is_success:
                await response.aread()
                raise _refused(response)
            async for line in response.aiter_lines():
                if line.startswith(DATA):
                    yield json.loads(line.removeprefix(DATA))

    async def kept_events(self, session_id: str, after: int = 0, *, limit: int | None = None) -> list[JSON]:
        """The events of a session above number `after` that were told until now, without partial results and levels; at most
        `limit`."""
        return await self._paged(f"{_path(session_id)}/events", "events", "last_number", after, limit)

    async def transcript(self, session_id: str) -> JSON:
        """The transcript of a session so far: `text`, `utterances` with their times, and whether it is `complete`."""
        return await self._asked("GET", f"{_path(session_id)}/transcript")

    async def evidence(self, session_id: str, after: int = 0, *, limit: int = MOST_LINKS) -> list[JSON]:
        """At most `limit` evidence records of a session, or of a refused request, behind place `after` of the chain, in order,
        each with its place and hashes."""
        return await self._paged(f"{_path(session_id)}/evidence", "links", "last_seq", after, limit)

    async def examine_evidence(self, heads: Collection[str] = ()) -> JSON:
        """Walk along the whole chain, and say of noted heads (`PLACE:HASH`) whether it goes on from them; then hold against it
        what is stored beside it."""
        return await self._asked("GET", "/v1/evidence/verification", params={"head": list(heads)})

    async def statistics(self) -> JSON:
        """How the service is at this moment."""
        return await self._asked("GET", "/v1/statistics")

    async def begin_drain(self) -> JSON:
        """Have the service take no new calls, and end when those that run have ended or had their time."""
        return await self._asked("POST", "/v1/drain")

    async def recording(
        self, session_id: str, *, patience_seconds: float = RECORDING_PATIENCE_SECONDS
    ) -> AsyncGenerator[bytes]:
        """The file of a session's recording, FLAC or WAV, piece by piece.

        Waits up to `patience_seconds` while the server finishes the file. After that it raises `RequestRefused` with the name
        `recording-finishing`; without a recording, with `no-recording`.
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

    async def create_stream_ticket(self, session_id: str) -> JSON:
        """What opens the stream of a session, once, within a minute: the `ticket`, and the `url` of the stream."""
        return await self._asked("POST", f"{_path(session_id)}/stream-tickets")

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
            return str((await self.create_stream_ticket(session_id))["ticket"])

        return connect_stream(
            self._stream_url,
            ticket_source=ticket,
            formats=formats,
            ring_seconds=ring_seconds,
            patience_seconds=patience_seconds,
            http=self._plain,
        )

    async def _paged(self, path: str, items: str, last: str, after: int, limit: int | None) -> list[JSON]:
        """What lies behind `after`, page by page; at most `limit`."""
        found: list[JSON] = []
        while limit is None or len(found) < limit:
            most = PAGE if limit is None else min(PAGE, limit - len(found))
            page = await self._asked("GET", path, params={"after": after, "limit": most})
            found += page[items]
            after = page[last]
            if not page["more"]:
                break
        return found

    async def _asked(self, method: str, path: str, **options: Any) -> JSON:
        response = await self._http.request(method, path, **options)
        if response.is_success:
            return _object(response)
        raise _refused(response)


def _request(
    project_id: str,
    provider: str,
    stt_provider: str,
    metadata: Mapping[str, Any] | None,
    admin_token: str | None,
) -> JSON:
    """A request for a session, as far as the policy looks at it."""
    body = {
        "project_id": project_id,
        "provider": provider,
        "stt_provider": stt_provider,
        "metadata": dict(metadata or {}),
    }
    return body if admin_token is None else {**body, "admin_token": admin_token}


def _given(wanted: JSON) -> JSON:
    return {name: value for name, value in wanted.items() if value is not None}


def _object(response: httpx2.Response) -> JSON:
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
