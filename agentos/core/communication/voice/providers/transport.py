"""What a provider may bring to carry calls itself: routes for the gateway, legs, and a sink for audio to the caller.

A leg is the provider's own half of a call, as a telephone line. The service has it opened and hung up; what it guarantees:

- `open_leg` is called once for each session of the provider that this process created, when its creation is durable, and for
  no other: neither for a session that was refused, nor for one that is resumed, whose leg may still be up. One that raises, or
  takes longer than `leg_timeout_seconds`, ends its session as `failed`.
- `hang_up` is called once for each session of the provider that ends in this process, when it is STOPPED: also when `open_leg`
  failed, was cut short by the end of the session, or had been called by a process that died. Only a session that ends before
  its leg was begun has none.
- No end of a session waits for a leg. `hang_up` has `leg_timeout_seconds`. Its error, or its being late, is in the log and in
  evidence (`leg_failed`, under an id of its own, `leg-…`); it is not called again.
- The service ends when every `hang_up` has ended. A process that is killed hangs nothing up, and one that is cut off by a
  second Ctrl-C says in the log and in evidence what it left.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from machines.session import EndReason, STTProvider, VoiceProvider, VoiceSession

if TYPE_CHECKING:
    from starlette.routing import BaseRoute


class TransportService(Protocol):
    """What the routes of a transport ask of the service; see `AsyncVoiceService`, which it is."""

    async def create_session(
        self,
        project_id: str,
        provider: VoiceProvider | str,
        stt_provider: STTProvider | str,
        metadata: Mapping[str, Any] | None = None,
    ) -> VoiceSession:
        """Open a session for a call that came."""

    async def dispatch_audio_chunk(self, session_id: str, audio_data: bytes) -> None:
        """Hand over audio of the caller."""

    async def stop_session(self, session_id: str, *, caller_gone: bool = False) -> bool:
        """End a session."""

    async def get_session(self, session_id: str) -> VoiceSession | None:
        """A session as it is now."""


class AudioSink(Protocol):
    """Where audio to one caller goes: mono, signed 16 bit little-endian, at `sample_rate`."""

    @property
    def sample_rate(self) -> int:
        """Samples a second."""

    async def send(self, pcm: bytes) -> None:
        """Have these samples played behind those that wait; returns when more can be taken. Raises `OSError` when the leg is
        gone."""

    async def clear(self) -> None:
        """Forget what was not played yet."""


class Transport:
    """How the calls of one provider are carried. What a provider does not need it leaves as it is here.

    All methods are called in the loop of the service, and must not hold it.
    """

    def routes(self, service: TransportService) -> "Sequence[BaseRoute]":  # noqa: ARG002 - for those that have some
        """Routes (Starlette's) that the gateway serves below `/v1/providers/NAME`, asked for once for each app.

        They are open to everybody: no token of ours is asked for, so each has to check who calls. The gateway's limits on the
        size and time of a request hold for them.
        """
        return ()

    async def open_leg(self, session: VoiceSession) -> None:
        """Have the far end of a session called. Returns when it was asked to ring, without waiting for an answer. Cancelled
        when the session ends meanwhile."""

    async def hang_up(self, session: VoiceSession, reason: EndReason) -> None:
        """End the leg of a session, which has stopped for `reason`; nothing where there is none. Returns when it is known to
        have ended."""

    def audio_sink(self, session_id: str) -> AudioSink | None:  # noqa: ARG002 - for those that have one
        """Where audio to the caller of this session goes; None where it can't be sent any, now or at all."""
        return None
