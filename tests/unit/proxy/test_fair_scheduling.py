"""Tests of fair scheduling: in each iteration of the event loop, one connection of each class may continue."""

import asyncio

import pytest

from openclaw_egress.proxy.fair_scheduling import FairScheduler

NOISY, QUIET = 8082, 8080


async def order_of(listeners: list[int], scheduler: FairScheduler, *, cancelled: int | None = None) -> list[int]:
    went: list[int] = []

    async def go(listener: int) -> None:
        await scheduler.wait(listener)
        went.append(listener)

    tasks = [asyncio.create_task(go(listener)) for listener in listeners]
    if cancelled is not None:
        await asyncio.sleep(0)
        tasks[cancelled].cancel()
    await asyncio.wait(tasks)
    return went


def test_quiet_class_does_not_wait_for_every_connection_of_a_noisy_class():
    went = asyncio.run(order_of([NOISY] * 100 + [QUIET], FairScheduler()))
    assert len(went) == 101
    assert went.index(QUIET) <= 3


@pytest.mark.parametrize("cancelled", [0, 1, 50])
def test_waiting_client_that_disconnects_does_not_block_others(cancelled):
    assert asyncio.run(order_of([NOISY] * 100, FairScheduler(), cancelled=cancelled)) == [NOISY] * 99
