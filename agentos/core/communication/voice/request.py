"""From the arguments of `create_session` to the facts that the actors work with; what is wrong is refused here.

Ids and secrets are made here, and an admin token ends here: only whether it was valid goes on.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from actors.messages import Facts
from agentos.core.communication.voice.errors import InvalidRequest, STTUnavailable
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.stt.base import missing
from agentos.core.time import utc_now_ms
from machines.audio import AudioFormat
from machines.frozen import frozen
from machines.policy import VoicePolicy
from machines.session import STTProvider, VoiceProvider

TOKEN_KEY = "admin_token"  # noqa: S105 - the name of the key, not a token
EMBEDDED = STTProvider.POCKETSPHINX


class SessionRequest(NamedTuple):
    """A valid request: who asks for what. `admin_token` is kept apart from the metadata, and from everything stored."""

    project_id: str
    provider: VoiceProvider
    stt_provider: STTProvider
    metadata: Mapping[str, Any]
    audio_format: AudioFormat
    admin_token: str | None


def read_request(
    policy: VoicePolicy,
    settings: VoiceSettings,
    *,
    project_id: str,
    provider: VoiceProvider,
    stt_provider: STTProvider,
    metadata: Mapping[str, Any] | None,
    audio_format: AudioFormat | None,
    admin_token: str | None,
) -> SessionRequest:
    """The request that these arguments make. Raises `InvalidRequest`, naming the field, for any that is not valid."""
    given = _checked_metadata(metadata, settings)
    in_metadata = given.pop(TOKEN_KEY, None)
    token = admin_token if admin_token is not None else in_metadata
    if token is not None and not isinstance(token, str):
        raise InvalidRequest("admin_token must be a string", field=TOKEN_KEY)
    if audio_format is not None and not isinstance(audio_format, AudioFormat):
        raise InvalidRequest(f"audio_format must be an AudioFormat, got {audio_format!r}", field="audio_format")
    valid, problem = policy.validate_session_params(project_id, provider, stt_provider, given)
    if not valid:
        raise InvalidRequest(problem, field=problem.split("[")[0].split(" ")[0])
    return SessionRequest(project_id, provider, stt_provider, frozen(given), audio_format or AudioFormat(), token)


def choose_engine(asked: STTProvider, settings: VoiceSettings) -> tuple[STTProvider | None, str]:
    """The engine that will run (None: none, the session only records), and why it is another one than was asked for.

    Raises `STTUnavailable` when the settings say to refuse.
    """
    reason = "stt_workers is 0" if settings.stt_workers == 0 else missing(asked)
    if reason is None:
        return asked, ""
    rule = settings.on_stt_unavailable
    if rule == "refuse":
        raise STTUnavailable(f"the speech-to-text engine {asked.value!r} can't be had: {reason}")
    if rule == "fallback" and settings.stt_workers and missing(EMBEDDED) is None:
        return EMBEDDED, reason
    return None, reason


def make_facts(request: SessionRequest, settings: VoiceSettings, *, admin_token_valid: bool) -> Facts:
    """The facts of a new session, with fresh ids.

    Raises `STTUnavailable` as `choose_engine` does.
    """
    engine, fallback = choose_engine(request.stt_provider, settings)
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
    )


def _checked_metadata(metadata: Mapping[str, Any] | None, settings: VoiceSettings) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidRequest(f"metadata must be a mapping, got {type(metadata).__name__}", field="metadata")
    _check_depth(metadata, settings.max_metadata_depth)
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
        text.encode()
        copy: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"metadata must be JSON: {error}", field="metadata") from None
    if len(text) > settings.max_metadata_bytes:
        problem = f"metadata has {len(text):,} bytes as JSON and at most {settings.max_metadata_bytes:,} are taken"
        raise InvalidRequest(problem, field="metadata")
    return copy


def _check_depth(metadata: Mapping[str, Any], limit: int) -> None:
    level: list[Any] = [metadata]
    for _ in range(limit):
        level = [item for value in level for item in _items(value)]
        if not level:
            return
    raise InvalidRequest(f"metadata is nested deeper than {limit} levels", field="metadata")


def _items(value: object) -> list[Any]:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidRequest(f"metadata keys must be strings, got {key!r}", field="metadata")
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [item for item in value if isinstance(item, Mapping | list | tuple)]
    return []
