"""The line of those who wait."""

import asyncio

import pytest
from vigtui.server.fault import Fault
from vigtui.server.line import Line
from vigtui.server.metric import Metrics


async def settle() -> None:
    for _turn in range(10):
        await asyncio.sleep(0)


async def wait(line: Line, client: str, name: str, order: list[str]) -> None:
    async with line.turn(client):
        order.append(name)


def test_clients_take_turns_and_keep_their_own_order() -> None:
    async def story() -> list[str]:
        line, order = Line(10, Metrics()), list[str]()
        async with line.turn("first"):
            tasks = [asyncio.create_task(wait(line, name[0], name, order)) for name in ("a1", "a2", "a3", "b1", "b2")]
            await settle()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(story()) == ["a1", "b1", "a2", "b2", "a3"]


def test_no_more_wait_than_there_is_room_for() -> None:
    async def story() -> Metrics:
        metrics, order = Metrics(), list[str]()
        line = Line(1, metrics)
        async with line.turn("a"):
            waiting = asyncio.create_task(wait(line, "b", "b", order))
            await settle()
            assert (metrics.queued, metrics.running) == (1, 1)
            with pytest.raises(Fault) as refused:
                await wait(line, "c", "c", order)
            assert refused.value.status == 429
        await waiting
        await wait(line, "c", "c", order)
        assert order == ["b", "c"]
        return metrics

    metrics = asyncio.run(story())
    assert (metrics.queued, metrics.running) == (0, 0)


@pytest.mark.parametrize("late", [False, True])
def test_who_leaves_holds_nobody_up(late: bool) -> None:
    """Also when the turn comes at the very moment of leaving."""

    async def story() -> list[str]:
        line, order = Line(5, Metrics()), list[str]()
        turn = line.turn("a")
        await turn.__aenter__()
        leaving = asyncio.create_task(wait(line, "b", "b", order))
        staying = asyncio.create_task(wait(line, "c", "c", order))
        await settle()
        if late:
            await turn.__aexit__(None, None, None)
            leaving.cancel()
        else:
            leaving.cancel()
            await settle()
            await turn.__aexit__(None, None, None)
        await asyncio.wait_for(staying, 5)
        await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.wait_for(wait(line, "d", "d", order), 5)
        return order

    assert asyncio.run(story()) == ["c", "d"]
