"""The virtual clock: time jumps, order is kept, and what can never happen is said."""

import asyncio
import math
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedemu.clock import Clock, RealClock, VirtualClock, run
from fedemu.errors import Deadlock, Stalled


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


def test_sums_of_delays_meet_on_the_nanosecond_grid():
    """0.1 + 0.2 is 0.30000000000000004 in floating point; on the clock both are the moment 0.3."""

    async def main(clock: Clock):
        await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
        return clock.now()

    assert virtually(main) == 0.3


def test_timers_of_the_same_time_fire_in_the_order_in_which_they_were_set():
    """CPython's heap does not promise that: 100 equal deadlines among others come out shuffled."""

    async def main(clock: Clock):
        fired: list[int] = []
        for i in range(100):
            clock.call_at(1.0, lambda i=i: fired.append(i))
            clock.call_at(0.5 + i * 0.001, lambda: None)
        await clock.sleep_until(2.0)
        return fired

    assert virtually(main) == list(range(100))


def test_a_timeout_is_in_emulated_time():
    async def main(clock: Clock):
        with pytest.raises(TimeoutError):
            async with clock.timeout_at(3600.0):
                await asyncio.get_running_loop().create_future()
        async with clock.timeout_at(math.inf):
            await clock.sleep_until(7200.0)
        return clock.now()

    assert virtually(main) == 7200.0


def test_flights_are_released_by_time_and_key_whatever_the_order_of_landing():
    """Landed in the order c, b, a; due at 2, 1, 1: the keys decide between a and b."""

    async def main(clock: Clock):
        seen = []

        async def wait(when, key):
            await flights[key]
            seen.append((clock.now(), key))

        flights = {key: clock.flight(when, (key,)) for key, when in [("c", 2.0), ("b", 1.0), ("a", 1.0)]}
        async with asyncio.TaskGroup() as group:
            for key in ("c", "b", "a"):
                group.create_task(wait(0, key))
            for key in ("c", "b", "a"):
                flights[key].land()
        return seen

    assert virtually(main) == [(1.0, "a"), (1.0, "b"), (2.0, "c")]


def test_real_work_overlaps_with_emulated_time_and_only_freezes_it_when_due():
    """The job is due at 5 s and lands only when the clock has been at 4 s: time went on meanwhile, and then waited."""
    reached, done = threading.Event(), []

    async def main(clock: Clock):
        loop = asyncio.get_running_loop()
        flight = clock.flight(5.0, ("job",))

        def job():
            assert reached.wait(10)
            done.append("job")

        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(job)
            future.add_done_callback(lambda _: loop.call_soon_threadsafe(flight.land))
            clock.call_at(4.0, reached.set)
            clock.call_at(6.0, lambda: done.append("six"))
            await flight
            assert clock.now() == 5.0
            await clock.sleep_until(7.0)
        return done

    assert virtually(main) == ["job", "six"]


def test_a_deadlock_names_who_waits():
    async def main(clock: Clock):
        asyncio.current_task().set_name("the waiter")
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match=r"nothing is scheduled.*the waiter at .*test_clock\.py"):
        virtually(main)


def test_a_busy_loop_on_the_clock_is_found(monkeypatch):
    """Waiting until a time that is an ulp above the clock's grid never gets there."""
    monkeypatch.setattr("fedemu.loop.STEPS", 1000)

    async def main(clock: Clock):
        target = math.nextafter(1.0, 2)
        while clock.now() < target:
            await clock.sleep_until(target)

    with pytest.raises(Deadlock, match=r"1000 turns at 1 s of emulated time: something waits in a busy loop"):
        virtually(main)


def test_real_work_that_does_not_land_is_an_error_that_names_it():
    async def main(clock: Clock):
        await clock.flight(1.0, ("phones/3", "train"), patience=0.05)

    with pytest.raises(Stalled, match=r"phones/3.*has not landed within 0.05 s of real time"):
        virtually(main)


def test_a_cancelled_flight_does_not_hold_the_clock():
    async def main(clock: Clock):
        async def wait():
            await clock.flight(1.0, ("never",), patience=0.05)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await clock.sleep_until(2.0)
        return clock.now()

    assert virtually(main) == 2.0


SETS = """
import asyncio
from fedemu.clock import run
async def child(i):
    junk = [object() for _ in range(i * 7)]
    await asyncio.get_running_loop().create_future()
async def main():
    tasks = {asyncio.create_task(child(i), name=str(i)) for i in range(50)}
    print(" ".join(t.get_name() for t in tasks))
    for t in tasks: t.cancel()
run(main(), virtual=True)
"""


def test_the_order_of_tasks_in_sets_does_not_depend_on_addresses():
    """asyncio keeps tasks in sets; hashed by lineage, a set of 50 has one order in every process."""
    orders = set()
    for seed in ("0", "1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", f"x = [bytearray(997) for _ in range({int(seed) * 1000})]\n{SETS}"],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        orders.add(result.stdout)
    assert len(orders) == 1


async def test_the_real_clock_stretches_real_work_to_its_due_time():
    """Work that lands at once but is due in 50 ms is there after 50 ms, not before."""
    clock = RealClock()
    clock.start()
    flight = clock.flight(0.05, ("job",))
    flight.land()
    await flight
    assert clock.now() >= 0.05


async def test_the_real_clock_does_not_end_work_before_it_landed():
    clock = RealClock()
    clock.start()
    flight = clock.flight(0.0, ("job",))
    clock.call_at(0.05, flight.land)
    await flight
    assert clock.now() >= 0.05
