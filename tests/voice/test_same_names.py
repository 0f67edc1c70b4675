"""The two services and the two clients offer the same things under the same names. Tables say what differs, and why."""

import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from actors.runtime.tracing import TraceLine
from agentos.core.communication.voice import AsyncVoiceService, BlockingCall, Call, VoiceService
from agentos.core.communication.voice.client import VoiceClient, VoiceStream
from agentos.core.communication.voice.gateway.routes import console
from agentos.core.communication.voice.running.blocking_calls import BlockingCalls
from agentos.core.communication.voice.running.calls import Calls
from agentos.core.communication.voice.running.legs import SessionSink
from agentos.core.communication.voice.running.session_events import SessionEvents
from agentos.core.communication.voice.running.session_trace import SessionTrace
from agentos.core.communication.voice.service import BlockingSink
from machines.events import VoiceEvent

LOOP_ONLY = {
    "run": "VoiceService has a thread of its own, which runs it",
    "aclose": "VoiceService ends with `close`, which waits",
    "door": "for a gateway on the service's own loop",
    "transport": "for a gateway on the service's own loop",
    "fates": "for a gateway on the service's own loop",
    "snapshots": "for a gateway on the service's own loop",
    "can_be_resumed": "for a gateway on the service's own loop",
    "voice_store": "for a gateway on the service's own loop",
    "token_store": "for a gateway on the service's own loop; the command line makes tokens",
}
BLOCKING_ONLY = {"close": "AsyncVoiceService begins its end with `aclose`"}
WAITS_INSTEAD: dict[Any, Any] = {  # what an asynchronous method gives, and what the blocking one gives for it
    Calls: BlockingCalls,
    SessionEvents: Iterator[VoiceEvent],
    SessionSink: BlockingSink,
    AsyncGenerator[SessionTrace]: Iterator[Iterator[TraceLine]],
}

NOT_IN_A_CLIENT = {
    **LOOP_ONLY,
    "ready": "asked of the server's supervisor by GET /readyz, without a token",
    "check_room": "asked of the server's supervisor by GET /readyz, without a token",
    "check_ready": "asked of the server's supervisor by GET /readyz, without a token",
    "calls": "a client opens calls; it is the server's host that is told of them",
    "dispatch_audio_chunk": "audio goes over `stream`, which knows what arrived",
    "audio_sink": "for the program that holds the conversation, in the service's process",
    "resume": "the stream does that by itself when it comes back",
    "list_resumable_sessions": "they come back to the server by their streams",
    "list_active_sessions": "`list_sessions` with a state",
    "drain": "the answer could not come any more; `begin_drain`",
    "wait_closed": "the answer could not come any more",
    "evidence_disagreements": "part of what `examine_evidence` answers over HTTP",
    "note_evidence": "evidence comes from the service and its host alone",
    "get_provider": "an object of the service's process",
    "provider_names": "what the server's host chose to offer; `agentos-voice doctor` lists what is installed",
    "engine_names": "what the server's host chose to offer; `agentos-voice doctor` lists what is installed",
    "inspect": "for an operator: GET /v1/inspection, and `agentos-voice top`",
    "trace": "for an operator: `agentos-voice trace`",
}
CLIENT_ONLY = {
    "aclose": "ends its connections, not the service",
    "stream": "how audio gets to the service over the network",
}
OTHER_PARAMETERS = {
    ("create_session", "idempotency_key"): "a request may be sent twice over a network",
    ("stop_session", "caller_gone"): "the server itself knows when a stream's caller is gone",
    ("recording", "wait"): "the client gives the file, and waits with a limit: `patience_seconds`",
    ("recording", "patience_seconds"): "the client gives the file, and waits with a limit",
}
OTHER_DEFAULTS = {
    ("create_session", "provider"): "over HTTP it is `local` if nothing is said",
    ("create_session", "stt_provider"): "over HTTP it is `pocketsphinx` if nothing is said",
    ("evaluate_request", "provider"): "over HTTP it is `local` if nothing is said",
    ("evaluate_request", "stt_provider"): "over HTTP it is `pocketsphinx` if nothing is said",
}

STREAM_IN_JAVASCRIPT = {"send": "send", "finish": "finish"}
STREAM_IN_PYTHON_ONLY = {
    "send_nowait": "JavaScript's `send` never waits",
    "events": "JavaScript dispatches them",
    "connected": "JavaScript's `phase`, which says more",
    "statistics": "JavaScript's `progress`, which every acknowledgement brings",
}
STREAM_IN_JAVASCRIPT_ONLY = {
    "start": "a page adds its listeners first",
    "close": "in Python the block is left",
    "done": "in Python what `finish` gives",
    "bookmark": "a page is loaded again, a program is not",
    "phase": "in Python `connected`",
    "progress": "in Python `statistics`",
}


def public(kind: type[Any]) -> dict[str, Any]:
    """Methods and properties, by name."""
    return {
        name: value
        for name, value in inspect.getmembers(kind)
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }


def parameters(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Kind and default of each parameter, in order."""
    return {name: (one.kind, one.default) for name, one in inspect.signature(function).parameters.items()}


def returned(function: Callable[..., Any]) -> Any:
    """What a method gives in the end, whether it is awaited or not."""
    target = inspect.unwrap(function)
    given = get_type_hints(target)["return"]
    return WAITS_INSTEAD.get(given, given)


def test_the_services_offer_the_same() -> None:
    assert set(public(AsyncVoiceService)) - set(public(VoiceService)) == set(LOOP_ONLY)
    assert set(public(VoiceService)) - set(public(AsyncVoiceService)) == set(BLOCKING_ONLY)
    assert parameters(AsyncVoiceService.__init__) == parameters(VoiceService.__init__)


@pytest.mark.parametrize("name", sorted(set(public(AsyncVoiceService)) - set(LOOP_ONLY)))
def test_a_method_of_the_services_is_the_same(name: str) -> None:
    here, there = public(AsyncVoiceService)[name], public(VoiceService)[name]
    if isinstance(here, property):
        assert isinstance(there, property)
        return
    assert parameters(here) == parameters(there)
    assert returned(here) == returned(there)
    assert not inspect.iscoroutinefunction(there)


def test_their_calls_offer_the_same() -> None:
    assert set(public(Call)) == set(public(BlockingCall))
    for name, method in public(Call).items():
        if not isinstance(method, property):
            assert parameters(method) == parameters(public(BlockingCall)[name])
            assert returned(method) == returned(public(BlockingCall)[name])


def test_their_sinks_offer_the_same() -> None:
    assert set(public(SessionSink)) == set(public(BlockingSink))
    assert all(
        parameters(public(SessionSink)[name]) == parameters(public(BlockingSink)[name]) for name in ("send", "clear")
    )


def test_the_client_offers_what_the_service_does() -> None:
    service, client = public(AsyncVoiceService), public(VoiceClient)
    assert set(service) - set(client) == set(NOT_IN_A_CLIENT) - {"aclose"}
    assert set(client) - set(service) == set(CLIENT_ONLY) - {"aclose"}


@pytest.mark.parametrize("name", sorted(set(public(VoiceClient)) - set(CLIENT_ONLY)))
def test_a_method_of_the_client_has_the_parameters_of_the_service(name: str) -> None:
    def known(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
        every = parameters(function).items()
        return {
            one: (kind, None if (name, one) in OTHER_DEFAULTS else default)
            for one, (kind, default) in every
            if (name, one) not in OTHER_PARAMETERS
        }

    here, there = public(VoiceClient)[name], public(AsyncVoiceService)[name]
    assert list(known(here).items()) == list(known(there).items())


def test_each_exception_of_the_client_is_one() -> None:
    for name, parameter in OTHER_PARAMETERS:
        sides = [parameter in parameters(public(kind)[name]) for kind in (VoiceClient, AsyncVoiceService)]
        assert sorted(sides) == [False, True], (name, parameter)
    for name, parameter in OTHER_DEFAULTS:
        assert (
            parameters(public(VoiceClient)[name])[parameter] != parameters(public(AsyncVoiceService)[name])[parameter]
        )


def test_the_python_client_gives_json_for_what_the_service_gives() -> None:
    one, many = dict[str, Any], list[dict[str, Any]]
    for name in sorted(set(public(VoiceClient)) - set(CLIENT_ONLY) - {"recording"}):
        service = get_type_hints(public(AsyncVoiceService)[name])["return"]
        given = get_type_hints(public(VoiceClient)[name])["return"]
        if service is SessionEvents:
            assert given == AsyncGenerator[one]
        else:
            assert given == (many if getattr(service, "__origin__", None) is list else one), name
    assert issubclass(SessionEvents, AsyncIterator)


def test_the_streams_of_the_two_clients_have_the_same_names() -> None:
    """Those of JavaScript in camelCase."""
    source = (Path(str(console.__file__)).parents[1] / "console" / "agentos-voice.js").read_text()
    body = source[
        source.index("export class VoiceStream") : source.index("\n}\n", source.index("export class VoiceStream"))
    ]
    members = set(re.findall(r"^  (?:get |async )?([a-z]\w*)\(", body, re.MULTILINE)) - {"constructor"}
    members |= set(re.findall(r"^    this\.([a-z]\w*) = ", body, re.MULTILINE))
    assert members == {*STREAM_IN_JAVASCRIPT.values(), *STREAM_IN_JAVASCRIPT_ONLY}
    assert set(public(VoiceStream)) == {*STREAM_IN_JAVASCRIPT, *STREAM_IN_PYTHON_ONLY}
    options = set(re.findall(r"@param \{[^\n]*\} \[?options\.(\w+)", body))
    assert {"ringSeconds", "patienceSeconds"} <= options
    assert {"ring_seconds", "patience_seconds"} <= set(parameters(VoiceClient.stream))
