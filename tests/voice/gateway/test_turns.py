"""Turns of the event loop: one at a time, in the order in which they were asked for, and others run between two of them."""

import asyncio

import anyio
import anyio.lowlevel
import pytest

from agentos.core.communication.voice.gateway.turns import CallbackTurns, TaskTurns

MANY = 20


@pytest.mark.anyio
async def test_between_two_turns_of_tasks_all_others_run() -> None:
    turns, passed, taken = TaskTurns(), [0], list[tuple[int, int]]()

    async def other() -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            passed[0] += 1

    async def wants(number: int) -> None:
        await turns.next()
        taken.append((number, passed[0]))

    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as wanting:
            for number in range(MANY):
                wanting.start_soon(wants, number)
                await anyio.wait_all_tasks_blocked()
            group.start_soon(other)
            group.start_soon(turns.run)
        group.cancel_scope.cancel()
    assert [number for number, _ in taken] == list(range(MANY))
    assert taken[-1][1] - taken[0][1] >= MANY - 2


@pytest.mark.anyio
async def test_turns_that_are_wanted_later_are_given_too() -> None:
    turns = TaskTurns()
    async with anyio.create_task_group() as group:
        group.start_soon(turns.run)
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(30):
                await turns.next()
        group.cancel_scope.cancel()


def test_a_turn_that_raises_keeps_nobody_behind_it_waiting() -> None:
    async def take() -> None:
        loop, taken, told = asyncio.get_running_loop(), list[int](), list[object]()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        turns, fault = CallbackTurns(loop), RuntimeError("a planted fault")

        def raises() -> None:
            raise fault

        turns.add(lambda: taken.append(1))
        turns.add(raises)
        turns.add(lambda: taken.append(2))
        for expected in ([], [1], [1], [1, 2]):
            assert taken == expected
            await asyncio.sleep(0)
        assert told == [fault]
        turns.add(lambda: taken.append(3))
        await asyncio.sleep(0)
        assert taken == [1, 2, 3]

    asyncio.run(take())
