"""A token of ours is refused wherever it would be stored, and told again nowhere: not in an error, a log or a record."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentos.core.communication.evidence import EvidenceLogger, EvidenceRecord
from agentos.core.communication.models import ConnectorType
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.errors import InvalidRequest, SessionNotFound, VoiceError
from agentos.core.communication.voice.gateway.access.idempotency import checked_key
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.secrets_in_text import holds_secret, without_secrets
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tokens import Role, TokenStore

MakeSettings = Callable[..., VoiceSettings]

SECRET = "x0-_" * 10 + "abc"
TOKENS = [prefix + SECRET for prefix in ("avt_", "avs_", "avr_")]
TOKEN = TOKENS[0]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "Bearer {}", "see{}.", '{{"a":"{}"}}', "https://x/?t={}&b", "ü{}ü", "{}{{"])
def test_a_token_is_seen_in_any_text_and_left_out_of_it(token: str, around: str) -> None:
    text = around.format(token)
    assert holds_secret(text)
    assert without_secrets(text) == around.format(f"{token[:4]}…")


@pytest.mark.parametrize("text", ["", "avt_", "avt_…", "an avr_microcontroller", "java_vs_avs_kotlin", "AVT_" + SECRET])
def test_other_words_are_no_tokens(text: str) -> None:
    assert not holds_secret(text)


def test_a_good_part_of_a_token_is_a_secret_too() -> None:
    assert holds_secret(f"it begins with {TOKEN[:24]}")
    assert not holds_secret(f"it begins with {TOKEN[:23]}")


def test_what_is_told_is_without_what_may_be_the_beginning_of_a_token() -> None:
    assert without_secrets(f"it begins with {TOKEN[:12]}") == "it begins with avt_…"
    assert without_secrets(f"an {TOKEN[:11]}") == f"an {TOKEN[:11]}"


def whole(value: str) -> dict[str, Any]:
    return {"metadata": {"note": value}}


PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "a value": whole,
    "a longer text": lambda token: whole(f"the token is {token}, keep it"),
    "a value deep inside": lambda token: {"metadata": {"a": [{"b": [f"x {token}"]}]}},
    "a key": lambda token: {"metadata": {token: 1}},
    "a longer key": lambda token: {"metadata": {"a": {f"for {token}": 1}}},
    "the caller's number": lambda token: {"metadata": {"from_number": f"+49 {token}"}},
    "the project": lambda token: {"project_id": token},
    "a longer project": lambda token: {"project_id": f"shop of {token}"},
    "the provider": lambda token: {"provider": token},
    "the engine": lambda token: {"stt_provider": token},
    "a flag": lambda token: {"metadata": {"recording_enabled": token}},
}


@pytest.mark.anyio
async def test_a_request_that_holds_a_token_is_refused_and_nothing_tells_it(
    make_settings: MakeSettings, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    async with AsyncVoiceService(make_settings()) as service:
        for place, given in PLACES.items():
            for token in TOKENS:
                arguments: dict[str, Any] = {
                    "project_id": "shop",
                    "provider": VoiceProvider.LOCAL,
                    "stt_provider": STTProvider.AZURE,
                    **given(token),
                }
                with pytest.raises(InvalidRequest) as caught:
                    await service.create_session(**arguments)
                with pytest.raises(InvalidRequest):
                    await service.evaluate_request(**arguments)
                told += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
                assert SECRET[:8] not in "".join(told), place
        for ask in (service.get_session, service.stop_session):
            try:
                await ask(f"voice-{TOKEN}")
            except VoiceError as error:
                told.append(str(error))
        assert service.statistics().sessions == 0
    assert SECRET[:8] not in "".join(told) + caplog.text
    assert not [path for path in home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_an_error_and_the_log_leave_tokens_out(caplog: pytest.LogCaptureFixture) -> None:
    assert str(SessionNotFound(f"voice-{TOKEN}")) == "there is no session 'voice-avt_…'"
    logger("agentos.core.communication.voice.test").warning("it_failed", problem=f"no {TOKEN}", all=[TOKEN])
    (record,) = caplog.records
    assert record.getMessage() == "it_failed: problem='no avt_…' all=['avt_…']"
    assert record.facts["problem"] == "no avt_…"  # type: ignore[attr-defined]


def test_an_idempotency_key_is_no_token() -> None:
    for token in TOKENS:
        with pytest.raises(InvalidRequest, match="holds a token") as caught:
            checked_key(f"key-{token}")
        assert SECRET[:8] not in str(caught.value)


def test_a_token_is_not_named_after_another_one(tmp_path: Path) -> None:
    with open_store(tmp_path / "voice.db", busy_timeout_seconds=2) as store:
        tokens = TokenStore(store)
        for arguments in ({"name": f"of {TOKEN}"}, {"name": "web", "role": Role.PROJECT, "project": TOKEN}):
            with pytest.raises(InvalidRequest, match="holds a token") as caught:
                tokens.create(**arguments)
            assert SECRET[:8] not in str(caught.value)
        assert tokens.list() == []


@pytest.mark.parametrize("where", ["request_id", "operation", "request_summary", "response_summary", "metadata"])
def test_a_record_of_a_host_holds_no_token(where: str, tmp_path: Path) -> None:
    value: Any = f"with {TOKEN}" if where in {"request_id", "operation"} else {"headers": [f"Bearer {TOKEN}"]}
    record = EvidenceRecord(
        id="ev-1",
        request_id="req-1",
        connector_type=ConnectorType.WEB_FETCH,
        operation="fetch",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
    )
    with EvidenceLogger(tmp_path / "voice.db") as log:
        with pytest.raises(ValueError, match="holds a token") as caught:
            log.log(record.model_copy(update={where: value}))
        assert SECRET[:8] not in str(caught.value)
        assert log.log(record) == "ev-1"


@pytest.mark.parametrize(
    "arguments",
    [("token", "revoke", TOKEN), ("evidence", "list", TOKEN), ("events", TOKEN), ("settings", f"--{TOKEN}"), (TOKEN,)],
    ids=lambda arguments: " ".join(arguments).replace(TOKEN, "TOKEN"),
)
def test_the_command_line_does_not_repeat_a_token(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_VOICE_HOME", str(tmp_path))
    open_store(tmp_path / "voice.db", busy_timeout_seconds=2).close()
    for more in ((), ("--json",)):
        assert main([*arguments, *more]) == 2
        said = capsys.readouterr()
        assert SECRET[:8] not in said.out + said.err
        assert "avt_…" in said.out + said.err or "avt_\\u2026" in said.out
    assert json.loads(said.out)["error"]["exit_code"] == 2
