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
    """What is fixed about a session when it is asked for. Ids and chance are made by whoever asks.

    `can_be_slowed` is False where audio comes in real time whatever we do.
    `secret` is the unguessable part of its evidence ids; `stt_engine` is what will run (None: record only) and
    `fallback` says so when that is not what was asked. `metadata` is a frozen JSON object without any token.
    `stt_options` are what the engine that runs is asked for, a frozen JSON object.
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
    """What is durable of a session whose process died, and what another process goes on with.

    `state` is where evidence has it, `number` that of its next record. `account` says what became of its frames: those below
    `upto` are not expected again. `heard` is its transcript so far. `age_seconds` is the time since it was asked for. `detail`
    goes into the record of its resumption. `mismatches` of audio and clock are on record.
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
    """To the supervisor: nobody waits for the answer about this session any more. If nothing is known of it, because its
    request was set aside as a dead letter, the directory is told `Closed`."""

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
    """End the session, for `reason`. Frames below `upto` were accepted before and still belong to it; so do the `skipped` ones
    behind them, of which it is known, by reason, that they never come.

    `token`, where given, gets `Ended` when the session is STOPPED.
    """

    lane: ClassVar[int] = SYSTEM
    reason: EndReason
    upto: int
    token: object = None
    skipped: tuple[tuple[str, int], ...] = ()


class Fail(Struct, frozen=True):
    """Supervisor to session: it crashed too often, or on being stopped; end as failed. `tokens` wait for the end."""

    lane: ClassVar[int] = SYSTEM
    error: str
    tokens: tuple[object, ...] = ()


class Ended(Struct, frozen=True, gc=False):
    """Reply: the session is STOPPED. `durable` is False when its final record is not in the store; `spilled` tells whether
    it is safe in the spill file."""

    session_id: str
    durable: bool
    spilled: bool
