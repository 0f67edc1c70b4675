"""What the tests of the voice service share: settings that need no engine, audio, and a look at what was stored."""

import json
import sqlite3
from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice.settings import VoiceSettings, load_settings

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def make_settings(home: Path) -> MakeSettings:
    """Settings of a service that only records (the engine asked for is not installed), with short deadlines."""

    def make(**overrides: Any) -> VoiceSettings:
        return load_settings(**{"home": home, "on_stt_unavailable": "record_only", **overrides})

    return make


@pytest.fixture
def records(home: Path) -> Records:
    """The evidence as it stands in the database of the home, in chain order; of one session if given."""

    def read(session_id: str | None = None) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(home / "voice.db")) as database:
            found = [json.loads(text) for (text,) in database.execute("SELECT record FROM evidence ORDER BY seq")]
        return [record for record in found if session_id in (None, record["request_id"])]

    return read


@pytest.fixture
def verified(home: Path) -> Callable[[], int]:
    """Walks the chain of the home: the number of its records; fails where a link is wrong."""

    def verify() -> int:
        with EvidenceLogger(home / "voice.db") as log:
            found = log.verify()
        assert found.ok, found
        return found.records

    return verify


@pytest.fixture(scope="session")
def audio() -> Callable[..., bytes]:
    """Samples (signed 16 bit, little-endian) that are all different from their neighbours, so that nothing can be swapped
    unseen: `audio(n)` gives n of them, `audio(n, first)` those from a place on."""

    def make(samples: int, first: int = 0) -> bytes:
        return array("h", [(at * 7919) % 60_000 - 30_000 for at in range(first, first + samples)]).tobytes()

    return make
