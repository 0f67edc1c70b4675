"""Every error is a `VoiceError` and the built-in that is promised, says one sentence, and crosses process borders whole."""

import copy
import pickle
from pathlib import Path

import pytest

from agentos.core.communication.voice.errors import (
    CannotListen,
    ChainNotContinued,
    ChunkTooLarge,
    Draining,
    EvidenceNotDurable,
    EvidenceUnavailable,
    Forbidden,
    InvalidRequest,
    InvalidState,
    InvalidTicket,
    KeyInUse,
    KeyReused,
    LocksUnavailable,
    NotADatabase,
    NotResumable,
    Overloaded,
    PolicyDenied,
    ProviderNotConfigured,
    RateLimited,
    RecordingFinishing,
    RequestRefused,
    RequestTooLarge,
    RequestTooSlow,
    ServiceClosed,
    ServiceNotReachable,
    SessionNotFound,
    SettingsError,
    StopNotConfirmed,
    StoreError,
    StreamClosed,
    STTUnavailable,
    Unauthenticated,
    Unrecordable,
    UnsafeExposure,
    UnusableExtension,
    VoiceError,
)
from machines.communication import PolicyVerdict, RequestStatus
from machines.session import VoiceSessionState

VERDICT = PolicyVerdict(status=RequestStatus.REQUIRE_ADMIN, reason_code="ADMIN_TOKEN_REQUIRED", hint="bring a token")

ERRORS: list[tuple[VoiceError, type[Exception], dict[str, object], str]] = [
    (
        InvalidRequest("project_id must not be empty", field="project_id"),
        ValueError,
        {"field": "project_id"},
        "project_id must not be empty",
    ),
    (
        ChunkTooLarge(2_000_000, 1_048_576),
        InvalidRequest,
        {"field": "audio_data", "n_bytes": 2_000_000, "limit_bytes": 1_048_576},
        "audio_data has 2,000,000 bytes, at most 1,048,576 are taken at once; send it in smaller chunks",
    ),
    (SessionNotFound("voice-1"), ValueError, {"session_id": "voice-1"}, "there is no session 'voice-1'"),
    (
        InvalidState("voice-1", VoiceSessionState.STOPPING),
        ValueError,
        {"session_id": "voice-1", "state": VoiceSessionState.STOPPING},
        "session 'voice-1' is STOPPING: it takes no more audio",
    ),
    (
        NotResumable("voice-1", VoiceSessionState.STOPPED, "it has ended"),
        InvalidState,
        {"session_id": "voice-1", "state": VoiceSessionState.STOPPED},
        "session 'voice-1' is STOPPED: it has ended",
    ),
    (
        RecordingFinishing("voice-1", retry_after_seconds=1),
        RuntimeError,
        {"session_id": "voice-1", "retry_after_seconds": 1},
        "the recording of session 'voice-1' is being finished; try again in 1 s",
    ),
    (
        PolicyDenied(VERDICT, session_id="voice-1"),
        PermissionError,
        {"verdict": VERDICT, "session_id": "voice-1"},
        "the policy refused the request (ADMIN_TOKEN_REQUIRED): bring a token",
    ),
    (
        Overloaded("10,000 sessions are running", retry_after_seconds=0.5),
        RuntimeError,
        {"retry_after_seconds": 0.5},
        "10,000 sessions are running; try again in 0.5 s",
    ),
    (
        EvidenceUnavailable("the disk is full"),
        OSError,
        {},
        "the evidence store is not available (the disk is full); no session was made",
    ),
    (
        Unrecordable("no lone surrogates"),
        ValueError,
        {"problem": "no lone surrogates"},
        "the request can't be put on record (no lone surrogates); no session was made",
    ),
    (StoreError("the disk is full", kind="full"), OSError, {"kind": "full"}, "the disk is full"),
    (
        NotADatabase(Path("/srv/notes.db"), "/srv/notes.db is no SQLite database", kind="corrupt"),
        StoreError,
        {"path": Path("/srv/notes.db"), "kind": "corrupt"},
        "/srv/notes.db is no SQLite database",
    ),
    (
        ChainNotContinued(Path("/srv/voice.db"), Path("/mnt/heads"), "7:ab", "records were cut off"),
        StoreError,
        {"database": Path("/srv/voice.db"), "heads": Path("/mnt/heads"), "head": "7:ab", "kind": "corrupt"},
        (
            "the evidence chain in /srv/voice.db does not go on from the head 7:ab that was noted in /mnt/heads: records were "
            "cut off. Examine both, and restore the database; if it was exchanged on purpose, keep the file of heads and begin "
            "another"
        ),
    ),
    (
        LocksUnavailable(Path("/mnt/share")),
        OSError,
        {"kind": "io", "folder": Path("/mnt/share")},
        "the file system of /mnt/share has no file locks: set AGENTOS_VOICE_HOME to a folder on a local disk",
    ),
    (
        EvidenceNotDurable("voice-1", spilled=True),
        OSError,
        {"session_id": "voice-1", "spilled": True},
        (
            "session 'voice-1' has stopped, but its final evidence is not stored yet: it waits in the spill file and goes in "
            "when the store is back"
        ),
    ),
    (
        EvidenceNotDurable("voice-1", spilled=False),
        OSError,
        {"session_id": "voice-1", "spilled": False},
        (
            "session 'voice-1' has stopped, but its final evidence is not stored yet: it is in memory only and is lost if "
            "this process ends before the store is back"
        ),
    ),
    (
        UnusableExtension("agentos_voice.providers", "sip", "it can't be loaded", distribution="sip-for-voice"),
        ValueError,
        {"group": "agentos_voice.providers", "name": "sip", "distribution": "sip-for-voice"},
        "'sip' (agentos_voice.providers), of the distribution sip-for-voice, can't be used: it can't be loaded",
    ),
    (STTUnavailable("google is not installed"), ValueError, {}, "google is not installed"),
    (
        ProviderNotConfigured("twilio", "TWILIO_AUTH_TOKEN"),
        ValueError,
        {"provider": "twilio", "variable": "TWILIO_AUTH_TOKEN"},
        "provider 'twilio' is not configured: set TWILIO_AUTH_TOKEN",
    ),
    (
        ProviderNotConfigured("twilio", "TWILIO_ACCOUNT_SID", "TWILIO_ACCOUNT_SID is not an account SID"),
        ValueError,
        {"provider": "twilio", "variable": "TWILIO_ACCOUNT_SID"},
        "provider 'twilio' is not configured: TWILIO_ACCOUNT_SID is not an account SID",
    ),
    (
        StopNotConfirmed("voice-1"),
        TimeoutError,
        {"session_id": "voice-1"},
        "session 'voice-1' did not confirm that it has stopped; stop it again",
    ),
    (
        ServiceNotReachable("no service answers", path="/run/1.sock"),
        OSError,
        {"path": "/run/1.sock"},
        "no service answers",
    ),
    (
        Draining(),
        RuntimeError,
        {},
        "the voice service is draining and takes no new calls; send the call to another process",
    ),
    (ServiceClosed(), RuntimeError, {}, "the voice service is closed; create a new one"),
    (SettingsError("X: no", variable="X"), ValueError, {"variable": "X"}, "X: no"),
    (
        CannotListen("127.0.0.1", 80, "it is taken"),
        OSError,
        {"host": "127.0.0.1", "port": 80},
        "the server can't listen on '127.0.0.1', port 80: it is taken; choose another with --host and --port",
    ),
    (
        UnsafeExposure("0.0.0.0"),
        SettingsError,
        {"variable": None, "host": "0.0.0.0"},
        (
            "without authentication nothing is served on '0.0.0.0', only on this machine's own addresses: leave --no-auth out, "
            "or use --host 127.0.0.1 (or ::1)"
        ),
    ),
    (
        Unauthenticated("no_token"),
        PermissionError,
        {"reason": "no_token"},
        "a token is needed: send it as `Authorization: Bearer avt_…`; `agentos-voice token create NAME --role ROLE` makes one",
    ),
    (Forbidden("not from here", reason="origin"), PermissionError, {"reason": "origin"}, "not from here"),
    (
        InvalidTicket("used_ticket"),
        PermissionError,
        {"reason": "used_ticket"},
        "the ticket was used before: ask for a new ticket",
    ),
    (
        RateLimited("too many requests", retry_after_seconds=0.25),
        RuntimeError,
        {"retry_after_seconds": 0.25},
        "too many requests; try again in 0.25 s",
    ),
    (
        RequestTooLarge(65_536),
        ValueError,
        {"limit_bytes": 65_536},
        "the request is too large: at most 65,536 bytes are taken",
    ),
    (
        RequestTooSlow(10),
        TimeoutError,
        {"timeout_seconds": 10},
        "the request did not come whole within 10 s",
    ),
    (
        KeyReused(),
        ValueError,
        {},
        "this Idempotency-Key was used for another request: use a new key for a new request",
    ),
    (
        KeyInUse(retry_after_seconds=1),
        RuntimeError,
        {"retry_after_seconds": 1},
        "the request with this Idempotency-Key is still being carried out; try again in 1 s",
    ),
    (
        StreamClosed(4409, "a newer connection has this session"),
        ConnectionError,
        {"code": 4409, "reason": "a newer connection has this session"},
        "the stream was closed (4409): a newer connection has this session",
    ),
    (
        RequestRefused(429, "rate-limited", {"detail": "too many requests", "retry_after_seconds": 2}),
        RuntimeError,
        {
            "status": 429,
            "name": "rate-limited",
            "problem": {"detail": "too many requests", "retry_after_seconds": 2},
            "retry_after_seconds": 2,
        },
        "the server refused the request (429 rate-limited): too many requests",
    ),
]
CASES = pytest.mark.parametrize(
    ("error", "builtin", "fields", "sentence"), ERRORS, ids=[type(error).__name__ for error, *_ in ERRORS]
)


@CASES
def test_an_error_is_its_builtin_says_its_sentence_and_has_its_fields(
    error: VoiceError, builtin: type[Exception], fields: dict[str, object], sentence: str
) -> None:
    assert isinstance(error, VoiceError)
    assert isinstance(error, builtin)
    assert str(error) == sentence
    assert vars(error) == fields


@CASES
def test_an_error_survives_pickle_and_copy(
    error: VoiceError, builtin: type[Exception], fields: dict[str, object], sentence: str
) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == sentence
        assert vars(again) == fields


def test_a_denial_without_a_hint_says_its_status() -> None:
    verdict = PolicyVerdict(status=RequestStatus.RATE_LIMITED, reason_code="RATE")
    assert "rate_limited" in str(PolicyDenied(verdict, session_id="voice-1"))


def test_every_error_of_the_tree_is_tested_here() -> None:
    def tree(kind: type[VoiceError]) -> set[type[VoiceError]]:
        return {kind}.union(*map(tree, kind.__subclasses__()))

    here = {kind for kind in tree(VoiceError) if kind.__module__ == VoiceError.__module__}
    assert here - {VoiceError} == {type(error) for error, *_ in ERRORS}


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        (Unauthenticated("no_token"), 'Bearer realm="agentos-voice"'),
        (Unauthenticated("bad_header"), 'Bearer realm="agentos-voice", error="invalid_request"'),
        (Unauthenticated("unknown_token"), 'Bearer realm="agentos-voice", error="invalid_token"'),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
def test_who_is_not_known_is_told_how_to_say_who_they_are(error: Unauthenticated, challenge: str) -> None:
    assert error.challenge == challenge
