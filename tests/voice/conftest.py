"""What the tests of the voice service share: settings that need no engine, audio, and a look at what was stored."""

import contextlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos.core.communication.voice.sessions.directory import Directory, Listing
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.storage.opening import open_to_read
from machines.events import VoiceEvent
from tests.voice.payloads import is_defined

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]

SMALL_DISK_BYTES = 2 << 20


@pytest.fixture(autouse=True)
def events_are_as_defined(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every event that a service in this process tells has the fields of its definition."""
    others: list[VoiceEvent] = []
    hand_out = Directory._hand_out

    def look(self: Directory, listing: Listing, event: VoiceEvent) -> None:
        if not is_defined(event):
            others.append(event)
        hand_out(self, listing, event)

    monkeypatch.setattr(Directory, "_hand_out", look)
    yield
    assert others == []


@pytest.fixture
def make_settings(home: Path) -> MakeSettings:
    """Settings of a service that only records (the engine asked for is not installed), with short deadlines."""

    def make(**overrides: Any) -> VoiceSettings:
        return load_settings(**{"home": home, "on_stt_unavailable": "record_only", **overrides})

    return make


@pytest.fixture
def records(home: Path) -> Records:
    """The evidence in the database of the home, in chain order, with all its content; of one session if given."""

    def read(session_id: str | None = None) -> list[dict[str, Any]]:
        with open_to_read(home / "voice.db") as store:
            return [record.model_dump(mode="json") for record in store.evidence(session_id)]

    return read


@pytest.fixture
def verified(home: Path) -> Callable[[], int]:
    """Walks the chain of the home, and holds what is stored against it: the number of its records; fails where a link is wrong
    or something disagrees."""

    def verify() -> int:
        with open_to_read(home / "voice.db") as store:
            found = store.verify()
            assert store.cross_check() == []
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


@pytest.fixture
def small_disk(new_file_system: Callable[[int], Path]) -> Path:
    """A real file system of 2 MiB."""
    return new_file_system(SMALL_DISK_BYTES)


@pytest.fixture
def fill_disk(small_disk: Path) -> Callable[[], Path]:
    """Leaves no space on the small disk; returns the file to remove when there shall be some again."""

    def fill() -> Path:
        stuffing = small_disk / "stuffing"
        with stuffing.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        return stuffing

    return fill
