"""Engines by name: handed over to the service, or installed; declared here, imported by the workers alone."""

import json
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field

from agentos.core.communication.voice import AsyncVoiceService, STTProvider
from agentos.core.communication.voice.doctor import Level, examine
from agentos.core.communication.voice.errors import InvalidRequest, STTUnavailable, UnusableExtension
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.stt.base import SpeechEngine
from agentos.core.communication.voice.stt.protocol import Answer, Drop, Open, StreamBroken, StreamOpened
from agentos.core.communication.voice.stt.registry import Engines, EngineUnavailable
from agentos.core.communication.voice.stt.worker import Worker
from machines.audio import AudioEncoding
from machines.names import EngineName
from tests.voice.extensions.conftest import Install

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]

SOURCE = """
from agentos.core.communication.voice.stt.base import SpeechEngine

scribe = SpeechEngine(name="scribe", factory="scribe_engine:Scribe")

def of_settings(settings):
    return SpeechEngine(name="scribe", factory="scribe_engine:Scribe", configuration={"home": str(settings.home)})

misnamed = SpeechEngine(name="other", factory="scribe_engine:Scribe")
stranger = 5

def failing(settings):
    raise LookupError("no key")
"""


def own(name: str = "scribe", factory: str = "json:JSONDecoder", **more: Any) -> SpeechEngine:
    return SpeechEngine(name=name, factory=factory, **more)


def test_the_embedded_engine_goes_the_same_way_and_the_other_members_say_that_nobody_has_them() -> None:
    engines = Engines(load_settings())
    assert engines.names() == tuple(member.value for member in STTProvider)
    assert engines.engine("pocketsphinx") is engines.engine(STTProvider.POCKETSPHINX)
    assert engines.missing(STTProvider.POCKETSPHINX) is None
    assert engines.missing(STTProvider.AWS) == "no engine for 'aws' is installed"
    with pytest.raises(EngineUnavailable, match="no engine for 'aws'"):
        engines.engine(STTProvider.AWS)


def test_a_name_is_a_member_s_or_one_that_was_registered() -> None:
    engines = Engines(load_settings(), [own(), own("google")])
    assert engines.named("google") is STTProvider.GOOGLE
    assert engines.engine("google").name == "google"  # a member that this package has no engine for
    assert isinstance(engines.named("scribe"), EngineName)
    for wrong in ("GOOGLE", "nobody", "", None, 5, []):
        with pytest.raises(InvalidRequest, match=r"a registered name .*scribe") as caught:
            engines.named(wrong)
        assert caught.value.field == "stt_provider"


@pytest.mark.parametrize(
    ("engines", "problem"),
    [
        ([own("pocketsphinx")], "'pocketsphinx' .* the name is taken"),
        ([own(), own()], "'scribe' .* the name is taken"),
        ([own("Scribe")], "its name must be"),
        ([own("none")], "its name must be"),
        ([own(factory="json")], "its factory must be 'module:attribute', got 'json'"),
        ([own(factory="json:a b")], "its factory must be"),
        ([own(options=dict)], "its options must be a pydantic model"),
        ([own(configuration={"key": object()})], "its configuration must be JSON"),
        (["scribe"], "it is no SpeechEngine"),
    ],
)
def test_one_that_is_declared_wrongly_is_refused_at_once(engines: list[Any], problem: str) -> None:
    with pytest.raises(UnusableExtension, match=problem) as caught:
        AsyncVoiceService(engines=engines)
    assert (caught.value.group, caught.value.distribution) == ("agentos_voice.stt", None)


def test_a_secret_in_the_configuration_is_not_shown() -> None:
    assert "hush" not in repr(own(configuration={"key": "hush"}))


def test_what_it_needs_and_does_not_find_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(tmp_path / "script.py"), raising=False)
    engines = Engines(load_settings(), [own(needs=("no_such_model",)), own("beside", "beside:Engine"), own("good")])
    assert engines.missing("scribe") == "the engine 'scribe' needs the package 'no_such_model'"
    assert "'beside' lies beside the script" in str(engines.missing("beside"))
    assert engines.missing("good") is None


@pytest.mark.parametrize("attribute", ["scribe", "of_settings"])
def test_an_installed_one_is_an_engine_or_made_of_the_settings(install: Install, attribute: str) -> None:
    install("scribe-for-voice", "scribe_engine", SOURCE, stt=f"scribe = scribe_engine:{attribute}")
    settings = load_settings()
    engines = Engines(settings)
    assert "scribe" in engines.names()
    assert "scribe_engine" not in sys.modules
    engine = engines.engine(engines.named("scribe"))
    assert engine.configuration == ({} if attribute == "scribe" else {"home": str(settings.home)})
    sys.modules.pop("scribe_engine")


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ("scribe_engine:misnamed", "it calls itself 'other'"),
        ("scribe_engine:stranger", "neither a SpeechEngine nor a function"),
        ("scribe_engine:failing", "LookupError: no key"),
        ("scribe_engine:SpeechEngine", "TypeError"),
        ("scribe_engine:missing", "AttributeError"),
        ("no_such_module:engine", "No module named 'no_such_module'"),
    ],
)
def test_a_broken_one_names_its_distribution(install: Install, points: str, problem: str) -> None:
    install("broken-scribe", "scribe_engine", SOURCE, stt=f"scribe = {points}")
    engines = Engines(load_settings())
    with pytest.raises(UnusableExtension, match=problem) as caught:
        engines.engine("scribe")
    assert (caught.value.name, caught.value.distribution) == ("scribe", "broken-scribe")
    assert "broken-scribe" in str(engines.missing("scribe"))
    sys.modules.pop("scribe_engine", None)


@pytest.mark.anyio
async def test_a_session_that_asks_for_a_broken_one_is_refused_or_falls_back_as_set(
    make_settings: MakeSettings, install: Install
) -> None:
    install("broken-scribe", "scribe_engine", "raise RuntimeError('no model')", stt="scribe = scribe_engine:scribe")
    async with AsyncVoiceService(make_settings(on_stt_unavailable="refuse")) as service:
        with pytest.raises(STTUnavailable, match=r"broken-scribe, can't be used: .* no model"):
            await service.create_session("p", "local", "scribe")
    async with AsyncVoiceService(make_settings(on_stt_unavailable="fallback")) as service:
        session = await service.create_session("p", "local", "scribe", stt_options={"word": "x"})
        assert (session.stt_provider, session.stt_engine, session.stt_options) == ("scribe", "pocketsphinx", {})


def test_the_doctor_says_what_is_there_broken_and_left_aside(install: Install) -> None:
    install("scribe-for-voice", "scribe_engine", SOURCE, stt="scribe = scribe_engine:scribe\npocketsphinx = x:y")
    install("broken-typist", "broken_typist", "raise RuntimeError", stt="typist = broken_typist:typist")
    checks = {check.name: check for check in examine()}
    assert checks["speech to text"].found == "ready: pocketsphinx, scribe"
    assert checks["engine aws"].found == "no engine for 'aws' is installed (optional)"
    assert (checks["engine typist"].level, checks["engine typist"].advice) == (
        Level.WARN,
        "repair or uninstall broken-typist",
    )
    assert "scribe-for-voice offers one, which is left aside" in checks["engine pocketsphinx"].found
    sys.modules.pop("scribe_engine")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ("text", "stt_options"),
        ({"a": object()}, "stt_options"),
        ({1: 2}, "stt_options"),
        ({"a": "x" * 20_000}, "stt_options"),
        ({"note": "avt_secret-of-somebody"}, "stt_options"),
        ({"admin_token": "x"}, "stt_options"),
        ({"language": "de"}, "stt_options.language"),
    ],
)
async def test_options_are_json_and_those_that_the_engine_has(
    make_settings: MakeSettings, options: Any, field: str, records: Records
) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        with pytest.raises(InvalidRequest, match="stt_options") as caught:
            await service.create_session("p", "local", "pocketsphinx", stt_options=options)
        assert caught.value.field == field
        assert "secret" not in str(caught.value)
    assert records() == []


class Hints(BaseModel):
    hints: tuple[str, ...] = ()


@pytest.mark.anyio
async def test_options_stand_in_evidence_sealed(make_settings: MakeSettings, home: Path, records: Records) -> None:
    """They may be names of people."""
    async with AsyncVoiceService(make_settings(), engines=[own(options=Hints)]) as service:
        session = await service.create_session("p", "local", "scribe", stt_options={"hints": ["Ada"]})
        assert session.stt_options == {"hints": ("Ada",)}
    assert records()[0]["request_summary"]["stt_options"] == {"hints": ["Ada"]}
    with closing(sqlite3.connect(home / "voice.db")) as database:
        texts = [text for (text,) in database.execute("SELECT record FROM evidence")]
    assert texts
    assert not any("Ada" in text for text in texts)


class Counted:
    """An engine that notes with what it was made."""

    made: ClassVar[list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = []
    settled_ms = 0

    def __init__(self, configuration: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.made.append((configuration, options))

    def start(self, session: str) -> None:
        pass

    def abort(self) -> None:
        pass


def test_a_worker_keeps_engines_for_sessions_that_ask_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Answer] = []
    worker = Worker(answers.append)
    monkeypatch.setattr(json, "Counted", Counted, raising=False)
    Counted.made.clear()

    def one_call(number: int, options: dict[str, Any]) -> None:
        opened = Open(
            number, f"voice-{number}", "json:Counted", {"model": 1}, options, AudioEncoding.PCM_S16LE, 8_000, 1
        )
        worker.do(opened)
        assert answers[-1] == StreamOpened(number)
        worker.do(Drop(number))

    one_call(1, {"a": 1, "b": [1]})
    one_call(2, {"b": [1], "a": 1})
    assert Counted.made == [({"model": 1}, {"a": 1, "b": [1]})]
    for number in range(3, 10):
        one_call(number, {"a": number})  # each of another kind
    one_call(10, {"a": 9})
    assert len(Counted.made) == 8
    one_call(11, {"a": 1, "b": [1]})  # the first was let go
    assert len(Counted.made) == 9
    worker.do(Open(12, "voice-12", "json:Nobody", {}, {}, AudioEncoding.PCM_S16LE, 8_000, 1))
    assert isinstance(answers[-1], StreamBroken)


class Silent(SpeechEngine):
    """Does not say whether it can run."""

    def missing(self) -> str | None:
        raise LookupError("by mistake")


@pytest.mark.anyio
async def test_an_engine_that_does_not_say_whether_it_can_run_counts_as_missing(make_settings: MakeSettings) -> None:
    settings = make_settings(on_stt_unavailable="refuse")
    async with AsyncVoiceService(settings, engines=[Silent(name="silent", factory="json:loads")]) as service:
        with pytest.raises(STTUnavailable, match="'silent' does not say whether it can run: LookupError: by mistake"):
            await service.create_session("p", "local", "silent")


class NoJson(BaseModel):
    handle: object = Field(default_factory=object)


def test_options_that_are_not_json_are_a_fault_of_their_engine(make_settings: MakeSettings) -> None:
    engines = Engines(make_settings(), [SpeechEngine(name="odd", factory="json:loads", options=NoJson)])
    with pytest.raises(UnusableExtension, match="its options are not JSON"):
        engines.options("odd", {})
