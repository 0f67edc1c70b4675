"""An ask: one question, one answer, a deadline."""

# ruff: noqa: RUF012 - a table on an actor class is never changed

import functools
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from actors.runtime.actor import Actor, Out
from actors.runtime.system import ActorSystem, AskTimeout, Token


class Question:
    def __init__(self, token: Token) -> None:
        self.token = token


class Answerer(Actor):
    """Answers after `delay` seconds; at once when that is 0, never when it is negative."""

    __slots__ = ("delay", "tokens")
    wiring = ("delay",)
    state = ("tokens",)
    handles = {Question: "question"}

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.tokens: tuple[Token, ...] = ()

    def question(self, message: Question, out: Out) -> None:
        self.tokens = (*self.tokens, message.token)
        if self.delay > 0:
            out.set_timer(f"{len(self.tokens)}", self.delay)
        elif self.delay == 0:
            out.reply(message.token, "at once")

    def timeout(self, timer: str, out: Out) -> None:
        out.reply(self.tokens[int(timer) - 1], f"answer {timer}")


@pytest.mark.anyio
async def test_an_actor_that_answers_at_once_is_answered_for_without_a_checkpoint() -> None:
    system = ActorSystem()
    ref = system.spawn(Answerer(0), "answerer")
    others: list[str] = []

    async def other() -> None:
        others.append("ran")

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        assert await system.ask(ref, Question, 1.0) == "at once"
        assert others == [], "nobody else ran meanwhile"
    assert others == ["ran"]


@pytest.mark.trio
async def test_an_answer_that_comes_later_is_waited_for(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    system = ActorSystem()
    await nursery.start(system.run)
    ref = system.spawn(Answerer(3.0), "answerer")
    assert await system.ask(ref, Question, 5.0) == "answer 1"
    assert trio.current_time() == pytest.approx(3.0)
    nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_without_an_answer_the_deadline_ends_the_wait_and_a_late_one_is_a_dead_letter(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    system = ActorSystem()
    await nursery.start(system.run)
    ref = system.spawn(Answerer(3.0), "answerer")
    with pytest.raises(AskTimeout, match=r"answerer did not answer within 2\.0 s"):
        await system.ask(ref, Question, 2.0)
    assert trio.current_time() == pytest.approx(2.0)
    await trio.sleep(2)
    assert [(letter.to, letter.reason) for letter in system.dead_letters] == [("answerer", "late reply")]
    nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_an_ask_timeout_is_a_timeout_error(autojump_clock: MockClock) -> None:
    system = ActorSystem()
    ref = system.spawn(Answerer(-1), "silent")
    with pytest.raises(TimeoutError):
        await system.ask(ref, Question, 1.0)


@pytest.mark.trio
async def test_when_the_asker_is_cancelled_the_token_is_dead(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    system = ActorSystem()
    await nursery.start(system.run)
    ref = system.spawn(Answerer(3.0), "answerer")
    with trio.move_on_after(1) as scope:
        await system.ask(ref, Question, 10.0)
    assert scope.cancelled_caught
    await trio.sleep(5)
    assert [letter.reason for letter in system.dead_letters] == ["late reply"]
    nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_nobody_waits_for_an_actor_that_had_stopped_before_it_was_asked(autojump_clock: MockClock) -> None:
    system = ActorSystem()
    ref = system.spawn(Answerer(0), "gone")
    system.stop(ref)
    with pytest.raises(AskTimeout, match="gone has stopped and can't answer"):
        await system.ask(ref, Question, 1.0)
    assert trio.current_time() == pytest.approx(0.0)
    assert [letter.kind for letter in system.dead_letters] == ["Question"]


def test_a_token_answers_once() -> None:
    system = ActorSystem()
    ref = system.spawn(Answerer(0), "answerer")
    token = Token()
    system.tell(ref, Question(token))
    system.tell(ref, Question(token))
    assert token.value == "at once"
    assert [letter.reason for letter in system.dead_letters] == ["late reply"]


@pytest.mark.anyio
async def test_many_asks_at_once_get_their_own_answers() -> None:
    system = ActorSystem()
    answers: dict[int, Any] = {}

    async def ask(number: int, ref: Any) -> None:
        answers[number] = await system.ask(ref, Question, 10.0)

    async with anyio.create_task_group() as group:
        await group.start(system.run)
        ref = system.spawn(Answerer(0.001), "answerer")  # real time, so that every loop has to wait for its answer
        async with anyio.create_task_group() as askers:
            for number in range(20):
                askers.start_soon(functools.partial(ask, number, ref))
        group.cancel_scope.cancel()
    assert sorted(answers.values()) == sorted(f"answer {number}" for number in range(1, 21))
