"""The store's port: whoever hands work over is answered once, and what can't be recorded is no fault of the store."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from actors.voice.messages import Append, Draft, Facts, NotStored, SpillDone, SpillWork, Stored
from agentos.core.communication.voice.running.request import make_facts, read_request
from agentos.core.communication.voice.sessions.directory import Directory
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.port import StorePort
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.stt.registry import Engines
from machines.communication import RequestStatus
from machines.policy import VoicePolicy
from machines.session import STTProvider, VoiceProvider

PATIENCE_SECONDS = 30
NOT_TEXT = "\ud800"  # UTF-8 can't write it, so neither can the chain
SPILL_BYTES = 65_536
TOO_LONG = "x" * SPILL_BYTES


def facts(fallback: str = "") -> Facts:
    settings = load_settings(on_stt_unavailable="record_only")
    request = read_request(
        VoicePolicy(),
        settings,
        project_id="project",
        provider=VoiceProvider.LOCAL,
        stt_provider=STTProvider.WHISPER,
        metadata=None,
        audio_format=None,
        admin_token=None,
    )
    made = make_facts(request, settings, Engines(load_settings()), admin_token_valid=False)
    return type(made)(**{**{name: getattr(made, name) for name in made.__struct_fields__}, "fallback": fallback})


def draft(number: int, fallback: str = "") -> Draft:
    return Draft(facts(fallback), number, "session_denied", RequestStatus.DENIED)


class Opened:
    """A port on real files, and what it told."""

    def __init__(self, home: Path) -> None:
        self.told: list[tuple[object, Any]] = []
        self.store = open_store(home / "voice.db", busy_timeout_seconds=5)
        spill = SpillFile.open(home, "test", SPILL_BYTES)
        nobody: Callable[[Any], None] = lambda _: None  # noqa: E731 - a host without hooks
        directory = Directory(keep_events=nobody, on_started=nobody, on_stopped=nobody, patience_seconds=5.0)
        self.port = StorePort(
            self.store, spill, directory=directory, post=lambda ref, fact: self.told.append((ref, fact))
        )

    def close(self) -> None:
        assert self.port.close(PATIENCE_SECONDS, then=self.store.close)


@pytest.fixture
def opened(home: Path) -> Iterator[Opened]:
    made = Opened(home)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("fallbacks", "ok"),
    [
        ([""], True),
        (["", "", ""], True),
        ([TOO_LONG, "", ""], False),
        (["", TOO_LONG, ""], False),
        (["", "", TOO_LONG], False),
        ([TOO_LONG, TOO_LONG], False),
    ],
)
def test_records_that_are_spilled_together_have_one_answer(opened: Opened, fallbacks: list[str], ok: bool) -> None:
    drafts = tuple(draft(number, fallback) for number, fallback in enumerate(fallbacks, 1))
    opened.port.submit(SpillWork("owner", drafts, "evidence"))
    opened.close()
    assert opened.told == [("evidence", SpillDone("owner", ok))]


def test_a_closed_port_answers_once_too(opened: Opened) -> None:
    opened.close()
    opened.port.submit(SpillWork("owner", (draft(1), draft(2)), "evidence"))
    assert opened.told == [("evidence", SpillDone("owner", ok=False))]


def test_what_was_spilled_just_before_the_close_is_in_the_store_afterwards(opened: Opened, home: Path) -> None:
    opened.port.submit(SpillWork("owner", (draft(1),), "evidence"))
    opened.close()
    assert list(home.glob("*.spill")) == []
    with open_to_read(home / "voice.db") as store:
        assert [record.operation for record in store.evidence()] == ["session_denied"]


def test_what_can_not_be_recorded_is_told_apart_from_a_store_that_is_down(opened: Opened) -> None:
    bad, good = draft(1, NOT_TEXT), draft(1)
    opened.port.submit(Append("bad", bad, "evidence"))
    opened.port.submit(Append("good", good, "evidence"))
    opened.close()
    facts_of = {type(fact): fact for _, fact in opened.told}
    assert set(facts_of) == {NotStored, Stored}
    assert not facts_of[NotStored].store_down
    assert facts_of[NotStored].tickets == (("bad", 1),)
    problem = opened.port.unrecordable(bad.facts.session_id)
    assert problem is not None
    assert "surrogates" in problem
    assert opened.port.unrecordable(bad.facts.session_id) is None, "it is told once"
    assert opened.port.unrecordable(good.facts.session_id) is None


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_what_can_not_be_recorded_is_spilled_without_what_can_not_and_holds_nothing_up(
    opened: Opened, home: Path, bad: int
) -> None:
    drafts = tuple(draft(number, NOT_TEXT if number == bad else "") for number in range(3))
    opened.port.submit(SpillWork("owner", drafts, "evidence"))
    opened.close()
    assert opened.told == [("evidence", SpillDone("owner", ok=True))]
    assert list(home.glob("*.spill")) == [], "the file is empty again"
    with open_to_read(home / "voice.db") as store:
        records = store.evidence()
    assert [record.id for record in records] == [one.record_id for one in drafts]
    assert ["unwritable" in (record.response_summary or {}) for record in records] == [at == bad for at in range(3)]


def test_a_record_that_stands_for_one_that_can_not_be_written_goes_in(opened: Opened, home: Path) -> None:
    opened.port.submit(Append("bad", replace(draft(2, NOT_TEXT), refusal="it is no text"), "evidence"))
    opened.close()
    assert [fact for _, fact in opened.told] == [Stored((("bad", 2),))]
    with open_to_read(home / "voice.db") as store:
        (record,) = store.evidence()
        assert store.verify().ok
    assert record.status is RequestStatus.FAILED
    assert record.request_summary["stt_fallback"] == "\ufffd"
    assert record.response_summary == {"state": None, "unwritable": "it is no text"}
