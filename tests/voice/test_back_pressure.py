"""Where a far end can't be slowed, the oldest audio that waits inside goes first: counted, declared and on record, and the
call goes on."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceService
from agentos.core.communication.voice.errors import Overloaded
from agentos.core.communication.voice.recording.port import MediaPort
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tokens import TokenStore
from machines.session import VoiceSession

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]
PATIENCE = 30  # seconds, for what must come; no test waits so long
FRAME = bytes(640)
BOUND = 50
LIVE = {
    "twilio_account_sid": "AC" + 32 * "0",
    "twilio_auth_token": "a token",
    "twilio_twiml_app_sid": "AP" + 32 * "0",
    "backlog_seconds": BOUND / 50,
    "dispatch_timeout_seconds": 0,
}


class Thread:
    """The media port's thread; while it is held up it deals with nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._free = threading.Event()
        self._free.set()
        deal = MediaPort._deal_with

        def dealt(port: MediaPort, sessions: Any) -> int:
            assert self._free.wait(PATIENCE)
            return deal(port, sessions)

        monkeypatch.setattr(MediaPort, "_deal_with", dealt)

    def hold_up(self) -> None:
        self._free.clear()

    def go_on(self) -> None:
        self._free.set()


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Thread]:
    thread = Thread(monkeypatch)
    yield thread
    thread.go_on()


@pytest.fixture
def token(home: Path) -> str:
    """An admin token: telephone calls that are recorded need one."""
    with open_store(home / "voice.db", busy_timeout_seconds=5) as store:
        return TokenStore(store).create("the tests")


async def create(service: AsyncVoiceService, provider: VoiceProvider, token: str | None = None) -> str:
    session = await service.create_session(
        "project", provider, STTProvider.WHISPER, {"recording_enabled": True}, admin_token=token
    )
    return session.session_id


async def wait_for(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.01)


def losses(records: Records, session_id: str) -> list[dict[str, Any]]:
    """What evidence says of lost audio."""
    return [one["response_summary"] for one in records(session_id) if one["operation"] == "audio_lost"]


def check(ended: VoiceSession | None, accepted: int, given_up: int, said: list[dict[str, Any]]) -> None:
    """The account holds, the recording has its whole length, and one record tells of the run."""
    assert ended is not None
    assert ended.result is not None
    frames, recording = ended.result.frames, ended.result.recording
    assert frames.dropped == {"backlog": given_up}
    assert frames.accepted == accepted == frames.accounted + given_up
    assert recording is not None
    assert recording.samples == accepted * 320
    assert sum(samples for _, samples in recording.gaps) == given_up * 320
    (one,) = said
    assert (one["port"], one["reason"], one["frames"]) == ("media", "backlog", given_up)
    # What the thread already had when it was held up may lie in between, and was kept.
    assert given_up <= one["upto_frame"] - one["first_frame"] <= given_up + BOUND


@pytest.mark.anyio
async def test_a_live_call_is_never_refused_and_its_oldest_audio_goes_first(
    make_settings: MakeSettings, thread: Thread, records: Records, token: str
) -> None:
    async with AsyncVoiceService(make_settings(**LIVE)) as service:
        session_id = await create(service, VoiceProvider.TWILIO, token)
        for _ in range(10):
            await service.dispatch_audio_chunk(session_id, FRAME)
        await wait_for(lambda: service.statistics().media.frames == 10)
        thread.hold_up()
        for _ in range(10 * BOUND):
            await service.dispatch_audio_chunk(session_id, FRAME)
        given_up = service.inspect().ports.media.given_up_frames
        assert 8 * BOUND <= given_up <= 9 * BOUND  # a batch may be with the thread, which has it
        thread.go_on()
        assert await service.stop_session(session_id)
        ended = await service.get_session(session_id)
        assert service.statistics().media.given_up_frames == given_up
        assert service.statistics().media.queued_frames == 0
    check(ended, 10 * BOUND + 10, given_up, losses(records, session_id))


def test_a_live_call_of_the_blocking_service_is_never_refused_either(
    make_settings: MakeSettings, thread: Thread, records: Records, token: str
) -> None:
    with VoiceService(make_settings(**LIVE)) as service:
        made = service.create_session(
            "project", VoiceProvider.TWILIO, STTProvider.WHISPER, {"recording_enabled": True}, admin_token=token
        )
        thread.hold_up()
        for _ in range(4 * BOUND):
            service.dispatch_audio_chunk(made.session_id, FRAME)
        thread.go_on()
        assert service.stop_session(made.session_id)
        ended = service.get_session(made.session_id)
    assert ended is not None
    assert ended.result is not None
    frames = ended.result.frames
    assert frames.accepted == 4 * BOUND == frames.accounted + frames.dropped["backlog"]
    assert sum(one["frames"] for one in losses(records, made.session_id)) == frames.dropped["backlog"]


@pytest.mark.anyio
async def test_a_call_that_can_be_slowed_is_refused_and_loses_nothing(
    make_settings: MakeSettings, thread: Thread, records: Records
) -> None:
    async with AsyncVoiceService(make_settings(**LIVE)) as service:
        session_id = await create(service, VoiceProvider.LOCAL)
        thread.hold_up()
        for _ in range(BOUND):
            await service.dispatch_audio_chunk(session_id, FRAME)
        with pytest.raises(Overloaded):
            await service.dispatch_audio_chunk(session_id, FRAME)
        thread.go_on()
        assert await service.stop_session(session_id)
        ended = await service.get_session(session_id)
    assert ended is not None
    assert ended.result is not None
    assert (ended.result.frames.accounted, ended.result.frames.dropped) == (BOUND, {})
    assert losses(records, session_id) == []


@pytest.mark.parametrize(("provider", "slow"), [(VoiceProvider.LOCAL, True), (VoiceProvider.TWILIO, False)])
def test_a_provider_says_whether_its_far_end_can_be_slowed(
    make_settings: MakeSettings, provider: VoiceProvider, slow: bool
) -> None:
    service = AsyncVoiceService(make_settings(**LIVE))
    assert service.get_provider(provider).can_be_slowed is slow
