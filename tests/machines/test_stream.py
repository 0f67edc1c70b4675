"""The rules of a browser stream, one by one, and the two ends explored against each other."""

from typing import Any

import pytest

from machines.checker import Outcome, check
from machines.frozen import FrozenDict
from machines.session import VoiceSessionState
from machines.stream import AWAY, ENDED, ENDING, FAILED, OPEN, ClientStream, Run, ServerStream, common_format
from machines.stream_messages import (
    COME_BACK,
    Ack,
    Bye,
    End,
    Event,
    Gap,
    Hello,
    Ping,
    Pong,
    StreamCode,
    StreamFormat,
    StreamViolation,
    Welcome,
)
from machines.stream_model import StreamModel, stream_model

PCM, OPUS = StreamFormat("pcm_s16le", 16_000), StreamFormat("opus", 48_000)
HELLO = Hello((PCM,), 1, ticket="t")


def open_server(expected: int = 0, limit: int = 10) -> ServerStream:
    server = ServerStream()
    server.open(server.greeted(HELLO), 0, expected, 0, limit)
    return server


def welcome(expected: int = 0, durable: int = 0, limit: int = 10) -> Welcome:
    active = VoiceSessionState.ACTIVE
    return Welcome("voice-1", "avr_1", PCM, expected, durable, limit, active, FrozenDict[Any](), 1000, 1000)


def open_client(capacity: int = 5, **said: int) -> ClientStream:
    client = ClientStream(capacity, "avs_1")
    client.hello((PCM,))
    client.receive(welcome(**said))
    return client


def refusal(call: Any, *arguments: Any, **named: Any) -> int:
    with pytest.raises(StreamViolation) as refused:
        call(*arguments, **named)
    return refused.value.code


class TestServer:
    def test_the_first_message_is_hello_and_only_the_first(self) -> None:
        assert refusal(ServerStream().greeted, End(0)) == StreamCode.MALFORMED
        assert refusal(ServerStream().heard_of, End(0)) == StreamCode.MALFORMED
        assert refusal(ServerStream().audio, 0, 1, 0, last=False) == StreamCode.MALFORMED
        assert refusal(open_server().heard_of, HELLO) == StreamCode.MALFORMED
        assert refusal(open_server().greeted, HELLO) == StreamCode.MALFORMED

    def test_frames_are_taken_in_order_and_once(self) -> None:
        server = open_server()
        server.audio(0, 2, 0, last=False)
        assert refusal(server.audio, 1, 2, 40, last=False) == StreamCode.REPLAYED
        assert refusal(server.audio, 3, 1, 40, last=False) == StreamCode.OUT_OF_ORDER
        server.audio(2, 1, 40, last=False)
        assert server.expected == 3

    def test_nothing_beyond_the_limit_is_taken(self) -> None:
        server = open_server(limit=2)
        assert refusal(server.audio, 0, 3, 0, last=False) == StreamCode.BEYOND_LIMIT
        server.grant(3)
        server.grant(1)
        server.audio(0, 3, 0, last=False)

    def test_the_media_time_never_falls(self) -> None:
        server = open_server()
        server.audio(0, 1, 100, last=False)
        assert refusal(server.audio, 1, 1, 99, last=False) == StreamCode.OUT_OF_ORDER

    def test_a_gap_begins_with_the_expected_frame(self) -> None:
        server = open_server()
        assert refusal(server.heard_of, Gap(1, 2, "ring")) == StreamCode.OUT_OF_ORDER
        gap = Gap(0, 200, "ring")
        assert server.heard_of(gap) is gap
        assert refusal(server.heard_of, gap) == StreamCode.REPLAYED
        assert refusal(server.heard_of, Gap(200, 2**32 - 1, "ring")) == StreamCode.MALFORMED
        assert refusal(server.audio, 200, 1, 0, last=False) == StreamCode.BEYOND_LIMIT

    def test_the_end_is_there_when_all_frames_are(self) -> None:
        server = open_server()
        server.audio(0, 2, 0, last=False)
        assert refusal(server.heard_of, End(3)) == StreamCode.OUT_OF_ORDER
        assert refusal(server.heard_of, End(1)) == StreamCode.REPLAYED
        assert server.heard_of(End(2)) == End(2)
        assert server.phase == ENDING
        assert server.heard_of(End(2)) is None, "told twice is once"
        assert refusal(server.audio, 2, 1, 0, last=False) == StreamCode.MALFORMED
        assert refusal(server.heard_of, Gap(2, 1, "ring")) == StreamCode.MALFORMED

    def test_no_audio_follows_the_last(self) -> None:
        server = open_server()
        server.audio(0, 2, 0, last=True)
        assert refusal(server.audio, 2, 1, 0, last=False) == StreamCode.MALFORMED
        assert server.heard_of(End(2)) == End(2)

    def test_a_fenced_connection_takes_nothing_more(self) -> None:
        server = open_server()
        server.fence()
        assert refusal(server.audio, 0, 1, 0, last=False) == StreamCode.FENCED
        assert refusal(server.heard_of, End(0)) == StreamCode.FENCED

    def test_an_older_attempt_does_not_get_in(self) -> None:
        again = Hello((PCM,), 2, resume="r", next=5)
        assert refusal(ServerStream().open, again, 2, 0, 0, 9) == StreamCode.FENCED

    def test_a_client_that_never_had_what_is_expected_does_not_get_in(self) -> None:
        again = Hello((PCM,), 2, resume="r", next=5)
        assert refusal(ServerStream().open, again, 1, 6, 0, 9) == StreamCode.OUT_OF_ORDER
        assert ServerStream().open(again, 1, 5, 9, 9) == (5, 5, 9), "what is not taken is not durable"

    def test_it_acknowledges_what_has_changed(self) -> None:
        server = open_server()
        assert server.ack(0) is None
        server.audio(0, 2, 0, last=False)
        assert server.ack(9) == Ack(2, 2, 10)
        assert server.ack(1) is None, "what was durable stays durable"
        server.grant(12)
        assert server.ack(2) == Ack(2, 2, 12)

    def test_a_silent_client_is_asked_and_then_given_up(self) -> None:
        server = open_server()
        assert server.beat() == Ping(1)
        assert server.beat() == Ping(2)
        server.heard_of(Pong(2))
        assert server.beat() == Ping(3)
        assert server.beat() == Ping(4)
        assert refusal(server.beat) == StreamCode.TOO_SLOW

    def test_the_first_wish_that_can_be_met_is_the_format(self) -> None:
        assert common_format((OPUS, PCM), (PCM,)) == PCM
        assert common_format((OPUS, PCM), (PCM, OPUS)) == OPUS
        assert refusal(common_format, (OPUS,), (PCM,)) == StreamCode.NO_COMMON_FORMAT


class TestClient:
    def test_it_sends_what_it_may_and_no_more(self) -> None:
        client = open_client(limit=3)
        client.capture(5)
        assert client.to_send(2) == Run(0, 2, last=False)
        assert client.to_send(2) == Run(2, 1, last=False)
        assert client.to_send(2) is None
        client.receive(Ack(3, 0, 4))
        assert client.to_send(2) == Run(3, 1, last=False)

    def test_it_keeps_what_is_not_durable(self) -> None:
        client = open_client()
        client.capture(4)
        client.to_send(9)
        client.receive(Ack(4, 1, 10))
        assert (client.kept, client.next) == (1, 4)

    def test_the_oldest_falls_off_a_full_ring_and_is_declared(self) -> None:
        client = open_client(capacity=2, limit=9)
        client.capture(1)
        assert client.to_send(9) == Run(0, 1, last=False)
        assert client.capture(4) == 3
        assert client.to_send(9) == Gap(1, 2, "ring")
        assert client.to_send(9) == Run(3, 2, last=False)
        assert client.lost == 2, "the first one had been sent"

    def test_it_ends_behind_its_last_frame_which_may_be_short(self) -> None:
        client = open_client()
        client.capture(3)
        client.finish(short=True)
        assert client.to_send(2) == Run(0, 2, last=False)
        assert client.to_send(2) == Run(2, 1, last=True)
        assert client.to_send(2) == End(3)
        assert client.to_send(2) is None
        with pytest.raises(ValueError, match="finished"):
            client.capture(1)

    def test_it_comes_back_with_its_token_and_goes_on_where_the_server_is(self) -> None:
        client = open_client(limit=10)
        client.capture(4)
        client.to_send(9)
        client.receive(Ack(3, 1, 10))
        client.closed(StreamCode.LOST)
        assert client.phase == AWAY
        client.capture(1)
        assert client.to_send(9) is None
        assert client.hello((PCM,)) == Hello((PCM,), 2, resume="avr_1", first=1, next=5)
        client.receive(welcome(expected=2, durable=1, limit=10))
        assert client.to_send(9) == Run(2, 3, last=False)

    def test_a_server_that_lost_what_the_ring_lost_too_is_told_of_the_gap(self) -> None:
        client = open_client(capacity=2)
        client.capture(2)
        client.to_send(9)
        client.capture(2)
        client.closed(StreamCode.GOING_AWAY)
        client.hello((PCM,))
        client.receive(welcome(expected=1))
        assert client.to_send(9) == Gap(1, 1, "ring")
        assert client.to_send(9) == Run(2, 2, last=False)

    def test_a_new_client_of_a_session_numbers_its_frames_behind_those_that_are_there(self) -> None:
        client = ClientStream(9, "avs_2")
        client.capture(2)
        client.hello((PCM,))
        client.receive(welcome(expected=100, limit=110))
        assert client.to_send(9) == Run(100, 2, last=False)

    def test_what_a_server_can_not_have_is_a_violation(self) -> None:
        client = open_client()
        assert refusal(client.receive, Ack(1, 0, 10)) == StreamCode.OUT_OF_ORDER
        assert refusal(client.receive, welcome()) == StreamCode.MALFORMED
        client.closed(StreamCode.LOST)
        client.hello((PCM,))
        assert refusal(client.receive, welcome(expected=1)) == StreamCode.OUT_OF_ORDER

    def test_events_come_once(self) -> None:
        client = open_client()
        event = Event(4, "stt_final", 0, {})
        assert client.receive(event) is event
        assert client.receive(event) is None
        assert client.events == 4

    @pytest.mark.parametrize("code", range(4400, 4504))
    def test_it_comes_back_only_when_that_may_help(self, code: int) -> None:
        client = open_client()
        client.closed(code)
        assert client.phase == (AWAY if code in COME_BACK else FAILED)

    def test_after_the_end_it_stays_ended(self) -> None:
        client = open_client()
        client.receive(Bye(VoiceSessionState.STOPPED, "stopped"))
        client.closed(StreamCode.DONE)
        assert client.phase == ENDED

    def test_it_answers_pings_and_notices_a_silent_server(self) -> None:
        client = open_client()
        assert client.receive(Ping(7)) == Pong(7)
        assert client.beat()
        assert client.beat()
        assert client.beat()
        assert not client.beat()
        assert client.phase == OPEN


def _free_what_was_received(self: ClientStream, received: int, durable: int, limit: int) -> None:
    self.durable, self.limit = received, max(self.limit, limit)
    self._release()


def _all_is_durable(self: ServerStream, durable: int) -> Ack | None:
    now = (self.expected, self.expected, self.limit)
    if now == self.acked:
        return None
    self.acked = now
    return Ack(*now)


PLANTED: dict[str, tuple[type, str, Any]] = {
    "the client lets go of what was only received": (ClientStream, "_know", _free_what_was_received),
    "the server calls everything durable": (ServerStream, "ack", _all_is_durable),
}


class TestModel:
    @pytest.mark.parametrize(
        "sizes",
        [
            {"frames": 2, "ring": 1, "cuts": 1, "deaths": 1},
            {"frames": 2, "ring": 2, "cuts": 1, "deaths": 1},
            {"frames": 3, "ring": 2, "cuts": 0, "deaths": 1},
        ],
        ids=str,
    )
    def test_every_frame_comes_once_and_the_stream_ends_whatever_is_cut(self, sizes: dict[str, int]) -> None:
        failing = {
            verdict.name for verdict in check(stream_model(**sizes)).verdicts if verdict.outcome is not Outcome.HOLDS
        }
        vacuous = {"a client comes back and goes on", "a newer connection fences an older"}
        assert failing <= (vacuous if sizes["cuts"] == 0 else set())

    @pytest.mark.parametrize("sizes", [{"frames": 2, "ring": 2}, {"frames": 3, "ring": 2, "cuts": 0}], ids=str)
    @pytest.mark.parametrize("bug", PLANTED)
    def test_a_frame_that_is_called_safe_too_early_is_found(
        self, monkeypatch: pytest.MonkeyPatch, bug: str, sizes: dict[str, int]
    ) -> None:
        owner, name, wrong = PLANTED[bug]
        monkeypatch.setattr(owner, name, wrong)
        failing = {
            verdict.name for verdict in check(stream_model(**sizes)).verdicts if verdict.outcome is not Outcome.HOLDS
        }
        assert "what is declared lost fell off the ring" in failing

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("sizes", [{}, {"frames": 2, "ring": 1, "cuts": 2}], ids=str)
    def test_the_same_of_more_frames_and_of_two_cuts(self, sizes: dict[str, int]) -> None:
        assert check(stream_model(**sizes)).outcome is Outcome.HOLDS

    def test_a_run_can_be_shown(self) -> None:
        model = StreamModel(frames=1)
        state, seen = next(iter(model.initial())), []
        for name in (
            "capture",
            "finish",
            "connect",
            "arrive",
            "hear",
            "send",
            "arrive",
            "send",
            "arrive",
            "stop",
            "hear",
        ):
            action = next(one for one in model.actions(state) if one[0] == name)
            after = model.step(state, action)
            seen += [(one.kind, one.text) for one in model.happenings(state, action, after)]
            state = after
        assert ("message", "audio 0") in seen
        assert ("message", "bye") in seen
        assert model.fields(state)["client"].phase == ENDED
        assert model.pending(state) == {
            "to the server": [],
            "to the client": ["closed 1000"],
            "late, to the server": [],
        }
