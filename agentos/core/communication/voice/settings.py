"""Every setting of the voice backend: from arguments, the environment, or a TOML file, in this order.

A setting's environment variable is its name in capitals behind `AGENTOS_VOICE_` (`AGENTOS_VOICE_HOME`); the three Twilio
ones have the names that Twilio gives them. `AGENTOS_VOICE_CONFIG` may name a TOML file whose keys are the settings'
names. An empty variable counts as one that is not set. A unit stands in the name; times are seconds.
"""

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import platformdirs
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from agentos.core.communication.voice.errors import SettingsError
from agentos.core.communication.voice.logs import logger

Network = IPv4Network | IPv6Network

log = logger(__name__)

PREFIX = "AGENTOS_VOICE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
TOKEN_VARIABLE = (
    f"{PREFIX}ADMIN_TOKEN"  # read by the command line only, and no setting: a service has no token of its own
)
APPLICATION = "agentos-voice"
LONGEST_SILENCE_SECONDS: Final = 86_400

_warned_of: set[str] = set()  # by this process


def _platform_home() -> Path:
    return Path(platformdirs.user_data_dir(APPLICATION, appauthor=False))


def _default_stt_workers() -> int:
    return min(2, os.cpu_count() or 1)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _networks(value: object) -> object:
    """Networks: texts, in each of which commas may stand between them."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(one, str | Network) for one in values):
        raise ValueError("must be addresses or networks, as 10.0.0.7 or 10.1.0.0/16")
    return tuple(ip_network(text.strip()) for one in values for text in str(one).split(",") if text.strip())


class VoiceSettings(BaseSettings):
    """The settings of one service; frozen.

    Made directly it raises pydantic's `ValidationError`; `load_settings` gives one clear line instead.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # an input may be a secret
        populate_by_name=True,
        validate_default=True,
    )

    home: Path = Field(
        default_factory=_platform_home,
        description="Folder of the database, the recordings and the spill files; `~` is expanded, a relative path counts "
        "from the current folder. Processes that share it share one evidence chain.",
    )

    heads: Path | None = Field(
        default=None,
        description="File in which the service notes where its evidence chain ends, and against which it checks the chain when "
        "it starts. It belongs where whoever can write the home can't write. Not set, nothing is noted.",
    )

    loop: Literal["asyncio", "trio"] = Field(
        default="asyncio",
        description="Event loop of the blocking service's own thread; the async service runs on its host's loop.",
    )
    uvloop: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether the blocking service's asyncio loop is uvloop; `auto` takes it when it is installed.",
    )

    drain_timeout_seconds: float = Field(
        default=10,
        ge=0,
        le=86_400,
        description="How long running calls may go on after the service was told to drain; then they are stopped. With the "
        "stop and its evidence, the default stays below the 30 seconds that container platforms grant.",
    )
    stop_timeout_seconds: float = Field(
        default=10,
        gt=0,
        le=600,
        description="How long recorder and transcriber may take to finish after a stop; then the session ends without "
        "them, and says so. The last seconds of speech take about a second to decode.",
    )
    leg_timeout_seconds: float = Field(
        default=10,
        gt=0,
        le=600,
        description="How long a provider may take to open the leg of a call, and to hang it up, before that counts as failed: "
        "far beyond a request to a telephone company. No end of a session waits for it, only the end of the service.",
    )
    evidence_timeout_seconds: float = Field(
        default=5,
        gt=0,
        le=600,
        description="How long a record may take to become durable before it counts as failed: far beyond a slow disk's "
        "flush, short enough for a caller to wait.",
    )
    idle_timeout_seconds: float = Field(
        default=300,
        gt=0,
        le=86_400,
        description="A session without audio for so long is stopped, so that a forgotten call does not hold its place.",
    )
    silence_timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_SILENCE_SECONDS,
        description="A session in which nobody speaks for so long is stopped, whatever noise its line carries: in which no "
        "word is heard or, without transcription, no voice. Who asks for a session may say otherwise. Not set, it ends none.",
    )
    max_session_seconds: float = Field(
        default=3600,
        gt=0,
        le=604_800,
        description="The longest a session may last; a call that nobody ends still ends.",
    )
    create_timeout_seconds: float = Field(
        default=30,
        gt=0,
        le=600,
        description="How long creating a session may take, policy and durable evidence included, before it is refused.",
    )
    dispatch_timeout_seconds: float = Field(
        default=2,
        ge=0,
        le=60,
        description="How long a chunk may wait for room before it is refused as overload; 0 refuses at once. Callers "
        "that stream live can't wait longer without falling behind.",
    )

    max_chunk_bytes: int = Field(
        default=1_048_576,
        ge=1,
        le=67_108_864,
        description="The largest audio chunk that is taken at once: half a minute of the default format, so one call "
        "can't take all the room.",
    )
    max_metadata_bytes: int = Field(
        default=16_384,
        ge=2,
        le=1_048_576,
        description="The largest metadata of a session, as JSON; it is written into every snapshot of the session.",
    )
    max_metadata_depth: int = Field(
        default=8,
        ge=1,
        le=32,
        description="How deep metadata may be nested; deeper is a mistake or an attack on the JSON reader.",
    )
    backlog_seconds: float = Field(
        default=30,
        gt=0,
        le=600,
        description="Audio of one session that may wait inside for recorder and transcriber; beyond it, chunks wait at "
        "the door, or, from providers that can't be slowed, take the place of the oldest. It bounds the memory of a session: a "
        "megabyte in the default format.",
    )
    max_sessions: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Sessions that may run at once in this process; one more is refused as overload.",
    )
    max_connections: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Connections that a server holds at once; fewer where the limit on open files leaves less. One more takes "
        "the place of the oldest that has shown no good token or ticket, and is refused where there is none.",
    )
    max_unauthenticated_connections: int = Field(
        default=2_500,
        ge=1,
        le=1_000_000,
        description="Connections that have shown no good token or ticket yet; one more takes the place of the oldest of them.",
    )
    max_connections_per_client: int = Field(
        default=2_500,
        ge=1,
        le=1_000_000,
        description="Connections from one address (IPv6: one /64 network); one more takes the place of the oldest from there "
        "that has shown no good token or ticket, and is refused where there is none. Trusted proxies are not bound by it.",
    )
    max_event_streams_per_token: int = Field(
        default=200,
        ge=1,
        le=1_000_000,
        description="Live event streams (`text/event-stream`) that one token may follow at once; one more is refused.",
    )
    memory_limit_bytes: int | None = Field(
        default=None,
        ge=1_048_576,
        description="Memory that this process may have; not set, it is the container's limit or what the machine has.",
    )
    memory_watermark: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of that memory beyond which new sessions are refused as overload; the rest is for those that "
        "run. Speech-to-text workers are processes of their own and do not count.",
    )
    max_loop_lag_seconds: float = Field(
        default=0.5,
        gt=0,
        le=600,
        description="Beyond an event loop that is late by so much for a second, new sessions are refused as overload: "
        "frames come every 20 ms.",
    )
    max_mailbox_age_seconds: float = Field(
        default=2,
        gt=0,
        le=600,
        description="Beyond work that waits inside for so long, in the actors or for the media thread, new sessions are "
        "refused as overload.",
    )

    on_stt_unavailable: Literal["fallback", "record_only", "refuse"] = Field(
        default="fallback",
        description="What to do when the speech-to-text engine that was asked for can't be had: take the embedded one, "
        "go on without transcript, or refuse the session. With `record_only` it also goes on without one where the engines "
        "are too far behind, which is overload otherwise.",
    )
    stt_workers: int = Field(
        default_factory=_default_stt_workers,
        ge=1,
        le=256,
        description="Speech-to-text worker processes at most; each keeps a core busy while it decodes and takes about "
        "100 MB a stream.",
    )
    stt_start_timeout_seconds: float = Field(
        default=20,
        gt=0,
        le=600,
        description="How long a worker process may take until it is ready; loading a model takes half a second idle and "
        "many times that on a busy machine.",
    )
    stt_hang_timeout_seconds: float = Field(
        default=10,
        gt=0,
        le=600,
        description="A worker that has audio and answers nothing for so long is killed and replaced.",
    )

    recording_format: Literal["flac", "wav"] = Field(
        default="flac",
        description="File format of recordings; both are lossless, FLAC takes about 60 % of the room.",
    )
    recording_segment_seconds: int = Field(
        default=60,
        ge=1,
        le=3600,
        description="Length of a recording's segments on disk: a crash in the middle of one loses nothing of it, a power cut "
        "perhaps its last seconds.",
    )
    account_seconds: float = Field(
        default=10,
        gt=0,
        le=3600,
        description="How often a running session's frames are accounted in an evidence record; one record a frame would "
        "be fifty a second.",
    )

    spill_max_bytes: int = Field(
        default=4_194_304,
        ge=65_536,
        le=1_073_741_824,
        description="Room set aside on disk for final records while the store can't take them: about a thousand.",
    )
    store_busy_timeout_seconds: float = Field(
        default=2,
        ge=0,
        le=60,
        description="How long a write waits for another process that holds the database before it fails as locked.",
    )

    recovery_interval_seconds: float = Field(
        default=30,
        gt=0,
        le=86_400,
        description="How often a running service looks for sessions of processes that died, to end them; it does so when it "
        "starts, too.",
    )

    resume_window_seconds: float = Field(
        default=0,
        ge=0,
        le=3600,
        description="How long the sessions of a process that died wait for their callers to come back to another one, from its "
        "last sign of life; only those that were created as `resumable`. 0: they are ended at once.",
    )

    heartbeat_seconds: float = Field(
        default=1,
        ge=0,
        le=600,
        description="How often the ports of audio and speech are asked for a sign of life, after each answer; 0 never asks.",
    )
    heartbeat_timeout_seconds: float = Field(
        default=5,
        gt=0,
        le=600,
        description="A port that gives none for so long counts as failed until it does: new sessions that need it are refused "
        "as overload, and a session that ends does not wait for it, nor for a speech-to-text worker that answers nothing for "
        "so long. Longer than a busy disk holds a write up.",
    )

    slow_step_seconds: float = Field(
        default=0,
        ge=0,
        le=600,
        description="A step of an actor that runs longer is in the log and the statistics: everybody else waited for it. "
        "0 does not look; otherwise each step costs a reading of the clock, some hundredths of a microsecond on most machines, "
        "and a third of one on some.",
    )

    restart_limit: int = Field(
        default=5,
        ge=0,
        le=1000,
        description="Crashes of one part within the window that are still answered by a restart; one more ends its "
        "session. 0 never restarts.",
    )
    restart_window_seconds: float = Field(
        default=60,
        gt=0,
        le=86_400,
        description="The window in which crashes count.",
    )

    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = Field(
        default_factory=tuple,
        description="Addresses or networks of the proxies in front of the server, with commas between them: the client is the "
        "one that they name in `X-Forwarded-For` or `Forwarded`. Nobody else is believed.",
    )
    requests_per_second: float = Field(
        default=100,
        gt=0,
        le=1_000_000,
        description="Requests to the server that one token may make in the long run; more get 429.",
    )
    requests_burst: int = Field(
        default=400,
        ge=1,
        le=1_000_000,
        description="Requests that one token may make at once.",
    )
    unknown_tokens_per_second: float = Field(
        default=20,
        gt=0,
        le=1_000_000,
        description="Tokens and tickets that are not good which one client may show in the long run before they get 429 "
        "instead of 401; good ones are never held off by them.",
    )
    unknown_tokens_burst: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="Tokens and tickets that are not good which one client may show at once.",
    )

    control_socket: Literal["on", "off"] = Field(
        default="on",
        description="Whether a running service answers on a Unix socket in the folder `run` of its home, for `top` and "
        "`trace`; only its own user can open it, and nothing private is told there.",
    )

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="warning",
        description="Least severity that is logged, below the logger `agentos.core.communication.voice`; embedded, the "
        "host's own level counts until this is set.",
    )

    twilio_account_sid: str | None = Field(
        default=None,
        min_length=1,
        validation_alias=AliasChoices("twilio_account_sid", "TWILIO_ACCOUNT_SID"),
        description="The Twilio account; needed for `VoiceProvider.TWILIO`.",
    )
    twilio_auth_token: SecretStr | None = Field(
        default=None,
        min_length=1,
        validation_alias=AliasChoices("twilio_auth_token", "TWILIO_AUTH_TOKEN"),
        description="The Twilio account's secret; never shown, stored or logged.",
    )
    twilio_twiml_app_sid: str | None = Field(
        default=None,
        min_length=1,
        validation_alias=AliasChoices("twilio_twiml_app_sid", "TWILIO_TWIML_APP_SID"),
        description="The TwiML application that Twilio asks what to do with a call.",
    )

    @property
    def database(self) -> Path:
        """The file that holds evidence, sessions and events."""
        return self.home / "voice.db"

    @property
    def recordings(self) -> Path:
        """The folder that holds a folder for each recorded session."""
        return self.home / "recordings"

    @field_validator("home", "heads", mode="after")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        try:
            return None if path is None else path.expanduser().absolute()
        except RuntimeError as error:  # `~nobody`
            raise ValueError("names a user that does not exist") from error

    @model_validator(mode="after")
    def _consistent(self) -> "VoiceSettings":
        if self.uvloop == "on" and self.loop == "trio":
            raise ValueError("uvloop 'on' needs loop 'asyncio'; trio has its own loop")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file; no `.env` and no secrets folder."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=_file_values())


def variable_of(field: str) -> str:
    """The environment variable that carries the setting `field`."""
    return field.upper() if field.startswith("twilio_") else f"{PREFIX}{field.upper()}"


def load_settings(**overrides: Any) -> VoiceSettings:
    """The settings as arguments, environment and file have them now; what `overrides` names goes before all else.

    Raises `SettingsError` naming the variable, argument or file key that is wrong, in one line that repeats no secret.
    A variable that has our prefix and is no setting is warned of once, in the log.
    """
    _warn_of_unknown_variables()
    try:
        return VoiceSettings(**overrides)
    except ValidationError as error:
        problems = [_problem(item, overrides) for item in error.errors(include_url=False)]
        raise SettingsError("; ".join(text for _, text in problems), variable=problems[0][0]) from None


def unknown_variables() -> dict[str, str | None]:
    """The variables that are set, have our prefix and mean nothing, each with the nearest known name, if one is near."""
    known = [*map(variable_of, VoiceSettings.model_fields), CONFIG_VARIABLE, TOKEN_VARIABLE]
    ours = [name.removeprefix(PREFIX) for name in known if name.startswith(PREFIX)]
    found: dict[str, str | None] = {}
    for name in sorted(name for name, value in os.environ.items() if value and name.upper().startswith(PREFIX)):
        if name.upper() not in known:
            near = get_close_matches(name.upper().removeprefix(PREFIX), ours, n=1)
            found[name] = PREFIX + near[0] if near else None
    return found


def _warn_of_unknown_variables() -> None:
    unknown = unknown_variables()
    for name in unknown.keys() - _warned_of:
        _warned_of.add(name)
        nearest = unknown[name]
        log.warning("%s is no setting and is ignored%s", name, f"; did you mean {nearest}?" if nearest else "")


def _file_values() -> dict[str, Any]:
    name = os.environ.get(CONFIG_VARIABLE)
    if not name:
        return {}
    try:
        with Path(name).expanduser().open("rb") as file:
            return tomllib.load(file)
    except (OSError, RuntimeError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: can't read {name!r}: {error}", variable=CONFIG_VARIABLE) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: {name!r} is not TOML: {error}", variable=CONFIG_VARIABLE) from None


def _problem(item: Mapping[str, Any], overrides: Mapping[str, Any]) -> tuple[str | None, str]:
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not item["loc"]:
        return None, message
    field = str(item["loc"][0]).lower()
    if item["type"] == "extra_forbidden":
        place = "as an argument" if item["loc"][0] in overrides else f"in the file that {CONFIG_VARIABLE} names"
        return str(item["loc"][0]), f"{item['loc'][0]}: there is no such setting ({place})"
    name = _origin(field, overrides)
    got = "" if field == "twilio_auth_token" else f", got {item['input']!r}"
    return name, f"{name}: {message}{got}"


def _origin(field: str, overrides: Mapping[str, Any]) -> str:
    if field in overrides:
        return field
    set_variables = {name.upper() for name, value in os.environ.items() if value}  # names are read in any case
    return variable_of(field) if variable_of(field) in set_variables else f"{field} (in {CONFIG_VARIABLE})"
