"""What can go wrong, as one tree of exceptions.

Each is a `VoiceError` and also the built-in that callers expect: a bad argument or state is a `ValueError`, a policy
denial a `PermissionError`, a store that fails an `OSError`. `str(error)` is one sentence that says what was wrong and
what to do; the fields say the same to programs. All can be pickled, so that they cross process borders whole.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from agentos.core.communication.voice.secrets_in_text import without_secrets
from machines.communication import PolicyVerdict
from machines.session import VoiceSessionState

E = TypeVar("E", bound="VoiceError")

FailureKind = Literal["full", "locked", "corrupt", "readonly", "io", "schema", "gone"]
NotAuthenticated = Literal["no_token", "bad_header", "token_in_url", "unknown_token"]
NotAllowed = Literal["role", "project", "origin", "host", "proxied"]
BadTicket = Literal[
    "unknown_ticket", "expired_ticket", "used_ticket", "replaced_ticket", "unknown_resume", "revoked_token"
]


class VoiceError(Exception):
    """The root of everything that the voice backend raises on purpose. No token of ours stands in its text."""

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), str(self), dict(self.__dict__)))


def _restored(kind: type[E], message: str, fields: dict[str, Any]) -> E:
    # Around __init__, whose parameters differ from class to class, and around OSError's own reading of its arguments.
    error = kind.__new__(kind)
    error.args = (message,)
    error.__dict__.update(fields)
    return error


class InvalidRequest(VoiceError, ValueError):
    """An argument is of the wrong kind or out of range. Nothing was changed.

    `field` names the argument; it is None where a host's own policy refused the arguments without naming one.
    """

    def __init__(self, message: str, *, field: str | None) -> None:
        super().__init__(message)
        self.field = field


class ChunkTooLarge(InvalidRequest):
    """An audio chunk has more bytes than a chunk may have. None of it was accepted.

    `n_bytes` is its size, `limit_bytes` the largest that is taken.
    """

    def __init__(self, n_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"audio_data has {n_bytes:,} bytes, at most {limit_bytes:,} are taken at once; send it in smaller chunks",
            field="audio_data",
        )
        self.n_bytes = n_bytes
        self.limit_bytes = limit_bytes


class SessionNotFound(VoiceError, ValueError):
    """No session has this id, neither running nor stored. `session_id` is the id that was given."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id!r}")
        self.session_id = session_id


class InvalidState(VoiceError, ValueError):
    """The session exists, but its state does not allow what was asked. Nothing was changed.

    `session_id` and `state` say which session stands where.
    """

    def __init__(self, session_id: str, state: VoiceSessionState, problem: str = "it takes no more audio") -> None:
        super().__init__(f"session {session_id!r} is {state.name}: {problem}")
        self.session_id = session_id
        self.state = state


class NotResumable(InvalidState):
    """The session can't be resumed by this service: it has ended, runs, is in the hands of another process or another call, or
    its time is over. Nothing was changed. `state` is where evidence has it."""


class RecordingFinishing(VoiceError, RuntimeError):
    """The session has stopped, and its recording is not one file yet. The same may work after `retry_after_seconds`; all that
    is to be said of the recording is in the session's result already. `session_id` names the session."""

    def __init__(self, session_id: str, *, retry_after_seconds: float) -> None:
        super().__init__(
            f"the recording of session {session_id!r} is being finished; try again in {retry_after_seconds:g} s"
        )
        self.session_id = session_id
        self.retry_after_seconds = retry_after_seconds


class PolicyDenied(VoiceError, PermissionError):
    """The policy refused the request; no session was made. `verdict` says why, and what would help.

    `session_id` is the id that the session would have had: under it the refusal stands in evidence.
    """

    def __init__(self, verdict: PolicyVerdict, *, session_id: str) -> None:
        super().__init__(
            f"the policy refused the request ({verdict.reason_code}): {verdict.hint or verdict.status.value}"
        )
        self.verdict = verdict
        self.session_id = session_id


class Overloaded(VoiceError, RuntimeError):
    """There is no room now. Nothing was accepted; the same call may work after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(f"{message}; try again in {retry_after_seconds:g} s")
        self.retry_after_seconds = retry_after_seconds


def no_room(session_id: str) -> Overloaded:
    """The error of a chunk that found no room in time."""
    return Overloaded(f"session {session_id!r} has no room for more audio", retry_after_seconds=1)


class EvidenceUnavailable(VoiceError, OSError):
    """The evidence store can't make a record durable, so the request was refused: no session was made, or none resumed."""

    def __init__(self, problem: str, consequence: str = "no session was made") -> None:
        super().__init__(f"the evidence store is not available ({problem}); {consequence}")


class StoreError(VoiceError, OSError):
    """The store, or a spill file, could not do what was asked; nothing of it was done.

    `kind` says why: "full" (no space left), "locked" (another connection holds the lock for longer than the busy
    timeout), "corrupt" (no SQLite database, or a damaged one), "readonly", "io" (any other failure of the file system,
    or the store is closed), "schema" (the tables are of another version, or not ours).
    """

    def __init__(self, message: str, *, kind: FailureKind) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


class NotADatabase(StoreError):
    """The file is no SQLite database, or one of something else. `path` is the file."""

    def __init__(self, path: Path, problem: str, *, kind: FailureKind) -> None:
        super().__init__(problem, kind=kind)
        self.path = path


class ChainNotContinued(StoreError):
    """The evidence chain does not go on from a head that was noted: it was cut, made anew, or exchanged. No call is taken.

    `database` is where the chain is stored, `heads` the file in which `head`, PLACE:HASH, was noted.
    """

    def __init__(self, database: str, heads: Path, head: str, problem: str) -> None:
        super().__init__(
            f"the evidence chain in {database} does not go on from the head {head} that was noted in {heads}: {problem}. "
            "Examine both, and restore the database; if it was exchanged on purpose, keep the file of heads and begin another",
            kind="corrupt",
        )
        self.database = database
        self.heads = heads
        self.head = head


class LocksUnavailable(StoreError):
    """The file system of the home has no file locks, so that nobody could tell whose sessions are whose.

    `folder` is the home.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the file system of {folder} has no file locks: set AGENTOS_VOICE_HOME to a folder on a local disk",
            kind="io",
        )
        self.folder = folder


class Unrecordable(VoiceError, ValueError):
    """The request can't be put on record, because evidence can't hold something in it; no session was made.

    The store is in order, and trying again does not help. `problem` says what can't be recorded.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"the request can't be put on record ({problem}); no session was made")
        self.problem = problem


class EvidenceNotDurable(VoiceError, OSError):
    """The session has ended, but its final record is not in the evidence store yet.

    `session_id` is the session, which is STOPPED. With `spilled` the record is safe in the spill file beside the store
    and goes in when the store is back; without, it is held in memory only.
    """

    def __init__(self, session_id: str, *, spilled: bool) -> None:
        where = (
            "it waits in the spill file and goes in when the store is back"
            if spilled
            else "it is in memory only and is lost if this process ends before the store is back"
        )
        super().__init__(f"session {session_id!r} has stopped, but its final evidence is not stored yet: {where}")
        self.session_id = session_id
        self.spilled = spilled


class STTUnavailable(VoiceError, ValueError):
    """The speech-to-text engine asked for can't be had and the settings forbid another; no session was made."""


class ProviderNotConfigured(VoiceError, ValueError):
    """The voice provider can't be used as it is configured; no session was made.

    `variable` is the environment variable to set; it is None where a provider named none.
    """

    def __init__(self, provider: str, variable: str | None, problem: str = "") -> None:
        missing = "it does not say why" if variable is None else f"set {variable}"
        super().__init__(f"provider {provider!r} is not configured: {problem or missing}")
        self.provider = provider
        self.variable = variable


class UnusableExtension(VoiceError, ValueError):
    """A provider or an engine that somebody brought along can't be used as it is; nothing was done.

    `group` is what it was brought along as ("agentos_voice.providers" or "agentos_voice.stt"), `name` what it is called,
    `distribution` the installed distribution that offers it, None for what the host handed over.
    """

    def __init__(self, group: str, name: str, problem: str, *, distribution: str | None = None) -> None:
        whose = "handed over to the service" if distribution is None else f"of the distribution {distribution}"
        super().__init__(f"{name!r} ({group}), {whose}, can't be used: {problem}")
        self.group = group
        self.name = name
        self.distribution = distribution


class StopNotConfirmed(VoiceError, TimeoutError):
    """The session did not say that it has stopped, within all its deadlines; it may still be stopping. `session_id` is the
    session. This is a fault of ours: the session's parts and their supervisor failed together."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} did not confirm that it has stopped; stop it again")
        self.session_id = session_id


class Draining(VoiceError, RuntimeError):
    """The service is being drained: calls that run go on to their end, a new one was refused. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("the voice service is draining and takes no new calls; send the call to another process")


class ServiceClosed(VoiceError, RuntimeError):
    """The service was closed, or has not been started; it takes no more calls."""

    def __init__(self, message: str = "the voice service is closed; create a new one") -> None:
        super().__init__(message)


class ServiceNotReachable(VoiceError, OSError):
    """No running service answers where one was looked for, or it answers nothing that is understood. `path` is the control
    socket that was tried; None when there is none."""

    def __init__(self, problem: str, *, path: str | None = None) -> None:
        super().__init__(problem)
        self.path = path


class SettingsError(VoiceError, ValueError):
    """A setting has no legal value. `variable` is the environment variable or key that carries it, if known."""

    def __init__(self, message: str, *, variable: str | None = None) -> None:
        super().__init__(message)
        self.variable = variable


class UnsafeExposure(SettingsError):
    """The server would be open to others without asking who they are; it was not started. `host` is the address asked for."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"without authentication nothing is served on {host!r}, only on this machine's own addresses: leave --no-auth out, "
            "or use --host 127.0.0.1 (or ::1)"
        )
        self.host = host


class CannotListen(VoiceError, OSError):
    """The server can't take connections where it was told to; it was not started. `host` and `port` are the address."""

    def __init__(self, host: str, port: int, problem: str) -> None:
        super().__init__(
            f"the server can't listen on {host!r}, port {port}: {problem}; choose another with --host and --port"
        )
        self.host = host
        self.port = port


# --- at the door of the server ---------------------------------------------------------------------------------------


class Unauthenticated(VoiceError, PermissionError):
    """It is not known who asks. Nothing was done; the refusal is in evidence.

    `reason` is "no_token", "bad_header" (not `Authorization: Bearer`, once), "token_in_url" (where others see it), or
    "unknown_token" (never made, expired or revoked).
    """

    def __init__(self, reason: NotAuthenticated) -> None:
        super().__init__(_NOT_AUTHENTICATED[reason])
        self.reason: NotAuthenticated = reason

    @property
    def challenge(self) -> str:
        """The `WWW-Authenticate` header of the answer."""
        error = {"bad_header": "invalid_request", "token_in_url": "invalid_request", "unknown_token": "invalid_token"}
        said = error.get(self.reason)
        return REALM if said is None else f'{REALM}, error="{said}"'


REALM = 'Bearer realm="agentos-voice"'
_NOT_AUTHENTICATED: dict[NotAuthenticated, str] = {
    "no_token": "a token is needed: send it as `Authorization: Bearer avt_…`; "
    "`agentos-voice token create NAME --role ROLE` makes one",
    "bad_header": "the Authorization header must be there once, as `Bearer avt_…`",
    "token_in_url": "a token was in the URL, where logs keep it: revoke it, and send a new one as `Authorization: Bearer`",
    "unknown_token": "the token is not known, has expired or was revoked: ask for a new one",
}


class Forbidden(VoiceError, PermissionError):
    """It is known who asks, or nobody has to say, but this is not allowed. Nothing was done; the refusal is in evidence.

    `reason` is "role", "project", "origin" (a page of another site), "host" (another name than the server's), or "proxied"
    (through a proxy, or from another machine, to a server that asks nobody who they are).
    """

    def __init__(self, message: str, *, reason: NotAllowed) -> None:
        super().__init__(message)
        self.reason: NotAllowed = reason


class InvalidTicket(VoiceError, PermissionError):
    """A stream can't be opened with this ticket or resume token. Nothing was done; the refusal is in evidence.

    `reason` is "unknown_ticket", "expired_ticket", "used_ticket", "replaced_ticket" (a newer one of its session was used),
    "unknown_resume" (never made, replaced, or its session is gone), or "revoked_token" (that of whoever opened the stream
    was revoked, or has expired).
    """

    def __init__(self, reason: BadTicket) -> None:
        super().__init__(f"the {_CREDENTIAL[reason]}: ask for a new ticket")
        self.reason: BadTicket = reason


_CREDENTIAL: dict[BadTicket, str] = {
    "unknown_ticket": "ticket is not known",
    "expired_ticket": "ticket has expired",
    "used_ticket": "ticket was used before",
    "replaced_ticket": "ticket was replaced by a newer one",
    "unknown_resume": "resume token is not known, or no longer",
    "revoked_token": "access token behind it was revoked or has expired",
}


class RateLimited(VoiceError, RuntimeError):
    """Too much was asked by one client. Nothing was done; the same may work after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(f"{message}; try again in {retry_after_seconds:g} s")
        self.retry_after_seconds = retry_after_seconds


class RequestTooLarge(VoiceError, ValueError):
    """A request has more bytes than are taken; the rest was not read. `limit_bytes` is the largest that is."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the request is too large: at most {limit_bytes:,} bytes are taken")
        self.limit_bytes = limit_bytes


class RequestTooSlow(VoiceError, TimeoutError):
    """A request did not come whole in time; it was not carried out. `timeout_seconds` is the time that there is."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(f"the request did not come whole within {timeout_seconds:g} s")
        self.timeout_seconds = timeout_seconds


class KeyReused(VoiceError, ValueError):
    """The idempotency key was used for another request. Nothing was done; a new request needs a new key."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another request: use a new key for a new request")


class KeyInUse(VoiceError, RuntimeError):
    """The request with this idempotency key is still being carried out. Nothing more was done; its answer will be there after
    `retry_after_seconds`, most likely."""

    def __init__(self, *, retry_after_seconds: float) -> None:
        super().__init__(
            f"the request with this Idempotency-Key is still being carried out; try again in {retry_after_seconds:g} s"
        )
        self.retry_after_seconds = retry_after_seconds


# --- at a client of the server ---------------------------------------------------------------------------------------


class StreamClosed(VoiceError, ConnectionError):
    """A stream was closed and can't go on; the session stands as it was. What was sent and not acknowledged may be lost.

    `code` is the WebSocket's close code, as in `machines.stream.messages.StreamCode`, and `reason` what the server said.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the stream was closed ({code}): {reason or 'no reason was given'}")
        self.code = code
        self.reason = reason


class RequestRefused(VoiceError, RuntimeError):
    """A server refused a request. `status` is the HTTP status, `name` the kind of problem, as `session-not-found`, and
    `problem` all that it said. After `retry_after_seconds`, where that is set, the same request may work."""

    def __init__(self, status: int, name: str, problem: dict[str, Any]) -> None:
        super().__init__(
            f"the server refused the request ({status} {name}): {problem.get('detail') or 'it did not say why'}"
        )
        self.status = status
        self.name = name
        self.problem = problem
        self.retry_after_seconds: float | None = problem.get("retry_after_seconds")
