"""What callers said is for nobody but the owner of the home, whatever the umask."""

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, doctor
from agentos.core.communication.voice.doctor import Check, Level
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.storage.folders import ensure_private_folder, keep_private

MakeSettings = Callable[..., VoiceSettings]
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(home: Path) -> list[str]:
    """What group or others may do something with, but for sockets, whose folder is closed."""
    found = []
    for path in [home, *home.rglob("*")]:
        with suppress(FileNotFoundError):  # a file that the service has just put in the place of another
            mode = path.stat().st_mode
            if mode & OTHERS and not stat.S_ISSOCK(mode):
                found.append(f"{path} {mode:o}")
    return found


def names(home: Path) -> set[str]:
    return {path.suffix or path.name for path in home.rglob("*")}


@pytest.mark.anyio
@pytest.mark.usefixtures("open_umask")
async def test_all_that_a_service_makes_is_for_its_owner_only(
    tmp_path: Path, audio: Callable[..., bytes], caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "above" / "home"
    caplog.set_level(logging.ERROR)
    settings = load_settings(
        home=home, heads=tmp_path / "heads", on_stt_unavailable="record_only", recording_segment_seconds=1.0
    )
    async with AsyncVoiceService(settings) as service:
        sessions = []
        for _ in range(2):
            session = await service.create_session(
                "shop", VoiceProvider.LOCAL, STTProvider.AZURE, {"caller": "Ada", "recording_enabled": True}
            )
            for part in range(5):
                await service.dispatch_audio_chunk(session.session_id, audio(8_000, part * 8_000))
            sessions.append(session.session_id)
        assert await service.stop_session(sessions[0])
        assert names(home) >= {".db", ".db-wal", ".db-shm", ".spill", ".owner"}
        assert all(any(path.is_file() for path in (home / "recordings" / name).iterdir()) for name in sessions)
        assert open_to_others(home) == []
    assert open_to_others(home.parent) == []
    assert (tmp_path / "heads").stat().st_mode & OTHERS == 0
    assert not caplog.records


@pytest.mark.usefixtures("open_umask")
def test_folders_above_are_closed_too_and_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(0o755)
    ensure_private_folder(there / "a" / "b")
    ensure_private_folder(there / "a" / "b")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (there, there / "a", there / "a" / "b")}
    assert modes == {"there": 0o755, "a": 0o700, "b": 0o700}
    (there / "file").touch()
    for path in (there / "file", there / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            ensure_private_folder(path)


@pytest.mark.anyio
async def test_recordings_that_were_left_open_are_closed_at_the_start(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.recordings.mkdir(parents=True)
    settings.recordings.chmod(0o777)
    async with AsyncVoiceService(settings):
        assert stat.S_IMODE(settings.recordings.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o750, 0o710, 0o705, 0o500])
def test_what_group_or_others_may_do_is_taken_from_them_and_nothing_from_the_owner(mode: int, tmp_path: Path) -> None:
    keep_private(tmp_path / "missing")
    tmp_path.chmod(mode)
    keep_private(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode & stat.S_IRWXU
    tmp_path.chmod(0o700)


def access(home: Path) -> list[Check]:
    return list(doctor._access(home))


def test_the_doctor_finds_a_home_that_others_can_write_and_says_what_closes_it(tmp_path: Path) -> None:
    home = tmp_path / "the home"
    (check,) = access(home)
    assert check.level is Level.OK
    home.mkdir()
    for mode, who in ((0o777, "everybody"), (0o770, "its group"), (0o1777, "everybody")):
        home.chmod(mode)
        (check,) = access(home)
        assert check.level is Level.WARN
        assert f"can be written by {who} (mode {mode:04o})" in check.found
        assert check.advice == f"chmod go-w '{home}'"
    assert os.system(check.advice) == 0
    (check,) = access(home)
    assert check.level is Level.OK


def test_the_doctor_finds_what_callers_said_where_others_can_read_it(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings").chmod(0o750)
    for name in ("voice.db", "voice.db-wal", "1-aa.spill"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o640)
    tmp_path.chmod(0o755)
    checks = access(tmp_path)
    assert len(checks) == 4
    for check in checks:
        assert check.level is Level.WARN
        assert os.system(check.advice) == 0
    (check,) = access(tmp_path)
    assert check.level is Level.OK
