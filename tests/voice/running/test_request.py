"""What the arguments of `create_session` may be: what is wrong is refused by name, and a token goes no further than it must."""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from agentos.core.communication.voice.errors import InvalidRequest, STTUnavailable
from agentos.core.communication.voice.running.request import SessionRequest, choose_engine, make_facts, read_request
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.stt.registry import Engines
from machines.audio import AudioEncoding, AudioFormat
from machines.names import EngineName
from machines.policy import VoicePolicy
from machines.session import STTProvider, VoiceProvider

TOKEN = "avt_this-is-secret"


def read(settings: VoiceSettings | None = None, **changed: Any) -> SessionRequest:
    arguments: dict[str, Any] = {
        "project_id": "project",
        "provider": VoiceProvider.LOCAL,
        "stt_provider": STTProvider.POCKETSPHINX,
        "metadata": None,
        "audio_format": None,
        "admin_token": None,
    }
    return read_request(VoicePolicy(), settings or load_settings(), **{**arguments, **changed})


def choose(asked: STTProvider, **changed: Any) -> tuple[STTProvider | EngineName | None, str]:
    settings = load_settings(**changed)
    return choose_engine(asked, settings, Engines(settings))


def refused(**changed: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(**changed)
    return caught.value


def itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def wide_itself() -> dict[str, Any]:
    value: list[Any] = []
    value.extend([value] * 1000)
    return {"again": value}


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"deeper": value}
    return value


def test_a_plain_request_is_taken_with_the_default_format() -> None:
    request = read(metadata={"user_id": "u", "nested": {"list": [1, 2.5, None, True, "ä"]}})
    assert request.audio_format == AudioFormat()
    assert request.metadata == {"user_id": "u", "nested": {"list": (1, 2.5, None, True, "ä")}}


@pytest.mark.parametrize(
    "value",
    ["", "  ", None, 5, b"bytes", ["list"], "\ud800", "x" * 100_000, "a\0b"],
    ids=lambda value: repr(value)[:12],
)
def test_project_id_must_be_text(value: object) -> None:
    error = refused(project_id=value)
    assert error.field == "project_id"
    assert "project_id" in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("value", ["LOCAL", None, 1, STTProvider.WHISPER, ["local"]])
def test_provider_must_be_a_voice_provider(value: object) -> None:
    error = refused(provider=value)
    assert error.field == "provider"
    assert "provider must be a VoiceProvider" in str(error)


@pytest.mark.parametrize("value", ["whisper", None, 1, VoiceProvider.LOCAL, {}])
def test_stt_provider_must_be_an_stt_provider(value: object) -> None:
    error = refused(stt_provider=value)
    assert error.field == "stt_provider"
    assert "stt_provider must be an STTProvider" in str(error)


@pytest.mark.parametrize("value", ["mulaw", {"sample_rate": 8000}, 8000, AudioEncoding.MULAW])
def test_audio_format_must_be_an_audio_format(value: object) -> None:
    assert refused(audio_format=value).field == "audio_format"


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param("text", id="text"),
        pytest.param([("a", 1)], id="pairs"),
        pytest.param(5, id="number"),
        pytest.param({1: "a"}, id="number as key"),
        pytest.param({None: "a"}, id="none as key"),
        pytest.param({"a": {True: 1}}, id="nested boolean as key"),
        pytest.param({"a": [{2.5: 1}]}, id="key inside a list"),
        pytest.param({"a": math.nan}, id="nan"),
        pytest.param({"a": [math.inf]}, id="infinity"),
        pytest.param({"a": b"bytes"}, id="bytes"),
        pytest.param({"a": {1, 2}}, id="set"),
        pytest.param({"a": object()}, id="object"),
        pytest.param({"a": MappingProxyType({})}, id="a mapping that is no dict"),
        pytest.param({"a": 10**5000}, id="an integer that no reader takes"),
        pytest.param({"a": "\ud800"}, id="lone surrogate"),
        pytest.param({"\udfff": 1}, id="lone surrogate as key"),
        pytest.param({"a": "x" * 20_000}, id="too large"),
        pytest.param({"a": "ü" * 9_000}, id="too large in UTF-8"),
        pytest.param(deep(9), id="too deep"),
        pytest.param(deep(100_000), id="absurdly deep"),
        pytest.param(itself(), id="itself"),
        pytest.param(wide_itself(), id="a thousand times itself"),
    ],
)
def test_metadata_must_be_a_small_json_object(metadata: object) -> None:
    error = refused(metadata=metadata)
    assert error.field == "metadata"
    assert "metadata" in str(error)
    assert len(str(error)) < 1000


def test_the_largest_and_the_deepest_metadata_are_taken() -> None:
    settings = load_settings(max_metadata_bytes=100, max_metadata_depth=3)
    assert read(settings, metadata=deep(3)).metadata == deep(3)
    exact = {"a": "x" * (100 - len('{"a":""}'))}
    assert read(settings, metadata=exact).metadata == exact
    with pytest.raises(InvalidRequest, match="100"):
        read(settings, metadata={"a": exact["a"] + "x"})


@pytest.mark.parametrize("flag", ["sensitive_data", "international_call", "recording_enabled", "requires_data_access"])
@pytest.mark.parametrize("value", [1, "yes", None, []])
def test_a_flag_must_be_true_or_false(flag: str, value: object) -> None:
    error = refused(metadata={flag: value})
    assert error.field == "metadata"
    assert flag in str(error)


def test_the_number_of_the_caller_must_be_text() -> None:
    assert "from_number" in str(refused(metadata={"from_number": 49123}))


def test_the_metadata_taken_is_a_copy_that_can_not_be_changed() -> None:
    given = {"list": [1], "map": {"a": 1}}
    taken = read(metadata=given).metadata
    given["list"].append(2)  # type: ignore[attr-defined]
    assert taken == {"list": (1,), "map": {"a": 1}}
    with pytest.raises(TypeError):
        taken["more"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        taken["map"]["more"] = 1


class TestToken:
    @pytest.mark.parametrize("way", [{"admin_token": TOKEN}, {"metadata": {"admin_token": TOKEN, "user": "u"}}])
    def test_a_token_is_kept_apart(self, way: Mapping[str, Any]) -> None:
        request = read(**way)
        facts = make_facts(request, load_settings(), Engines(load_settings()), admin_token_valid=True)
        assert "admin_token" not in request.metadata
        assert TOKEN not in repr(request)
        assert TOKEN not in str(request)
        assert TOKEN not in repr(facts)
        assert facts.admin_token_valid

    def test_the_argument_goes_before_the_metadata(self) -> None:
        both = read(admin_token="avt_argument", metadata={"admin_token": "avt_metadata"})
        assert both.admin_token is not None
        assert both.admin_token.get_secret_value() == "avt_argument"
        assert both.metadata == {}

    @pytest.mark.parametrize("value", [5, b"avt_", ["avt_"], {"avt_": 1}])
    @pytest.mark.parametrize("where", ["argument", "metadata"])
    def test_a_token_must_be_text_and_is_not_repeated(self, value: object, where: str) -> None:
        error = refused(admin_token=value) if where == "argument" else refused(metadata={"admin_token": value})
        assert "admin_token" in str(error)
        assert "avt_" not in str(error)

    def test_metadata_that_is_refused_does_not_repeat_the_token(self) -> None:
        for bad in ({"a": math.nan}, {"a": object()}, {1: 2}, {"a": "x" * 50_000}, {"sensitive_data": 1}):
            assert TOKEN not in str(refused(metadata={"admin_token": TOKEN, **bad}))


class TestEngine:
    def test_the_engine_asked_for_runs_when_it_is_there(self) -> None:
        assert choose(STTProvider.POCKETSPHINX) == (STTProvider.POCKETSPHINX, "")

    @pytest.mark.parametrize("asked", [STTProvider.WHISPER, STTProvider.GOOGLE, STTProvider.AZURE, STTProvider.AWS])
    def test_one_that_is_missing_is_replaced_by_the_embedded_one_and_the_reason_is_said(
        self, asked: STTProvider
    ) -> None:
        engine, reason = choose(asked, on_stt_unavailable="fallback")
        assert engine is STTProvider.POCKETSPHINX
        assert asked.value in reason

    def test_or_the_session_only_records(self) -> None:
        engine, reason = choose(STTProvider.AWS, on_stt_unavailable="record_only")
        assert engine is None
        assert "aws" in reason

    def test_or_it_is_refused(self) -> None:
        with pytest.raises(STTUnavailable, match="google"):
            choose(STTProvider.GOOGLE, on_stt_unavailable="refuse")


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, math.inf, 86_401, True, "30", [30]], ids=repr)
def test_a_silence_timeout_is_a_time_that_a_call_can_have(value: object) -> None:
    problem = refused(silence_timeout_seconds=value)
    assert problem.field == "silence_timeout_seconds"
    assert "above 0 and up to 86,400" in str(problem)


def test_the_silence_timeout_is_the_settings_unless_the_call_has_its_own() -> None:
    assert read().silence_timeout_seconds is None
    setting = load_settings(silence_timeout_seconds=40)
    assert read(setting).silence_timeout_seconds == 40
    own = read(setting, silence_timeout_seconds=7)
    assert own.silence_timeout_seconds == 7
    assert make_facts(own, setting, Engines(setting), admin_token_valid=None).silence_seconds == 7


def test_ids_have_their_form_and_are_fresh() -> None:
    made = [make_facts(read(), load_settings(), Engines(load_settings()), admin_token_valid=False) for _ in range(100)]
    assert all(re.fullmatch(r"voice-[0-9a-f]{24}", facts.session_id) for facts in made)
    assert all(re.fullmatch(r"audit-[0-9a-f]{16}", facts.audit_trace_id) for facts in made)
    assert len({facts.session_id for facts in made} | {facts.audit_trace_id for facts in made}) == 200


def test_recording_is_off_unless_it_is_asked_for() -> None:
    settings = load_settings()
    assert not make_facts(read(), settings, Engines(settings), admin_token_valid=False).recording
    assert make_facts(
        read(metadata={"recording_enabled": True}), settings, Engines(settings), admin_token_valid=False
    ).recording


@pytest.mark.parametrize(
    "metadata",
    [{"auth": {"admin_token": "x"}}, {"Admin_Token": "x"}, {"list": [{"deep": TOKEN}]}, {"note": TOKEN}],
)
def test_a_token_where_it_would_be_stored_is_refused_and_not_repeated(metadata: dict[str, Any]) -> None:
    error = refused(metadata=metadata)
    assert error.field == "metadata"
    assert "admin_token" in str(error)
    assert TOKEN not in str(error)
