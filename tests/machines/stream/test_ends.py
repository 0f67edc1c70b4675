"""The rules of a browser stream, one by one, and the two ends explored against each other."""

from typing import Any

import pytest
from msgspec import structs

import machines.stream.ends
from machines.checker import Outcome, check
from machines.frozen import FrozenDict
from machines.losses import Lost
from machines.session import VoiceSessionState
from machines.stream.ends import (
    AWAY,
    ENDED,
    ENDING,
    FAILED,
    MOST_LOST,
    OPEN,
    ClientStream,
    FrameRun,
    ServerStream,
    common_format,
)
from machines.stream.media_time import StreamTime
from machines.stream.messages import (
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
from machines.stream.model import StreamModel, stream_model

PCM, OPUS = StreamFormat("pcm_s16le", 16_000), StreamFormat("opus", 48_000)
HELLO = Hello((PCM,), 1, ticket="t")


def open_server(expected: int = 0, limit: int = 10) -> ServerStream:
    server = ServerStream()
    server.open(server.greeted(HELLO), 0, expected, 0, limit)
    return server


def welcome(expected: int = 0, durable: int | None = 0, limit: int = 10) -> Welcome:
    active = VoiceSessionState.ACTIVE
    return Welcome("voice-1", "avr_1", PCM, expected, durable, limit, active, FrozenDict[Any](), 1000, 1000)


def open_client(capacity: int = 5, **said: int | None) -> ClientStream:
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
        assert refusal(ServerStream().receive, End(0)) == StreamCode.MALFORMED
        assert refusal(ServerStream().audio, 0, 1, 0, last=False) == StreamCode.MALFORMED
        assert refusal(open_server().receive, HELLO) == StreamCode.MALFORMED
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
        assert refusal(server.receive, Gap(1, 2, "ring")) == StreamCode.OUT_OF_ORDER
        gap = Gap(0, 200, "ring")
        assert server.receive(gap) is gap
        assert refusal(server.receive, gap) == StreamCode.REPLAYED
        assert refusal(server.receive, Gap(200, 2**32 - 1, "ring")) == StreamCode.MALFORMED
        assert refusal(server.audio, 200, 1, 0, last=False) == StreamCode.BEYOND_LIMIT

    def test_the_end_is_there_when_all_frames_are(self) -> None:
        server = open_server()
        server.audio(0, 2, 0, last=False)
        assert refusal(server.receive, End(3)) == StreamCode.OUT_OF_ORDER
        assert refusal(server.receive, End(1)) == StreamCode.REPLAYED
        assert server.receive(End(2)) == End(2)
        assert server.phase == ENDING
        assert server.receive(End(2)) is None, "told twice is once"
        assert refusal(server.audio, 2, 1, 0, last=False) == StreamCode.MALFORMED
        assert refusal(server.receive, Gap(2, 1, "ring")) == StreamCode.MALFORMED

    def test_no_audio_follows_the_last(self) -> None:
        server = open_server()
        server.audio(0, 2, 0, last=True)
        assert refusal(server.audio, 2, 1, 0, last=False) == StreamCode.MALFORMED
        assert server.receive(End(2)) == End(2)

    def test_a_fenced_connection_takes_nothing_more(self) -> None:
        server = open_server()
        server.fence()
        assert refusal(server.audio, 0, 1, 0, last=False) == StreamCode.FENCED
        assert refusal(server.receive, End(0)) == StreamCode.FENCED

    def test_an_older_attempt_does_not_get_in(self) -> None:
        again = Hello((PCM,), 2, resume="r", next=5)
        assert refusal(ServerStream().open, again, 2, 0, 0, 9) == StreamCode.FENCED

    def test_a_client_that_never_had_what_is_expected_does_not_get_in(self) -> None:
        again = Hello((PCM,), 2, resume="r", next=5)
        assert refusal(ServerStream().open, again, 1, 6, 0, 9) == StreamCode.OUT_OF_ORDER
        assert ServerStream().open(again, 1, 5, 9, 9) == Ack(5, 5, 9), "what is not taken is not durable"

    def test_it_acknowledges_what_has_changed(self) -> None:
        server = open_server()
        assert server.ack(0) is None
        server.audio(0, 2, 0, last=False)
        assert server.ack(9) == Ack(2, 2, 10)
        assert server.ack(1) is None, "what was durable stays durable"
        server.grant(12)
        assert server.ack(2) == Ack(2, 2, 12)

    def test_what_is_called_durable_and_is_lost_is_declared_until_the_client_shows_that_it_knows(self) -> None:
        server = open_server()
        server.audio(0, 8, 0, last=False)
        lost = (Lost(2, 3, "disk_full"),)
        assert server.ack(5, lost) == Ack(8, 5, 10, lost)
        assert not server.has_news(5, lost)
        assert server.ack(5, lost) is None, "nothing has changed"
        assert server.ack(6, lost) == Ack(8, 6, 10, lost), "repeated"
        assert server.beat() == Ping(1)
        longer = (Lost(2, 5, "disk_full"),)
        assert server.has_news(6, longer)
        assert server.ack(7, longer) == Ack(8, 7, 10, longer)
        server.receive(Pong(1))
        assert server.ack(8, longer) == Ack(8, 8, 10, (Lost(5, 2, "disk_full"),)), "it knew of the first three"
        assert server.beat() == Ping(2)
        assert server.beat() == Ping(3)
        server.receive(Pong(2))
        server.audio(8, 1, 200, last=False)
        assert server.ack(9, longer) == Ack(9, 9, 10)

    def test_an_answer_to_no_ping_shows_nothing(self) -> None:
        server = open_server()
        server.audio(0, 8, 0, last=False)
        lost = (Lost(2, 3, "disk_full"),)
        server.ack(5, lost)
        server.receive(Pong(1))
        server.beat()
        server.receive(Pong(7))
        server.receive(Pong(0))
        assert server.ack(6, lost) == Ack(8, 6, 10, lost)

    def test_who_comes_back_is_told_what_it_may_have_missed(self) -> None:
        again = Hello((PCM,), 2, resume="r", next=9, durable=4)
        lost = (Lost(1, 2, "disk_full"), Lost(3, 3, "process_died"))
        assert ServerStream().open(again, 1, 9, 9, 9, lost) == Ack(9, 9, 9, (Lost(4, 2, "process_died"),))

    def test_what_was_lost_to_another_client_is_not_told(self) -> None:
        server = ServerStream()
        assert server.open(server.greeted(HELLO), 0, 9, 9, 9, (Lost(1, 2, "disk_full"),)) == Ack(9, 9, 9)

    def test_nothing_is_durable_behind_more_losses_than_a_message_declares(self) -> None:
        server = open_server(limit=1000)
        server.audio(0, 1000, 0, last=False)
        lost = tuple(Lost(first, 1, "write_failed") for first in range(0, 200, 2))
        first = server.ack(1000, lost)
        assert first == Ack(1000, lost[MOST_LOST].first, 1000, lost[:MOST_LOST])
        server.beat()
        server.receive(Pong(1))
        assert server.ack(1000, lost) == Ack(1000, 1000, 1000, lost[MOST_LOST:])

    def test_a_session_that_keeps_no_audio_has_nothing_to_be_durable(self) -> None:
        server = ServerStream()
        assert server.open(server.greeted(HELLO), 0, 0, None, 9) == Ack(0, None, 9)
        server.audio(0, 2, 0, last=False)
        assert server.ack(None) == Ack(2, None, 9)
        assert server.ack(None) is None

    def test_a_silent_client_is_asked_and_then_given_up(self) -> None:
        server = open_server()
        assert server.beat() == Ping(1)
        assert server.beat() == Ping(2)
        server.receive(Pong(2))
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
        assert client.to_send(2) == FrameRun(0, 2, last=False)
        assert client.to_send(2) == FrameRun(2, 1, last=False)
        assert client.to_send(2) is None
        client.receive(Ack(3, 0, 4))
        assert client.to_send(2) == FrameRun(3, 1, last=False)

    def test_it_keeps_what_is_not_durable(self) -> None:
        client = open_client()
        client.capture(4)
        client.to_send(9)
        client.receive(Ack(4, 1, 10))
        assert (client.kept, client.next) == (1, 4)

    def test_it_lets_go_of_what_was_received_where_the_session_keeps_no_audio(self) -> None:
        client = open_client(durable=None)
        client.capture(4)
        client.to_send(9)
        client.receive(Ack(3, None, 10))
        assert (client.kept, client.next, client.durable) == (3, 4, 0)

    def test_it_hears_once_of_what_is_lost_at_the_server(self) -> None:
        client = open_client(capacity=9)
        client.capture(8)
        client.to_send(9)
        assert client.receive(Ack(8, 5, 10, (Lost(2, 2, "disk_full"),))) == (Lost(2, 2, "disk_full"),)
        assert client.receive(Ack(8, 6, 10, (Lost(2, 2, "disk_full"),))) is None
        assert client.receive(Ack(8, 7, 10, (Lost(2, 5, "disk_full"),))) == (Lost(4, 3, "disk_full"),)
        assert (client.missed, client.kept) == (5, 7)
        client.closed(StreamCode.LOST)
        assert client.hello((PCM,)) == Hello((PCM,), 2, resume="avr_1", first=7, next=8, durable=7)
        assert refusal(client.receive, Ack(8, 8, 10, (Lost(8, 1, "disk_full"),))) == StreamCode.OUT_OF_ORDER

    def test_the_oldest_falls_off_a_full_ring_and_is_declared(self) -> None:
        client = open_client(capacity=2, limit=9)
        client.capture(1)
        assert client.to_send(9) == FrameRun(0, 1, last=False)
        assert client.capture(4) == 3
        assert client.to_send(9) == Gap(1, 2, "ring")
        assert client.to_send(9) == FrameRun(3, 2, last=False)
        assert client.lost == 2, "the first one had been sent"

    def test_what_was_not_captured_is_declared_where_it_is_and_takes_no_room(self) -> None:
        client = open_client(capacity=4, limit=30)
        client.skip(2)
        client.capture(3)
        client.skip(5)
        client.skip(5)
        client.capture(1)
        assert (client.next, client.held, client.kept, client.skipped) == (16, 4, 0, 12)
        assert client.to_send(9) == Gap(0, 2, "capture")
        assert client.to_send(9) == FrameRun(2, 3, last=False)
        assert client.to_send(9) == Gap(5, 10, "capture")
        assert client.to_send(9) == FrameRun(15, 1, last=False)
        client.receive(Ack(16, 7, 30))
        assert (client.kept, client.held, client.passed) == (7, 1, 2), "seven of the gap are not durable, and no frames"
        client.receive(Ack(16, 16, 30))
        assert (client.kept, client.held, client.passed, client.gaps) == (16, 0, 12, ())
        client.finish()
        assert client.to_send(9) == End(16)
        with pytest.raises(ValueError, match="finished"):
            client.skip(1)

    def test_what_fell_off_before_and_behind_a_pause_is_told_apart_from_it(self) -> None:
        client = open_client(capacity=2, limit=30)
        client.capture(2)
        client.skip(3)
        assert client.capture(4) == 4
        assert (client.kept, client.held) == (7, 2)
        assert [client.to_send(9) for _ in range(4)] == [
            Gap(0, 2, "ring"),
            Gap(2, 3, "capture"),
            Gap(5, 2, "ring"),
            FrameRun(7, 2, last=False),
        ]
        assert (client.lost, client.skipped) == (4, 3)

    def test_a_new_client_of_a_session_has_its_pauses_behind_what_is_there(self) -> None:
        client = ClientStream(9, "avs_2")
        client.capture(2)
        client.skip(3)
        client.capture(1)
        client.hello((PCM,))
        client.receive(welcome(expected=100, limit=110))
        assert [client.to_send(9) for _ in range(3)] == [
            FrameRun(100, 2, last=False),
            Gap(102, 3, "capture"),
            FrameRun(105, 1, last=False),
        ]

    def test_it_ends_behind_its_last_frame_which_may_be_short(self) -> None:
        client = open_client()
        client.capture(3)
        client.finish(short=True)
        assert client.to_send(2) == FrameRun(0, 2, last=False)
        assert client.to_send(2) == FrameRun(2, 1, last=True)
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
        assert client.hello((PCM,)) == Hello((PCM,), 2, resume="avr_1", first=1, next=5, durable=1)
        client.receive(welcome(expected=2, durable=1, limit=10))
        assert client.to_send(9) == FrameRun(2, 3, last=False)

    def test_a_server_that_lost_what_the_ring_lost_too_is_told_of_the_gap(self) -> None:
        client = open_client(capacity=2)
        client.capture(2)
        client.to_send(9)
        client.capture(2)
        client.closed(StreamCode.GOING_AWAY)
        client.hello((PCM,))
        client.receive(welcome(expected=1))
        assert client.to_send(9) == Gap(1, 1, "ring")
        assert client.to_send(9) == FrameRun(2, 2, last=False)

    def test_a_new_client_of_a_session_numbers_its_frames_behind_those_that_are_there(self) -> None:
        client = ClientStream(9, "avs_2")
        client.capture(2)
        client.hello((PCM,))
        client.receive(welcome(expected=100, limit=110))
        assert client.to_send(9) == FrameRun(100, 2, last=False)

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


def _free_what_was_received(
    self: ClientStream, received: int, _: int | None, limit: int, lost: tuple[Lost, ...]
) -> tuple[Lost, ...] | None:
    return KNOW(self, received, received, limit, lost)


def _all_is_durable(self: ServerStream, durable: int | None, losses: tuple[Lost, ...]) -> Ack:
    return structs.replace(NOW(self, durable, losses), durable=self.expected)


def _nothing_is_lost(self: ServerStream, durable: int | None, losses: tuple[Lost, ...]) -> Ack:
    return structs.replace(NOW(self, durable, losses), lost=())


def _one_loss_a_message(self: ServerStream, durable: int | None, losses: tuple[Lost, ...]) -> Ack:
    ack = NOW(self, durable, losses)
    return structs.replace(ack, lost=ack.lost[:1])


def _all_is_told_again(
    self: ClientStream, received: int, durable: int | None, limit: int, lost: tuple[Lost, ...]
) -> tuple[Lost, ...] | None:
    self.missed_upto = 0
    return KNOW(self, received, durable, limit, lost)


NOW, KNOW, AGAIN = ServerStream._now, ClientStream._know, StreamTime.from_marks
SAFE, TRUE = (
    "what is declared lost fell off the ring",
    "P10 what the client takes for safe is there or was declared lost",
)
ONCE = "P10 what the server declares lost is lost, and counted once"
OF_DEATHS: list[dict[str, int]] = [{"frames": 2, "ring": 2}, {"frames": 3, "ring": 2, "cuts": 0}]
OF_LOSSES: list[dict[str, int]] = [{"frames": 2, "ring": 2, "cuts": 0, "deaths": 0, "refusals": 1}]
OF_MANY: list[dict[str, int]] = [{"frames": 3, "ring": 3, "cuts": 0, "deaths": 0, "refusals": 2}]
PLANTED: dict[str, tuple[type, str, Any, str, list[dict[str, int]]]] = {
    "the client lets go of what was only received": (ClientStream, "_know", _free_what_was_received, SAFE, OF_DEATHS),
    "the server calls everything durable": (ServerStream, "_now", _all_is_durable, SAFE, OF_DEATHS),
    "the server says nothing of losses": (ServerStream, "_now", _nothing_is_lost, TRUE, OF_LOSSES),
    "the server leaves out losses": (ServerStream, "_now", _one_loss_a_message, TRUE, OF_MANY),
    "the client counts a loss as often as it is told": (ClientStream, "_know", _all_is_told_again, ONCE, OF_LOSSES),
}


IN_PLACE = "every frame is taken once and in order, or declared lost"
AGREED = "neither end breaks the protocol or is refused"
UNTIMELY: dict[str, tuple[str, Any, dict[str, int], str]] = {
    "a pause is not seen": ("follows", lambda *_: True, {"cuts": 0, "deaths": 0}, IN_PLACE),
    "the client is told the session's numbers": ("number", lambda _, frame: frame, {"cuts": 1, "deaths": 0}, AGREED),
    "the marks die with the server": ("from_marks", lambda *_: (StreamTime(), 0), {"cuts": 0, "deaths": 1}, AGREED),
    "a mark beyond what the session has counts": (
        "from_marks",
        lambda marks, _: (StreamTime(tuple(marks), AGAIN(marks, 10**6)[0].begin_us, restored=True), 0),
        {"cuts": 0, "deaths": 1},
        IN_PLACE,
    ),
}


def failing(model: StreamModel) -> set[str]:
    return {verdict.name for verdict in check(model).verdicts if verdict.outcome is not Outcome.HOLDS}


def breaks(promise: str, model: StreamModel) -> bool:
    """Whether the model breaks this promise: it is asked for no other, so that the search ends at the first failure."""
    claims = [claim for claim in model.properties() if claim.name == promise]
    vars(model)["properties"] = lambda: claims
    (verdict,) = check(model).verdicts
    return verdict.outcome is Outcome.FAILS


class TestModel:
    @pytest.mark.parametrize(
        "sizes",
        [
            pytest.param({"frames": 2, "ring": 2, "cuts": 1, "deaths": 1}, marks=pytest.mark.search),
            pytest.param({"frames": 3, "ring": 2, "cuts": 0, "deaths": 1}, marks=pytest.mark.search),
            {"frames": 1, "ring": 1, "cuts": 1, "deaths": 1, "refusals": 1},
            {"frames": 2, "ring": 2, "cuts": 0, "deaths": 1, "refusals": 1},
        ],
        ids=str,
    )
    def test_every_frame_comes_once_and_the_stream_ends_whatever_is_cut(self, sizes: dict[str, int]) -> None:
        vacuous = {"a client comes back and goes on", "a newer connection fences an older"}
        assert failing(stream_model(**sizes)) <= (vacuous if sizes["cuts"] == 0 else set())

    @pytest.mark.parametrize(
        ("sizes", "declare"),
        [
            ({"cuts": 0, "deaths": 1}, True),
            ({"cuts": 0, "deaths": 1}, False),
            ({"cuts": 1, "deaths": 0}, False),
            pytest.param({"cuts": 1, "deaths": 0}, True, marks=(pytest.mark.slow, pytest.mark.search)),
        ],
        ids=str,
    )
    def test_a_pause_has_its_place_and_its_length_whatever_is_cut(self, sizes: dict[str, int], declare: bool) -> None:
        found = failing(stream_model(frames=2, ring=2, pauses=1, declare=declare, **sizes))
        vacuous = {"a client comes back and goes on", "a newer connection fences an older"}
        assert found <= (vacuous if sizes["cuts"] == 0 else {"a stream outlives its server"})

    @pytest.mark.search
    @pytest.mark.parametrize("bug", list(UNTIMELY))
    def test_a_pause_that_is_not_kept_is_found(self, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
        name, wrong, sizes, promise = UNTIMELY[bug]
        monkeypatch.setattr(StreamTime, name, wrong)
        assert breaks(promise, stream_model(frames=2, ring=2, pauses=1, declare=False, **sizes))

    def test_the_same_of_a_session_that_keeps_no_audio(self) -> None:
        assert failing(StreamModel(frames=2, deaths=0, keep=False)) == {"a stream outlives its server"}

    @pytest.mark.search
    @pytest.mark.parametrize(
        ("bug", "sizes"), [(bug, sizes) for bug, (*_, where) in PLANTED.items() for sizes in where], ids=str
    )
    def test_a_frame_that_is_called_safe_too_early_is_found(
        self, monkeypatch: pytest.MonkeyPatch, bug: str, sizes: dict[str, int]
    ) -> None:
        owner, name, wrong, promise, _ = PLANTED[bug]
        monkeypatch.setattr(owner, name, wrong)
        assert breaks(promise, stream_model(**sizes))

    @pytest.mark.search
    def test_more_losses_than_a_message_declares_wait_for_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machines.stream.ends, "MOST_LOST", 1)
        vacuous = {
            "a client comes back and goes on",
            "a newer connection fences an older",
            "a stream outlives its server",
        }
        assert failing(stream_model(**OF_MANY[0])) == vacuous

    @pytest.mark.slow
    @pytest.mark.search
    @pytest.mark.timeout(300)
    @pytest.mark.parametrize(
        "sizes",
        [
            {},
            {"frames": 2, "ring": 1, "cuts": 1, "deaths": 1},
            {"frames": 2, "ring": 1, "cuts": 2},
            {"frames": 2, "ring": 2, "cuts": 1, "deaths": 1, "refusals": 1},
        ],
        ids=str,
    )
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
