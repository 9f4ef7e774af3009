"""Both clocks: emulated time passes at once, real time is waited for, and real work is there when it is due."""

import asyncio
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from fedemu.clock import Clock, RealClock, VirtualClock, finish, run
from fedemu.net.memory import MemoryTransport


def virtually(main):
    """Run `main(clock)` on a virtual loop."""

    async def start():
        return await main(VirtualClock())

    return run(start(), virtual=True)


def test_a_year_passes_at_once():
    """365 days of sleep take no real sleep: well under 5 s."""

    async def main(clock: Clock):
        await clock.sleep_until(365 * 86400.0)
        return clock.now()

    started = time.monotonic()
    assert virtually(main) == 365 * 86400.0
    assert time.monotonic() - started < 5


def test_a_timeout_is_in_emulated_time():
    async def main(clock: Clock):
        with pytest.raises(TimeoutError):
            async with clock.timeout_at(3600.0):
                await asyncio.get_running_loop().create_future()
        async with clock.timeout_at(math.inf):
            await clock.sleep_until(7200.0)
        return clock.now()

    assert virtually(main) == 7200.0


def test_the_result_of_real_work_is_there_at_its_emulated_time():
    """A job of 20 ms that stands for an hour: its result is there after the hour, and not before."""

    def job():
        time.sleep(0.02)
        return "trained"

    async def main(clock: Clock):
        with ThreadPoolExecutor(1) as executor:
            result, moment = await finish(executor.submit(job), clock, 3600.0, ("job",))
        return result, moment, clock.now()

    assert virtually(main) == ("trained", 3600.0, 3600.0)


def test_real_work_that_fails_raises_at_its_emulated_time():
    async def main(clock: Clock):
        work = Future()
        work.set_exception(ZeroDivisionError("of the job"))
        with pytest.raises(ZeroDivisionError, match="of the job"):
            await finish(work, clock, 5.0, ("job",))
        return clock.now()

    assert virtually(main) == 5.0


def test_real_work_that_nobody_waits_for_any_more_is_given_up():
    """It was due at 5 s and never ends: cancelled at 2 s, it does not hold the clock at 5 s."""

    async def main(clock: Clock):
        work = Future()
        waiting = asyncio.create_task(finish(work, clock, 5.0, ("job",)))
        await clock.sleep_until(2.0)
        waiting.cancel()
        await clock.sleep_until(7.0)
        return work.cancelled(), clock.now()

    assert virtually(main) == (True, 7.0)


async def test_the_real_clock_stretches_real_work_to_its_due_time():
    """Work that lands at once but is due in 50 ms is there after 50 ms, not before, and belongs to just that moment."""
    clock = RealClock()
    clock.start()
    flight = clock.flight(0.05, ("job",))
    flight.land()
    assert await flight == 0.05
    assert clock.now() >= 0.05


async def test_the_real_clock_does_not_end_work_before_it_landed():
    """It belongs to the moment when it landed, whoever asks later."""
    clock = RealClock()
    clock.start()
    flight = clock.flight(0.0, ("job",))
    clock.call_at(0.05, flight.land)
    moment = await flight
    assert 0.05 <= moment <= clock.now()
    await clock.sleep_until(moment + 0.02)
    assert await flight == moment


class _Sleepy(RealClock):
    """A clock that wakes everybody up late."""

    async def sleep_until(self, when):
        await super().sleep_until(when + LATE if when > self.now() else when)

    def call_at(self, when, callback):
        return super().call_at(when + LATE, callback)


LATE = 0.2


async def test_a_late_wake_up_is_not_passed_on(toy):
    """0.1 s for a message's bits, 0.3 s for its delay, there and back, and 0.5 s of training: 1.3 s.

    Each of the five wakes up 0.2 s late, and the round is late by one of them.
    """
    task, update = 45, 58  # bytes of a task and an update of three numbers, here
    client = toy.Client(
        takes=(0.5,), down=toy.way(delay=0.3, rate=8 * task / 0.1), up=toy.way(delay=0.3, rate=8 * update / 0.1)
    )
    clock = _Sleepy()
    played = await toy.perform({"c/0": client}, clock, MemoryTransport())
    [sent] = played.of("TaskSent")
    [received] = played.of("UpdateReceived")
    assert (sent.bytes, received.bytes) == pytest.approx((task, update), abs=3)
    assert 1.3 <= received.at - sent.at < 1.3 + 1.5 * LATE
