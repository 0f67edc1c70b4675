"""Every utterance that listeners were told of stands in the transcript of the final record, in its order."""

import pytest

from machines.cross_checks import StoredSession, mismatches


def stored(*texts: str, transcript: str | None = "go forward ten meters") -> StoredSession:
    result = {"reason": "stopped"} if transcript is None else {"reason": "stopped", "transcript": transcript}
    final = {
        "id": "ev-0-final",
        "operation": "session_stopped",
        "request_summary": {},
        "response_summary": {"state": "stopped", "result": result},
        "metadata": {},
    }
    events = [{"event_type": "stt_final", "payload": {"text": text}} for text in texts]
    end = {"event_type": "session_stopped", "payload": {"reason": "stopped"}}
    return StoredSession({"state": "stopped", "result": result}, [final], [*events, end])


def kinds(of: StoredSession) -> list[str]:
    return [one.kind for one in mismatches("voice-0", of, spilled=False)]


def test_words_that_are_in_the_transcript_agree_also_where_some_events_were_not_kept() -> None:
    assert kinds(stored("go forward", "", "ten meters")) == []
    assert kinds(stored("ten meters")) == []
    assert kinds(stored()) == []


@pytest.mark.parametrize(
    "texts", [("go backward",), ("ten meters", "go forward"), ("go forward", "go forward")], ids=" then ".join
)
def test_words_that_are_not_there_or_in_another_order_are_found(texts: tuple[str, ...]) -> None:
    assert kinds(stored(*texts)) == ["event-differs"]


def test_words_that_were_erased_are_not_compared() -> None:
    assert kinds(stored("go backward", transcript=None)) == []


def test_words_of_a_call_that_runs_are_no_end() -> None:
    running = stored("go forward")._replace(session={"state": "active"}, records=[])
    assert kinds(running._replace(events=running.events[:1])) == ["records-missing"]
    assert kinds(running) == ["records-missing", "end-without-record"]
