"""Settings come from arguments, then the environment, then a file; a bad one is named in one line."""

import os
import pickle
import typing
from ipaddress import ip_network
from pathlib import Path

import platformdirs
import pytest
from pydantic import ValidationError

from agentos.core.communication.voice import settings
from agentos.core.communication.voice.errors import SettingsError, VoiceError
from agentos.core.communication.voice.settings import (
    CONFIG_VARIABLE,
    VoiceSettings,
    load_settings,
    unknown_variables,
    variable_of,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
DEFAULTS = {
    "heads": None,
    "loop": "asyncio",
    "uvloop": "auto",
    "drain_timeout_seconds": 10,
    "stop_timeout_seconds": 10,
    "leg_timeout_seconds": 10,
    "evidence_timeout_seconds": 5,
    "idle_timeout_seconds": 300,
    "silence_timeout_seconds": None,
    "max_session_seconds": 3600,
    "create_timeout_seconds": 30,
    "dispatch_timeout_seconds": 2,
    "max_chunk_bytes": 1_048_576,
    "max_metadata_bytes": 16_384,
    "max_metadata_depth": 8,
    "backlog_seconds": 30,
    "max_sessions": 10_000,
    "max_connections": 10_000,
    "max_unauthenticated_connections": 2_500,
    "max_connections_per_client": 2_500,
    "max_event_streams_per_token": 200,
    "memory_limit_bytes": None,
    "memory_watermark": 0.9,
    "max_loop_lag_seconds": 0.5,
    "max_mailbox_age_seconds": 2,
    "on_stt_unavailable": "fallback",
    "stt_workers": min(2, os.cpu_count() or 1),
    "stt_start_timeout_seconds": 20,
    "stt_hang_timeout_seconds": 10,
    "recording_format": "flac",
    "recording_segment_seconds": 60,
    "account_seconds": 10,
    "spill_max_bytes": 4_194_304,
    "store_busy_timeout_seconds": 2,
    "resume_window_seconds": 0,
    "recovery_interval_seconds": 30,
    "heartbeat_seconds": 1,
    "heartbeat_timeout_seconds": 5,
    "slow_step_seconds": 0,
    "restart_limit": 5,
    "restart_window_seconds": 60,
    "trusted_proxies": (),
    "requests_per_second": 100,
    "requests_burst": 400,
    "unknown_tokens_per_second": 20,
    "unknown_tokens_burst": 100,
    "control_socket": "on",
    "log_level": "warning",
    "twilio_account_sid": None,
    "twilio_auth_token": None,
    "twilio_twiml_app_sid": None,
}
NUMBERS = [name for name, field in VoiceSettings.model_fields.items() if field.annotation in (int, float)]
CHOICES = [
    name for name, field in VoiceSettings.model_fields.items() if typing.get_origin(field.annotation) is typing.Literal
]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "voice.toml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    return file


def refusal(**overrides: object) -> SettingsError:
    with pytest.raises(SettingsError) as refused:
        load_settings(**overrides)
    assert isinstance(refused.value, VoiceError)
    assert isinstance(refused.value, ValueError)
    assert "\n" not in str(refused.value)
    return refused.value


def test_the_defaults(home: Path) -> None:
    assert load_settings().model_dump() == {"home": home, **DEFAULTS}


def test_without_any_setting_the_home_is_the_platform_s_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTOS_VOICE_HOME")
    assert load_settings().home == Path(platformdirs.user_data_dir("agentos-voice", appauthor=False))


def test_home_is_expanded_and_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given, expected in {
        "~/calls": tmp_path / "calls",
        "calls": tmp_path / "calls",
        "/srv/x": Path("/srv/x"),
    }.items():
        monkeypatch.setenv("AGENTOS_VOICE_HOME", given)
        assert load_settings().home == expected
    assert load_settings(home="~").home == tmp_path


def test_a_variable_that_means_nothing_is_warned_of_once_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"AGENTOS_VOICE_HOEM": "AGENTOS_VOICE_HOME", "agentos_voice_max_session": "AGENTOS_VOICE_MAX_SESSIONS"}
    for name in names:
        monkeypatch.setenv(name, "some-secret")
    monkeypatch.setenv("AGENTOS_VOICE_QQQQQ", "x")
    monkeypatch.setenv("AGENTOS_VOICE_EMPTY", "")  # counts as not set
    monkeypatch.setenv("AGENTOS_VOICE_ADMIN_TOKEN", "avt_x")  # the command line's
    monkeypatch.setenv("agentos_voice_max_sessions", "7")
    monkeypatch.setattr(settings, "_warned_of", set())
    assert unknown_variables() == {**names, "AGENTOS_VOICE_QQQQQ": None}
    for _ in range(3):
        assert load_settings().max_sessions == 7
    told = sorted(record.getMessage() for record in caplog.records)
    assert told == [
        "AGENTOS_VOICE_HOEM is no setting and is ignored; did you mean AGENTOS_VOICE_HOME?",
        "AGENTOS_VOICE_QQQQQ is no setting and is ignored",
        "agentos_voice_max_session is no setting and is ignored; did you mean AGENTOS_VOICE_MAX_SESSIONS?",
    ]


def test_every_setting_has_a_reason() -> None:
    for name, field in VoiceSettings.model_fields.items():
        assert field.description, name


def test_arguments_go_before_the_environment_and_that_before_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("max_sessions = 1\nmax_chunk_bytes = 1\nstt_workers = 1\n")
    monkeypatch.setenv("AGENTOS_VOICE_MAX_SESSIONS", "2")
    monkeypatch.setenv("AGENTOS_VOICE_MAX_CHUNK_BYTES", "2")
    settings = load_settings(max_sessions=3)
    assert (settings.max_sessions, settings.max_chunk_bytes, settings.stt_workers) == (3, 2, 1)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_read_from_its_variable_and_held_to_its_range(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"AGENTOS_VOICE_{name.upper()}"
    assert variable_of(name) == variable
    default = getattr(load_settings(), name)
    monkeypatch.setenv(variable, str(default))
    assert getattr(load_settings(), name) == default
    for bad in ("-1", "1e30", "nan", "inf", "many", "99999999999999"):
        monkeypatch.setenv(variable, bad)
        error = refusal()
        assert error.variable == variable
        assert str(error).startswith(f"{variable}: ")
        assert bad in str(error)


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_read_from_its_variable_and_no_other_word_is_taken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in typing.get_args(VoiceSettings.model_fields[name].annotation):
        monkeypatch.setenv(variable_of(name), word)
        assert getattr(load_settings(), name) == word
    monkeypatch.setenv(variable_of(name), "sideways")
    assert refusal().variable == variable_of(name)


def test_the_lists_above_are_not_empty() -> None:
    assert len(NUMBERS) >= 20
    assert set(CHOICES) == {"loop", "uvloop", "on_stt_unavailable", "recording_format", "control_socket", "log_level"}


def test_trusted_proxies_are_addresses_and_networks(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = (ip_network("10.0.0.7"), ip_network("10.1.0.0/16"), ip_network("2001:db8::/32"))
    config.write_text("")
    monkeypatch.setenv("AGENTOS_VOICE_TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/16,2001:db8::/32")
    assert load_settings().trusted_proxies == networks
    assert load_settings(trusted_proxies=("10.0.0.7", "10.1.0.0/16,2001:db8::/32")).trusted_proxies == networks
    assert load_settings(trusted_proxies=networks).trusted_proxies == networks
    monkeypatch.delenv("AGENTOS_VOICE_TRUSTED_PROXIES")
    config.write_text('trusted_proxies = ["10.0.0.7", "10.1.0.0/16", "2001:db8::/32"]\n')
    assert load_settings().trusted_proxies == networks


@pytest.mark.parametrize("bad", ["proxy.example", "10.0.0.1/8", "10.0.0", "*", 7, True, {"10.0.0.1": 1}, [167772161]])
def test_what_is_no_address_and_no_network_is_no_trusted_proxy(bad: object) -> None:
    assert str(refusal(trusted_proxies=bad)).startswith("trusted_proxies: ")


def test_the_log_level_is_read_in_any_case() -> None:
    assert load_settings(log_level="DEBUG").log_level == "debug"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_VOICE_MAX_SESSIONS", "")
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "")
    assert load_settings().max_sessions == 10_000
    assert load_settings().twilio_account_sid is None


def test_the_twilio_settings_have_twilio_s_names_and_the_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("twilio_account_sid", "twilio_auth_token", "twilio_twiml_app_sid"):
        assert variable_of(name) == name.upper()
        monkeypatch.setenv(name.upper(), f"value of {name}")
    settings = load_settings()
    assert settings.twilio_account_sid == "value of twilio_account_sid"
    assert settings.twilio_twiml_app_sid == "value of twilio_twiml_app_sid"
    assert settings.twilio_auth_token is not None
    assert settings.twilio_auth_token.get_secret_value() == "value of twilio_auth_token"
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "value of twilio_auth_token" not in text
    assert load_settings(twilio_account_sid="AC1").twilio_account_sid == "AC1"


def test_a_bad_secret_is_named_and_not_shown(config: Path) -> None:
    config.write_text("twilio_auth_token = ['s3cret']\n")
    error = refusal()
    assert "twilio_auth_token" in str(error)
    assert "s3cret" not in str(error)
    with pytest.raises(ValidationError) as raw:
        VoiceSettings()
    assert "s3cret" not in str(raw.value)


def test_a_file_may_hold_every_setting_by_its_name(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENTOS_VOICE_HOME")
    config.write_text(f'home = "{tmp_path}"\nloop = "trio"\ntwilio_account_sid = "AC1"\ntwilio_auth_token = "secret"\n')
    settings = load_settings()
    assert (settings.home, settings.loop, settings.twilio_account_sid) == (tmp_path, "trio", "AC1")
    assert settings.twilio_auth_token is not None


def test_an_unknown_key_in_the_file_is_refused_by_name(config: Path) -> None:
    config.write_text("max_sesions = 5\n")
    error = refusal()
    assert error.variable == "max_sesions"
    assert CONFIG_VARIABLE in str(error)


def test_a_bad_value_in_the_file_names_its_key_and_the_file(config: Path) -> None:
    config.write_text('max_sessions = "many"\n')
    assert str(refusal()).startswith(f"max_sessions (in {CONFIG_VARIABLE}): ")


@pytest.mark.parametrize("content", [b"max_sessions = ", b"\xff\xfe", b"[max_sessions]\n[max_sessions]\n"])
def test_a_file_that_is_not_toml_is_refused(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    error = refusal()
    assert error.variable == CONFIG_VARIABLE
    assert str(config) in str(error)


def test_a_file_that_is_missing_or_a_folder_is_refused(config: Path) -> None:
    assert refusal().variable == CONFIG_VARIABLE
    config.mkdir()
    assert str(config) in str(refusal())


def test_an_unknown_argument_is_refused_by_name() -> None:
    error = refusal(max_sesions=5)
    assert error.variable == "max_sesions"
    assert str(error) == "max_sesions: there is no such setting (as an argument)"


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert str(refusal(max_sessions=0, loop="curio")).count(", got ") == 2


def test_a_home_of_nobody_is_refused() -> None:
    assert str(refusal(home="~no-such-user/x")).startswith("home: ")


def test_uvloop_on_trio_is_a_contradiction() -> None:
    assert "uvloop" in str(refusal(uvloop="on", loop="trio"))
    assert load_settings(uvloop="auto", loop="trio").loop == "trio"


def test_settings_are_frozen_and_survive_pickle() -> None:
    settings = load_settings(max_sessions=3)
    with pytest.raises(ValidationError, match="frozen"):
        settings.max_sessions = 4
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_documents_list_every_setting_with_its_default_and_its_reason() -> None:
    rows = DOCUMENT.read_text().splitlines()
    for name, field in VoiceSettings.model_fields.items():
        (row,) = [row for row in rows if row.startswith(f"| `{variable_of(name)}` |")]
        assert row.endswith(f"| {field.description} |")
        if field.default_factory is None:
            assert row.split(" | ")[1] == ("not set" if field.default is None else str(field.default))
