"""A session whose actor can't be helped any more is ended by its supervisor, and whoever stops it meanwhile is answered."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import pytest

from actors.voice.messages import Fail, Frames
from actors.voice.session import SessionActor
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceSessionState
from agentos.core.communication.voice.models import EndReason
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.store import VoiceStore

PATIENCE = 30
MakeSettings = Callable[..., VoiceSettings]


@pytest.mark.anyio
async def test_a_stop_waits_for_an_end_that_the_supervisor_brings(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = VoiceStore.append

    def slowly(self: VoiceStore, entries: Sequence[Any]) -> None:
        time.sleep(0.3)
        append(self, entries)

    def broken(*_: object) -> NoReturn:
        raise RuntimeError("a bug")

    table = {state: {**steps, Frames: broken, Fail: broken} for state, steps in SessionActor.compiled.items()}
    monkeypatch.setattr(SessionActor, "compiled", table)
    async with AsyncVoiceService(make_settings(restart_limit=1)) as service:
        session = await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
        monkeypatch.setattr(VoiceStore, "append", slowly)
        listing = service._runtime.resources().directory.listing(session.session_id)
        assert listing is not None
        await service.dispatch_audio_chunk(session.session_id, bytes(640))
        with anyio.fail_after(PATIENCE):
            while listing.ref is not None:
                await anyio.lowlevel.checkpoint()
            assert await service.stop_session(session.session_id)
        ended = await service.get_session(session.session_id)
    assert ended.state is VoiceSessionState.STOPPED
    assert ended.result is not None
    assert ended.result.reason is EndReason.FAILED
