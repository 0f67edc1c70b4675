"""Messages about a session as a whole: asked for, judged, opened, ended."""

from typing import Any, ClassVar

from msgspec import Struct

from actors.runtime.mailbox import CONTROL, SYSTEM, Ref
from actors.voice.messages.accounts import Account, Transcribed
from actors.voice.messages.events import Fields
from actors.voice.messages.speech import NO_OPTIONS
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict
from machines.frozen import FrozenDict
from machines.session import AudioMismatch, EndReason, STTProvider, VoiceProvider, VoiceSessionState


class Facts(Struct, frozen=True):
    """Everything about a session that is fixed when the session is requested. The service makes the ids and the secret.

    `can_be_slowed` is False where the provider's audio comes in real time and can't be held back.
    `secret` is the unguessable part of the session's evidence ids. `stt_engine` is the engine that will run (None: record
    only); `fallback` gives the reason where this is not the engine of the request. `metadata` is a frozen JSON object without
    a token. `stt_options` are the options of the engine, a frozen JSON object.
    `silence_seconds` is how long nobody may speak before it ends; None: for ever.
    """

    session_id: str
    project_id: str
    provider: VoiceProvider | str
    stt_provider: STTProvider | str
    stt_engine: STTProvider | str | None
    fallback: str
    audio_format: AudioFormat
    recording: bool
    metadata: Any
    audit_trace_id: str
    secret: str
    admin_token_valid: bool | None  # None: none was given
    created_at_ms: int
    can_be_slowed: bool = True
    resumable: bool = False
    silence_seconds: float | None = None
    stt_options: FrozenDict[Any] = NO_OPTIONS


class Resumption(Struct, frozen=True):
    """The durable state of a session whose process died, with which another process goes on.

    `state` is the session's state in evidence, `number` the number of its next record. `account` covers the frames below
    `account.upto`, which the caller need not send again. `heard` is the transcript so far. `age_seconds` is the time since the
    session was requested. `detail` goes into the record of the resumption. `mismatches` of audio and clock are on record.
    """

    state: VoiceSessionState
    number: int
    account: Account
    heard: Transcribed
    age_seconds: float
    detail: Fields = ()
    mismatches: tuple[AudioMismatch, ...] = ()


class OpenSession(Struct, frozen=True):
    """To the supervisor: open this session, and reply `Opened`, `Denied` or `Unevidenced` to `token`."""

    lane: ClassVar[int] = CONTROL
    token: object
    facts: Facts


class ResumeSession(Struct, frozen=True):
    """To the supervisor: go on with this session, which has its verdict, and reply `Opened` or `Unevidenced` to `token`."""

    lane: ClassVar[int] = CONTROL
    token: object
    facts: Facts
    verdict: PolicyVerdict
    resumption: Resumption


class Unawaited(Struct, frozen=True, gc=False):
    """To the supervisor: the request for this session was given up. If the supervisor does not know the session, because its
    request was set aside as a dead letter, the supervisor tells the directory `Closed`."""

    lane: ClassVar[int] = CONTROL
    session_id: str


class Evaluate(Struct, frozen=True):
    """To the policy actor: judge this request and tell `Judged` to `reply_to`."""

    lane: ClassVar[int] = CONTROL
    facts: Facts
    reply_to: Ref


class Judged(Struct, frozen=True):
    """The policy's verdict on a request."""

    lane: ClassVar[int] = CONTROL
    session_id: str
    verdict: PolicyVerdict


class Opened(Struct, frozen=True, gc=False):
    """Reply: the session exists and its creation is durable."""

    session_id: str


class Denied(Struct, frozen=True):
    """Reply: the policy refused, and the refusal is durable. No session was made."""

    verdict: PolicyVerdict


class Unevidenced(Struct, frozen=True, gc=False):
    """Reply: the evidence store did not take the record, so the request is refused."""

    error: str


class Routes(Struct, frozen=True):
    """Supervisor to session: where policy and evidence are now. `epoch` grows with each change; an older one is void."""

    lane: ClassVar[int] = CONTROL
    epoch: int
    policy: Ref
    evidence: Ref


class Stop(Struct, frozen=True):
    """End the session, for `reason`. Frames below `upto` were accepted before and still belong to the session. So do the
    `skipped` frames behind them, which never come, counted by reason.

    The session answers `token`, where given, with `Ended` once it is STOPPED.
    """

    lane: ClassVar[int] = SYSTEM
    reason: EndReason
    upto: int
    token: object = None
    skipped: tuple[tuple[str, int], ...] = ()


class Fail(Struct, frozen=True):
    """Supervisor to session: end as failed, since you crashed too often, or on a stop. `tokens` answer the stop requests."""

    lane: ClassVar[int] = SYSTEM
    error: str
    tokens: tuple[object, ...] = ()


class Ended(Struct, frozen=True, gc=False):
    """Reply: the session is STOPPED. `durable` is False when its final record is not in the store; `spilled` tells whether
    the final record is safe in the spill file."""

    session_id: str
    durable: bool
    spilled: bool
