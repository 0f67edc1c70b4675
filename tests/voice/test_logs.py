"""The log belongs to the host: it goes where the host sends it, says what happened, and nothing of what was said."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentos.core.communication.voice import AsyncVoiceService
from agentos.core.communication.voice.cli.logs import configure_logging
from agentos.core.communication.voice.logs import LOGGER, logger, set_level
from agentos.core.communication.voice.settings import VoiceSettings, load_settings

MakeSettings = Callable[..., VoiceSettings]
SECRETS = ("+4930123456", "DE02120300000000202051", "go forward ten meters", "avt_")

# A host that has set up nothing, whose own hooks fail, and whose store and disk fail in the middle of the call.
HOST = """
import sys, sqlite3, anyio, soundfile
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceService
from agentos.core.communication.voice.samples import SAMPLE
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.recording.recordings import RecordingWriter

def stopped(session_id): raise RuntimeError("a host's own fault")
def created(session_id, metadata): raise RuntimeError("another one")
PRIVATE = {"from_number": "+4930123456", "iban": "DE02120300000000202051", "recording_enabled": True}
AUDIO = soundfile.read(SAMPLE, dtype="int16")[0].tobytes()

def broken(*_, **__): raise OSError("no such device")

async def embedded():
    service = AsyncVoiceService()
    local = service.get_provider(VoiceProvider.LOCAL)
    local.on_session_stopped, local.on_session_created = stopped, created
    async with service:
        session = await service.create_session("p", VoiceProvider.LOCAL, STTProvider.POCKETSPHINX, PRIVATE)
        await service.dispatch_audio_chunk(session.session_id, AUDIO)
        await service.stop_session(session.session_id)
        session = await service.create_session("p", VoiceProvider.LOCAL, STTProvider.POCKETSPHINX, PRIVATE)
        RecordingWriter.write = broken
        await service.dispatch_audio_chunk(session.session_id, AUDIO)
        await service.stop_session(session.session_id)

anyio.run(embedded)
"""


def host(program: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )


def test_embedded_nothing_goes_to_standard_output_and_nothing_of_the_call_to_the_log() -> None:
    ran = host(HOST)
    assert ran.stdout == ""
    assert "a host's own fault" in ran.stderr, "the host sees its fault"
    assert "another one" in ran.stderr
    assert [secret for secret in SECRETS if secret in ran.stderr] == []


def test_nothing_of_the_call_is_logged_on_the_lowest_level_either() -> None:
    program = f"import logging\nlogging.basicConfig(level=logging.DEBUG)\n{HOST}"
    ran = host(program, AGENTOS_VOICE_LOG_LEVEL="debug")
    assert ran.stdout == ""
    assert [secret for secret in SECRETS if secret in ran.stderr] == []


def test_a_message_is_an_event_and_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    logger(f"{LOGGER}.test").warning("port_back", port="media", after=2)
    (record,) = caplog.records
    assert record.getMessage() == "port_back: port='media' after=2"
    assert (record.__dict__["event"], record.__dict__["facts"]) == ("port_back", {"port": "media", "after": 2})


def test_what_a_host_puts_into_the_record_stays_beside_the_facts(caplog: pytest.LogCaptureFixture) -> None:
    logger(f"{LOGGER}.test").warning("port_back", port="media", extra={"request": 7})
    (record,) = caplog.records
    assert record.getMessage() == "port_back: port='media'"
    assert (record.__dict__["request"], record.__dict__["facts"]) == (7, {"port": "media"})


def test_facts_with_a_percent_sign_are_written_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    logger(f"{LOGGER}.test").warning("spill_left", path="100%d")
    assert caplog.messages == ["spill_left: path='100%d'"]


def test_every_module_logs_below_one_name() -> None:
    package = Path(sys.modules[AsyncVoiceService.__module__].__file__ or "").parent
    strange = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.name != "logs.py" and ("getLogger(" in path.read_text() or "structlog" in path.read_text())
    ]
    assert strange == []


@pytest.mark.anyio
async def test_the_level_that_is_set_counts_when_the_library_is_embedded(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(log_level="error")):
        assert not logging.getLogger(f"{LOGGER}.directory").isEnabledFor(logging.WARNING)


@pytest.mark.anyio
async def test_without_the_setting_the_host_says_what_is_logged(make_settings: MakeSettings) -> None:
    logging.getLogger(LOGGER).setLevel(logging.DEBUG)
    async with AsyncVoiceService(make_settings()):
        assert logging.getLogger(f"{LOGGER}.directory").isEnabledFor(logging.DEBUG)


def test_the_variable_counts_as_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_VOICE_LOG_LEVEL", "error")
    assert "log_level" in load_settings().model_fields_set


@pytest.mark.parametrize(("level", "lines"), [("info", 1), ("debug", 2)])
def test_a_command_writes_one_line_a_message_to_stderr(
    level: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level)
    configure_logging(level)  # a second time changes nothing
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())  # a live view's
    try:
        json.loads("{")
    except ValueError:
        logger(f"{LOGGER}.test").exception("it failed", number=7)
    text = stream.getvalue()
    assert text.startswith("[error] it failed: number=7")
    assert "JSONDecodeError: Expecting" in text
    assert (text.count("\n") > 1) == (lines > 1), "a traceback is for `debug`"
    assert text.count("it failed") == 1
    assert capsys.readouterr().out == ""


def test_a_level_is_one_of_the_librarys(caplog: pytest.LogCaptureFixture) -> None:
    set_level("error")
    logger(f"{LOGGER}.test").warning("nothing")
    assert caplog.messages == []
