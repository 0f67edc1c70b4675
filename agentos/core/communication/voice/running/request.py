"""From the arguments of `create_session` to the facts that the actors work with; what is wrong is refused here.

Ids and secrets are made here, and an admin token ends here: only whether it was valid goes on.
"""

import json
import secrets
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import SecretStr

from actors.voice.messages import NO_OPTIONS, Facts
from agentos.core.communication.voice.errors import InvalidRequest, STTUnavailable
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.secrets_in_text import ACCESS_PREFIX, holds_secret
from agentos.core.communication.voice.settings import LONGEST_SILENCE_SECONDS, VoiceSettings
from agentos.core.communication.voice.stt.registry import Engines
from agentos.core.time import utc_now_ms
from machines.audio import AudioFormat
from machines.frozen import frozen
from machines.names import EngineName, ProviderName, text_of
from machines.policy import VoicePolicy, mistaken_flags
from machines.problem import field_of
from machines.session import STTProvider, VoiceProvider

TOKEN_KEY = "admin_token"  # noqa: S105 - the name of the key, not a token
EMBEDDED = STTProvider.POCKETSPHINX
MAX_PROJECT_ID = 200  # characters; it is in every record and snapshot
MOST_WARNED_OF: Final = 100  # keys of metadata; what comes from callers must not fill the memory

log = logger(__name__)

E = TypeVar("E", bound=Enum)

_warned_of: set[str] = set()


def member(kind: type[E], value: object) -> Any:
    """The member of `kind` that has this value, as HTTP names it (`"local"`); `value` itself when there is none."""
    if isinstance(value, str) and not isinstance(value, kind):
        return next((known for known in kind if known.value == value), value)
    return value


class SessionRequest(NamedTuple):
    """A valid request: who asks for what. `admin_token` is kept apart from the metadata, and from everything stored."""

    project_id: str
    provider: VoiceProvider | ProviderName
    stt_provider: STTProvider | EngineName
    metadata: Mapping[str, Any]
    audio_format: AudioFormat
    admin_token: SecretStr | None
    resumable: bool = False
    silence_timeout_seconds: float | None = None
    stt_options: Mapping[str, Any] = NO_OPTIONS


def read_request(  # noqa: PLR0913 - the arguments of `create_session`, all named
    policy: VoicePolicy,
    settings: VoiceSettings,
    *,
    project_id: str,
    provider: VoiceProvider | ProviderName,
    stt_provider: STTProvider | EngineName,
    metadata: Mapping[str, Any] | None,
    audio_format: AudioFormat | None,
    admin_token: str | None,
    resumable: bool = False,
    silence_timeout_seconds: float | None = None,
    stt_options: Mapping[str, Any] | None = None,
) -> SessionRequest:
    """The request that these arguments make; the service has found provider and engine by their names.

    Raises `InvalidRequest`, naming the field, for any that is not valid; a policy of a host's own may name none.
    """
    in_metadata, rest = _without_token(metadata)
    given = _checked_json(rest, settings, "metadata")
    options = _checked_json(_mapping(stt_options, "stt_options"), settings, "stt_options")
    token = admin_token if admin_token is not None else in_metadata
    if token is not None and not isinstance(token, str):
        raise InvalidRequest("admin_token must be a string", field=TOKEN_KEY)
    if audio_format is not None and not isinstance(audio_format, AudioFormat):
        raise InvalidRequest(f"audio_format must be an AudioFormat, got {audio_format!r}", field="audio_format")
    _check_resumable(resumable, settings)
    _check_silence(silence_timeout_seconds)
    _check_no_token(project_id, "project_id")
    valid, problem = policy.validate_session_params(project_id, provider, stt_provider, given)
    if not valid:
        raise InvalidRequest(str(problem) or "the policy does not take these arguments", field=field_of(problem))
    if len(project_id) > MAX_PROJECT_ID or not project_id.isprintable():
        problem = (
            f"project_id must be at most {MAX_PROJECT_ID} printable characters, got {project_id[:MAX_PROJECT_ID]!a}"
        )
        raise InvalidRequest(problem, field="project_id")
    _warn_of_mistaken_flags(given)
    secret = None if token is None else SecretStr(token)
    silence = settings.silence_timeout_seconds if silence_timeout_seconds is None else float(silence_timeout_seconds)
    return SessionRequest(
        project_id=project_id,
        provider=provider,
        stt_provider=stt_provider,
        metadata=frozen(given),
        audio_format=audio_format or AudioFormat(),
        admin_token=secret,
        resumable=resumable,
        silence_timeout_seconds=silence,
        stt_options=options,
    )


def choose_engine(
    asked: STTProvider | EngineName, settings: VoiceSettings, engines: Engines
) -> tuple[STTProvider | EngineName | None, str]:
    """The engine that will run (None: none, the session only records), and why it is another one than was asked for.

    Raises `STTUnavailable` when the settings say to refuse.
    """
    reason = engines.missing(asked)
    if reason is None:
        return asked, ""
    rule = settings.on_stt_unavailable
    if rule == "refuse":
        raise STTUnavailable(f"the speech-to-text engine {text_of(asked)!r} can't be had: {reason}")
    if rule == "fallback" and engines.missing(EMBEDDED) is None:
        return EMBEDDED, reason
    return None, reason


def make_facts(
    request: SessionRequest,
    settings: VoiceSettings,
    engines: Engines,
    *,
    admin_token_valid: bool | None,
    can_be_slowed: bool = True,
) -> Facts:
    """The facts of a new session, with fresh ids. `admin_token_valid` is None when no token was given; `can_be_slowed` is the
    provider's. Options are those of the engine that was asked for: one that stands in for it has its own defaults.

    Raises `STTUnavailable` as `choose_engine` does, `InvalidRequest` for an option that the engine does not take.
    """
    engine, fallback = choose_engine(request.stt_provider, settings, engines)
    options = {} if engine is None else engines.options(engine, {} if fallback else request.stt_options)
    return Facts(
        session_id=f"voice-{secrets.token_hex(12)}",
        project_id=request.project_id,
        provider=request.provider,
        stt_provider=request.stt_provider,
        stt_engine=engine,
        fallback=fallback,
        audio_format=request.audio_format,
        recording=bool(request.metadata.get("recording_enabled", False)),
        metadata=request.metadata,
        audit_trace_id=f"audit-{secrets.token_hex(8)}",
        secret=secrets.token_hex(12),
        admin_token_valid=admin_token_valid,
        created_at_ms=utc_now_ms(),
        can_be_slowed=can_be_slowed,
        resumable=request.resumable,
        silence_seconds=request.silence_timeout_seconds,
        stt_options=frozen(options),
    )


def ports_of(*, transcribed: bool) -> tuple[str, ...]:
    """The ports that a call needs, by the names that the health watch knows: every call's audio is digested and measured by the
    media port, recorded or not; speech is for those that are transcribed."""
    return ("media", "speech") if transcribed else ("media",)


def _warn_of_mistaken_flags(metadata: dict[str, Any]) -> None:
    """Say, once for each key, that a key changes nothing though it looks as if it should."""
    for key, flag in mistaken_flags(metadata).items():
        if key not in _warned_of and len(_warned_of) < MOST_WARNED_OF:
            _warned_of.add(key)
            log.warning("metadata_key_is_no_flag", key=key, did_you_mean=flag)


def _check_resumable(resumable: object, settings: VoiceSettings) -> None:
    if not isinstance(resumable, bool):
        raise InvalidRequest(f"resumable must be True or False, got {resumable!r}", field="resumable")
    if resumable and not settings.resume_window_seconds:
        problem = "resumable needs a window to come back in: set AGENTOS_VOICE_RESUME_WINDOW_SECONDS"
        raise InvalidRequest(problem, field="resumable")


def _check_silence(seconds: object) -> None:
    if seconds is None:
        return
    known = (
        isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_SILENCE_SECONDS
    )
    if not known:
        problem = (
            f"silence_timeout_seconds must be a number of seconds above 0 and up to {LONGEST_SILENCE_SECONDS:,}, "
            f"got {seconds!r}"
        )
        raise InvalidRequest(problem, field="silence_timeout_seconds")


def _without_token(metadata: Mapping[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    rest = _mapping(metadata, "metadata")
    return rest.pop(TOKEN_KEY, None), rest


def _mapping(value: Mapping[str, Any] | None, field: str) -> dict[str, Any]:
    """A copy. Raises `InvalidRequest` for what is no mapping."""
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequest(f"{field} must be a mapping, got {type(value).__name__}", field=field)
    return dict(value or {})


def _check_no_token(value: object, field: str) -> None:
    """A token inside what is stored would be stored with it. Raises `InvalidRequest` when there is one."""
    if isinstance(value, str) and (value.startswith(ACCESS_PREFIX) or holds_secret(value)):
        raise InvalidRequest(
            f"{field} holds a token, where it would be stored: hand it over as admin_token", field=field
        )
    if isinstance(value, dict):
        for key, item in value.items():
            _check_no_token(key, field)
            if key.lower() == TOKEN_KEY:
                raise InvalidRequest(
                    f"{field} holds {key!r} where it would be stored: hand it over as admin_token", field=field
                )
            _check_no_token(item, field)
    elif isinstance(value, list):
        for item in value:
            _check_no_token(item, field)


def _checked_json(value: dict[str, Any], settings: VoiceSettings, field: str) -> dict[str, Any]:
    """A copy as JSON has it. Raises `InvalidRequest` for what is no JSON, too large or too deep, or holds a token."""
    limit = settings.max_metadata_bytes
    _check_shape(value, settings.max_metadata_depth, limit, field)
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        n_bytes = len(text.encode())
        copy: dict[str, Any] = json.loads(text)
    except UnicodeEncodeError:
        problem = f"{field} must be text that UTF-8 can write, without lone surrogates"
        raise InvalidRequest(problem, field=field) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{field} must be JSON: {error}", field=field) from None
    if n_bytes > limit:
        problem = f"{field} has {n_bytes:,} bytes as JSON and at most {limit:,} are taken"
        raise InvalidRequest(problem, field=field)
    _check_no_token(copy, field)
    return copy


def _check_shape(given: dict[str, Any], max_depth: int, max_bytes: int, field: str) -> None:
    level: list[Any] = [given]
    for _ in range(max_depth):
        below: list[Any] = []
        for value in level:
            below += _items(value, field)
            if len(below) > max_bytes:  # what holds itself many times grows with each level
                raise InvalidRequest(f"{field} has more than the {max_bytes:,} bytes that are taken", field=field)
        if not below:
            return
        level = below
    raise InvalidRequest(f"{field} is nested deeper than {max_depth} levels", field=field)


def _items(value: object, field: str) -> list[Any]:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidRequest(f"{field} keys must be strings, got {type(key).__name__}", field=field)
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [item for item in value if isinstance(item, Mapping | list | tuple)]
    return []
