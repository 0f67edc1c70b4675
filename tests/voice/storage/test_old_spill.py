"""A spill file of the version before content was sealed: its records go into the chain sealed, and its session has ended.

`revision_0002.spill` and `revision_0002_spilled.sql` were written by that version: a call whose store failed when it was
stopped, and whose process was killed then.
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice import AsyncVoiceService
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.opening import open_to_read
from machines.evidence import EvidenceRecord
from machines.sealing import SEALED
from machines.session import EndReason, VoiceSessionState

HERE = Path(__file__).parent
OWNER = "22987-7cac7a4a"
PERSONAL = ("Lovelace", "660 1234567")


@pytest.fixture
def old(home: Path) -> Path:
    home.mkdir(parents=True)
    with closing(sqlite3.connect(home / "voice.db")) as database:
        database.executescript((HERE / "revision_0002_spilled.sql").read_text())
        database.execute("PRAGMA journal_mode = WAL")
    shutil.copy(HERE / "revision_0002.spill", home / f"{OWNER}.spill")
    (home / f"{OWNER}.owner").touch()
    return home


def by_a_service(home: Path) -> None:
    async def once() -> None:
        async with AsyncVoiceService(load_settings(home=home)):
            pass

    anyio.run(once)


def by_recover(home: Path) -> None:
    assert main(["recover", "--home", str(home)]) == 0


def behind_newer_records(home: Path) -> None:
    """The database was brought up to date before the older process died."""
    with EvidenceLogger(home / "voice.db") as log:
        record = log.get_request_evidence("voice-5557ab4cb95082662fcc9826")[0]
        newer = {**record.model_dump(), "id": "ev-newer", "request_id": "req-1", "operation": "fetch"}
        log.log(EvidenceRecord(**newer))
    by_recover(home)


@pytest.mark.parametrize("take_in", [by_a_service, by_recover, behind_newer_records])
def test_a_spill_file_of_the_version_before_sealing_is_taken_in(old: Path, take_in: Callable[[Path], None]) -> None:
    take_in(old)
    assert not list(old.glob("*.spill"))
    with open_to_read(old / "voice.db") as store:
        assert store.verify().ok
        assert store.cross_check() == []
        (session,) = store.sessions()
        records = store.evidence(session.session_id)
    assert session.state is VoiceSessionState.STOPPED
    assert session.result is not None
    assert session.result.reason is EndReason.STOPPED  # not "recovered": it had ended
    assert session.result.frames.accepted == 10
    assert [record.operation for record in records] == [
        "session_created",
        "session_active",
        "session_stopping",
        "session_stopped",
    ]
    assert {record.request_summary["metadata"]["caller"] for record in records} == {"Ada Lovelace"}
    with closing(sqlite3.connect(old / "voice.db")) as database:
        texts = [text for (text,) in database.execute("SELECT record FROM evidence")]
    assert not [text for text in texts if any(words in text for words in PERSONAL)]
    assert all(f'"{SEALED}"' in text for text in texts if '"session_stopped"' in text)
