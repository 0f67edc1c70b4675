"""Policy at the door of the service: denied is denied, with evidence first; tokens leave no trace."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from agentos.core.communication.models import PolicyVerdict, RequestStatus, RiskLevel
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoicePolicy, VoiceProvider, VoiceSession
from agentos.core.communication.voice.errors import InvalidRequest, PolicyDenied, ProviderNotConfigured, Unrecordable
from agentos.core.communication.voice.gateway.app import voice_app
from agentos.core.communication.voice.policy import FieldProblem
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tokens import TokenStore
from agentos.core.communication.voice.stt.registry import Engines
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

pytestmark = pytest.mark.anyio
TWILIO = {
    "twilio_account_sid": "AC" + "0" * 32,
    "twilio_auth_token": "a-very-secret-auth-token",
    "twilio_twiml_app_sid": "AP" + "1" * 32,
}
DATA = {"requires_data_access": True}

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]


def make_token(home: Path) -> str:
    with open_store(home / "voice.db", busy_timeout_seconds=5) as store:
        return TokenStore(store).create("the tests")


async def create(
    service: AsyncVoiceService,
    metadata: dict[str, Any] | None = None,
    provider: VoiceProvider = VoiceProvider.LOCAL,
    token: str | None = None,
) -> VoiceSession:
    return await service.create_session("project", provider, STTProvider.WHISPER, metadata, admin_token=token)


@pytest.mark.parametrize(
    ("provider", "metadata", "tier"),
    [
        (VoiceProvider.LOCAL, {}, RiskLevel.LOW),
        (VoiceProvider.LOCAL, {"sensitive_data": True}, RiskLevel.MEDIUM),
        (VoiceProvider.LOCAL, {"recording_enabled": True, "sensitive_data": False}, RiskLevel.MEDIUM),
        (VoiceProvider.TWILIO, {"from_number": "+491234"}, RiskLevel.MEDIUM),
    ],
)
async def test_up_to_medium_no_token_is_needed(
    make_settings: MakeSettings, provider: VoiceProvider, metadata: dict[str, Any], tier: RiskLevel
) -> None:
    async with AsyncVoiceService(make_settings(**TWILIO)) as service:
        session = await create(service, metadata, provider)
        assert session.risk_tier is tier
        assert session.policy_verdict.status is RequestStatus.APPROVED
        assert session.policy_verdict.reason_code == "VOICE_SESSION_APPROVED"


@pytest.mark.parametrize(
    ("provider", "metadata", "tier"),
    [
        (VoiceProvider.LOCAL, {"sensitive_data": True, "international_call": True}, "high"),
        (VoiceProvider.LOCAL, DATA, "high"),
        (VoiceProvider.TWILIO, {"recording_enabled": True}, "high"),
        (VoiceProvider.TWILIO, {"recording_enabled": True, "sensitive_data": True}, "critical"),
    ],
)
async def test_from_high_on_a_valid_token_is_needed(
    make_settings: MakeSettings, home: Path, provider: VoiceProvider, metadata: dict[str, Any], tier: str
) -> None:
    token = make_token(home)
    async with AsyncVoiceService(make_settings(**TWILIO)) as service:
        for wrong in (None, "", "avt_wrong", token[:-1], token + "x", "\ud800"):
            with pytest.raises(PolicyDenied) as caught:
                await create(service, metadata, provider, wrong)
            assert caught.value.verdict.metadata["risk_level"] == tier
            assert ("the one given is unknown" in str(caught.value)) is (wrong is not None)
        session = await create(service, metadata, provider, token)
        assert session.risk_tier.value == tier
        again = await create(service, {**metadata, "admin_token": token}, provider)
        assert again.risk_tier.value == tier
        assert await service.stop_session(again.session_id)


async def test_a_denial_is_an_error_with_its_verdict_and_no_session(
    make_settings: MakeSettings, records: Records
) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        with pytest.raises(PermissionError, match="ADMIN_TOKEN_REQUIRED") as caught:
            await create(service, DATA)
        assert isinstance(caught.value, PolicyDenied)
        assert caught.value.verdict.status is RequestStatus.REQUIRE_ADMIN
        assert "agentos-voice token create NAME --role admin" in caught.value.verdict.hint
        (record,) = records()  # stored before the caller was told
        assert caught.value.session_id == record["request_id"]
        assert await service.list_sessions() == []
        assert service.statistics().sessions == 0
        assert await service.get_session(record["request_id"]) is None
        assert await service.stop_session(record["request_id"]) is False
    assert record["operation"] == "session_denied"
    assert record["status"] == "require_admin"
    assert record["metadata"]["risk_tier"] == "high"
    assert record["metadata"]["verdict"] == "ADMIN_TOKEN_REQUIRED"
    assert record["metadata"]["audit_trace_id"].startswith("audit-")
    assert record["response_summary"]["state"] is None
    assert len(records()) == 1


async def test_a_request_that_can_not_be_recorded_is_told_apart_from_a_store_that_is_down(
    make_settings: MakeSettings, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        with monkeypatch.context() as broken:
            # an engine's reason, which UTF-8 can't write
            broken.setattr(Engines, "missing", lambda *_: "it says \ud800")
            with pytest.raises(Unrecordable, match="surrogates") as caught:
                await create(service)
            assert isinstance(caught.value, ValueError)
            with pytest.raises(Unrecordable):
                await create(service, DATA)
        assert records() == []
        session = await create(service)  # the store is in order
        assert await service.stop_session(session.session_id)
    assert {record["request_id"] for record in records()} == {session.session_id}


async def test_many_denials_at_once_are_all_told_and_evidenced(
    make_settings: MakeSettings, records: Records, verified: Callable[[], int]
) -> None:
    denied: list[PolicyVerdict] = []

    async def ask() -> None:
        with pytest.raises(PolicyDenied) as caught:
            await create(service, DATA)
        denied.append(caught.value.verdict)

    async with AsyncVoiceService(make_settings()) as service:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
        assert service.statistics().sessions == 0
    assert len(denied) == 50
    assert [record["operation"] for record in records()] == ["session_denied"] * 50
    assert verified() == 50


async def test_the_host_may_bring_its_own_policy(make_settings: MakeSettings, records: Records) -> None:
    class NobodyMayCall(VoicePolicy):
        def evaluate_session_request(self, *arguments: Any, **more: Any) -> PolicyVerdict:
            verdict = super().evaluate_session_request(*arguments, **more)
            return verdict.model_copy(update={"status": RequestStatus.DENIED, "reason_code": "QUIET_HOURS"})

    async with AsyncVoiceService(make_settings(), policy=NobodyMayCall()) as service:
        with pytest.raises(PolicyDenied, match="QUIET_HOURS") as caught:
            await create(service)
        assert caught.value.verdict.status is RequestStatus.DENIED
    assert [record["status"] for record in records()] == ["denied"]


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ("Only projects of the allow list may call", None),
        (FieldProblem("Only projects of the allow list may call", field="project_id"), "project_id"),
        ("project_id[0] is a digit", None),
        ("", None),
    ],
)
async def test_a_field_is_the_one_that_the_host_s_policy_names_and_never_guessed(
    make_settings: MakeSettings, answer: str, field: str | None
) -> None:
    class AllowList(VoicePolicy):
        def validate_session_params(self, *arguments: Any) -> tuple[bool, str]:
            return False, answer

    async with AsyncVoiceService(make_settings(), policy=AllowList()) as service:
        with pytest.raises(InvalidRequest) as caught:
            await create(service)
        assert str(caught.value) == (answer or "the policy does not take these arguments")
        assert caught.value.field == field
        transport = httpx2.ASGITransport(app=voice_app(service, authentication=False))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            reply = await client.post("/v1/sessions", json={"project_id": "p"})
        assert reply.status_code == 422
        assert reply.json().get("field") == field
        assert reply.json()["detail"] == str(caught.value)


@pytest.mark.parametrize("way", ["parameter", "metadata"])
async def test_a_token_leaves_no_trace(
    make_settings: MakeSettings,
    home: Path,
    way: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    valid, wrong = make_token(home), "avt_this-one-is-wrong-and-still-secret"
    seen: list[str] = []
    async with AsyncVoiceService(make_settings(log_level="debug")) as service:
        for token, good in ((valid, True), (wrong, False)):
            metadata = {**DATA, "recording_enabled": True, "user": "u"}
            if way == "metadata":
                metadata["admin_token"] = token
            try:
                session = await create(service, metadata, token=token if way == "parameter" else None)
            except PolicyDenied as error:
                assert not good
                seen += [repr(error), str(error), repr(error.verdict)]
                continue
            assert good
            assert session.metadata == {**DATA, "recording_enabled": True, "user": "u"}
            await service.dispatch_audio_chunk(session.session_id, bytes(32_000))
            await service.stop_session(session.session_id)
            seen += [repr(session), session.model_dump_json(), repr(await service.get_session(session.session_id))]
            seen += [repr(event) for event in [event async for event in service.events(session.session_id)]]
            seen.append(repr(service.statistics()))
        in_files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]  # with the WAL
    in_files += [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert len(in_files) > 4
    seen += [caplog.text, *capfd.readouterr(), repr(service), repr(service.settings)]
    for token in (valid, wrong):
        assert not any(token in text for text in seen)
        assert not any(token.encode() in content for content in in_files)


class TestTwilio:
    @pytest.mark.parametrize("missing", sorted(TWILIO))
    async def test_without_a_setting_the_variable_is_named(
        self, make_settings: MakeSettings, records: Records, missing: str
    ) -> None:
        settings = make_settings(**{name: value for name, value in TWILIO.items() if name != missing})
        async with AsyncVoiceService(settings) as service:
            with pytest.raises(ValueError, match=missing.upper()) as caught:
                await create(service, provider=VoiceProvider.TWILIO)
            assert isinstance(caught.value, ProviderNotConfigured)
            assert caught.value.variable == missing.upper()
            await create(service)  # the others work
        assert {record["request_summary"]["provider"] for record in records()} == {"local"}

    async def test_a_wrong_account_is_named_and_its_secret_is_not(self, make_settings: MakeSettings) -> None:
        async with AsyncVoiceService(make_settings(**{**TWILIO, "twilio_account_sid": "wrong"})) as service:
            with pytest.raises(ProviderNotConfigured, match="TWILIO_ACCOUNT_SID") as caught:
                await create(service, provider=VoiceProvider.TWILIO)
            assert TWILIO["twilio_auth_token"] not in str(caught.value)

    async def test_with_its_settings_the_session_takes_audio(
        self, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, home: Path
    ) -> None:
        for name, value in TWILIO.items():
            monkeypatch.setenv(name.upper(), value)
        async with AsyncVoiceService(make_settings()) as service:
            session = await create(service, provider=VoiceProvider.TWILIO)
            assert session.provider is VoiceProvider.TWILIO
            await service.dispatch_audio_chunk(session.session_id, bytes(640))
            assert await service.stop_session(session.session_id)
            ended = await service.get_session(session.session_id)
            assert TWILIO["twilio_auth_token"] not in repr(service.settings)
        assert ended is not None
        assert ended.result is not None
        assert ended.result.frames.accepted == 1
        secret = TWILIO["twilio_auth_token"].encode()
        assert not any(secret in path.read_bytes() for path in home.rglob("*") if path.is_file())


class TestProviders:
    @pytest.mark.parametrize(
        ("answer", "variable"),
        [
            ("The trunk is not set up", None),
            (FieldProblem("The trunk is not set up", field="SIP_TRUNK"), "SIP_TRUNK"),
        ],
    )
    async def test_the_variable_is_the_one_that_it_names_and_never_guessed(
        self, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, answer: str, variable: str | None
    ) -> None:
        async with AsyncVoiceService(make_settings()) as service:
            monkeypatch.setattr(service.get_provider("local"), "validate_config", lambda: (False, answer))
            with pytest.raises(ProviderNotConfigured, match="'local' is not configured: The trunk is") as caught:
                await create(service)
        assert caught.value.variable == variable

    async def test_each_has_its_capabilities(self, make_settings: MakeSettings) -> None:
        async with AsyncVoiceService(make_settings()) as service:
            assert service.get_provider(VoiceProvider.LOCAL).get_session_metadata()["transport"] == "websocket"
            assert service.get_provider(VoiceProvider.TWILIO).get_session_metadata()["transport"] == "pstn"
            wrong: list[Any] = ["LOCAL", None, 5, []]
            for strange in wrong:
                with pytest.raises(InvalidRequest, match="provider"):
                    service.get_provider(strange)

    async def test_its_hooks_are_called_and_what_they_raise_is_harmless(
        self, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[tuple[str, ...]] = []
        async with AsyncVoiceService(make_settings()) as service:
            provider = service.get_provider(VoiceProvider.LOCAL)

            def created(session_id: str, metadata: dict[str, Any]) -> None:
                told.append(("created", session_id, str(metadata)))
                raise RuntimeError("the host's bug")

            def stopped(session_id: str) -> None:
                told.append(("stopped", session_id))
                raise RuntimeError("the host's bug")

            monkeypatch.setattr(provider, "on_session_created", created)
            monkeypatch.setattr(provider, "on_session_stopped", stopped)
            session = await create(service, {"user": "u"})
            assert await service.stop_session(session.session_id)
            assert service.statistics().actors.crashes == 0
        assert told == [("created", session.session_id, "{'user': 'u'}"), ("stopped", session.session_id)]
