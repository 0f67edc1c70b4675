"""What is stored, as rows of tables. A store (`database.py`) keeps these rows and knows nothing of what they mean.

A value is text (UTF-8, without lone surrogates), a signed integer of 64 bits, bytes, or None. Times end in `_ms`, which are
milliseconds since the epoch, as `created_at` is.
"""

from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from machines.evidence import ChainRow

R = TypeVar("R", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[R]):
    """A table: its `name`, the NamedTuple that its rows are, and how many of its first fields are the `key`.

    No two rows of a table have the same key.
    """

    name: str
    row: type[R]
    key_length: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the fields, in order; the key is first."""
        return self.row._fields  # type: ignore[attr-defined,no-any-return]  # a NamedTuple has them

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the fields that are the key."""
        return self.columns[: self.key_length]


class ContentRow(NamedTuple):
    """A content that was sealed: `seq` is the place of its record, `part` the part of the record that it belongs to."""

    seq: int
    part: str
    salt: bytes
    value: str


class OlderLinkRow(NamedTuple):
    """A link of an older chain, which the chain in the table `evidence` was made from."""

    seq: int
    hash: str


class SessionRow(NamedTuple):
    """The last snapshot of a session, as JSON, what it is found by, and the owner that runs it."""

    session_id: str
    project_id: str
    state: str
    created_at: int
    snapshot: str
    owner: str


class EventRow(NamedTuple):
    """An event that listeners were told, as JSON."""

    session_id: str
    number: int
    event: str


class RecordingRow(NamedTuple):
    """What became of a session's recording since the session ended; `info` is JSON."""

    recording_id: str
    session_id: str
    state: str
    info: str


class TokenRow(NamedTuple):
    """An access token, known by its SHA-256."""

    id: str
    hash: str
    name: str
    role: str
    project: str | None
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


class StreamRow(NamedTuple):
    """The token that the stream of a session goes on with, known by its SHA-256."""

    session_id: str
    hash: str
    token_id: str
    created_at_ms: int


class StreamMarkRow(NamedTuple):
    """Where the frames of a stream's client lie in the session; `stream` is the `hash` of a `StreamRow`."""

    stream: str
    number: int
    frame: int
    media_ms: int


class IdempotencyRow(NamedTuple):
    """A request that may come again, and its answer (`status`, `headers`, `body`), None until it is answered."""

    principal: str
    key: str
    fingerprint: str
    owner: str
    attempt: str
    expires_at_ms: int
    status: int | None = None
    headers: str | None = None
    body: bytes | None = None


EVIDENCE: Final = Table("evidence", ChainRow)
EVIDENCE_CONTENT: Final = Table("evidence_content", ContentRow, key_length=2)
EVIDENCE_BEFORE: Final = Table("evidence_before", OlderLinkRow)
SESSIONS: Final = Table("sessions", SessionRow)
EVENTS: Final = Table("events", EventRow, key_length=2)
RECORDINGS: Final = Table("recordings", RecordingRow)
TOKENS: Final = Table("tokens", TokenRow)
STREAMS: Final = Table("streams", StreamRow)
STREAM_MARKS: Final = Table("stream_marks", StreamMarkRow, key_length=2)
IDEMPOTENCY_KEYS: Final = Table("idempotency_keys", IdempotencyRow, key_length=2)

TABLES: Final[tuple[Table[Any], ...]] = (
    EVIDENCE,
    EVIDENCE_CONTENT,
    EVIDENCE_BEFORE,
    SESSIONS,
    EVENTS,
    RECORDINGS,
    TOKENS,
    STREAMS,
    STREAM_MARKS,
    IDEMPOTENCY_KEYS,
)
"""Every table. A store that has been opened has all of them, empty or not."""
