"""The virtual loop: time jumps, order is kept, real work stays aside, and what can never happen is said."""

import asyncio
import itertools
import math
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc import aio

from fedemu.clock import Clock, VirtualClock, run
from fedemu.errors import ClockError, Deadlock, Stalled
from fedemu.loop import aside, standstill


def virtually(main):
    """Run `main(clock)` on a virtual loop."""

    async def start():
        return await main(VirtualClock())

    return run(start(), virtual=True)


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

    with pytest.raises(Deadlock, match=r"nothing is scheduled.*the waiter at .*test_loop\.py"):
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

    with pytest.raises(Stalled, match=r"for 0.05 s of real time: \('phones/3', 'train'\) is due and has not landed"):
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
import asyncio, random
from fedemu.clock import run
litter = []
def scatter():
    litter.extend(bytes(random.randrange(500)) for _ in range(random.randrange(200)))
async def child():
    await asyncio.get_running_loop().create_future()
async def main():
    tasks, futures = [], []
    for i in range(50):
        scatter()
        tasks.append(asyncio.create_task(child(), name=str(i)))
        scatter()
        futures.append(asyncio.get_running_loop().create_future())
    numbers = {future: i for i, future in enumerate(futures)}
    print(*[task.get_name() for task in set(tasks)], *[numbers[future] for future in set(futures)])
    for task in tasks:
        task.cancel()
run(main(), virtual=True)
"""


def test_the_order_of_tasks_and_futures_in_sets_does_not_depend_on_addresses():
    """asyncio keeps them in sets; hashed by their numbers, 50 of each have one order, wherever they are in memory."""
    orders = set()
    for seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", f"import random; random.seed({seed})\n{SETS}"],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        orders.add(result.stdout)
    assert len(orders) == 1


async def never():
    await asyncio.get_running_loop().create_future()


async def take(seconds):
    """Sleep as the running task does; return how long that took in real time."""
    started = time.monotonic()
    await asyncio.sleep(seconds)
    return time.monotonic() - started


def test_a_task_aside_sleeps_in_real_time_and_emulated_time_stands():
    """20 ms aside are 20 real ms; the emulated timer at 1 ms fires only afterwards."""

    async def main(clock: Clock):
        fired = []
        clock.call_at(0.001, lambda: fired.append(clock.now()))
        took = await standstill(take(0.02), "sleep")
        assert took >= 0.019
        assert (clock.now(), fired) == (0.0, [])
        await clock.sleep_until(0.002)
        return fired

    assert virtually(main) == [0.001]


def test_timers_aside_fire_in_their_order_and_not_when_cancelled():
    """Timeouts aside are real too: one of 10 ms ends a sleep of an hour."""

    async def in_order():
        loop, fired = asyncio.get_running_loop(), []
        for i in range(20):
            loop.call_later(0.03 - i * 0.001, fired.append, i)
        loop.call_later(0.02, fired.append, "cancelled").cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        await asyncio.sleep(0.05)
        return fired

    async def main(clock: Clock):
        return await standstill(in_order(), "timers"), clock.now()

    assert virtually(main) == (list(reversed(range(20))), 0.0)


def test_a_task_aside_does_not_hold_up_emulated_time():
    """An hour aside is an hour of real time; a day passes in emulated time without waiting for it."""

    async def main(clock: Clock):
        sleeping = aside(asyncio.sleep(3600), "sleeper")
        await clock.sleep_until(86400.0)
        sleeping.cancel()
        return clock.now()

    started = time.monotonic()
    assert virtually(main) == 86400.0
    assert time.monotonic() - started < 5


def test_the_loops_time_is_real_to_a_task_aside_and_the_clocks_is_emulated():
    """What an aside task starts is aside as well, on its own loop.time()."""

    async def times(clock):
        loop = asyncio.get_running_loop()
        before, inner = time.monotonic(), asyncio.create_task(asyncio.sleep(0, loop))
        assert before <= loop.time() <= time.monotonic()
        assert before <= (await inner).time() <= time.monotonic()
        return clock.now()

    async def main(clock: Clock):
        await clock.sleep_until(7.0)
        assert asyncio.get_running_loop().time() == 7.0
        return await standstill(times(clock), "times"), asyncio.get_running_loop().time()

    assert virtually(main) == (7.0, 7.0)


def test_a_standstill_raises_what_its_work_raises():
    async def fail():
        await asyncio.sleep(0.01)
        raise ZeroDivisionError("of the work")

    async def main(clock: Clock):
        with pytest.raises(ZeroDivisionError, match="of the work"):
            await standstill(fail(), "fail")
        return clock.now()

    assert virtually(main) == 0.0


def test_a_cancelled_standstill_cancels_its_work_and_lets_time_go_on():
    ended = []

    async def work():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main(clock: Clock):
        waiting = asyncio.create_task(standstill(work(), "work"))
        for _ in range(3):  # turns: the standstill starts, and then its work
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await clock.sleep_until(1.0)
        return ended, clock.now()

    assert virtually(main) == (["cancelled"], 1.0)


def test_a_standstill_within_another_is_part_of_it():
    """Nothing aside waits for emulated time, which waits for it."""

    async def main(clock: Clock):
        return await standstill(standstill(take(0.01), "inner"), "outer"), clock.now()

    took, now = virtually(main)
    assert took >= 0.009
    assert now == 0.0


async def test_off_the_virtual_loop_a_standstill_is_an_await_and_aside_a_task():
    assert await standstill(take(0.01), "sleep") >= 0.009
    task = aside(take(0.01), "sleeper")
    assert task.get_name() == "sleeper"
    assert await task >= 0.009


def test_a_standstill_that_does_not_end_is_an_error_that_names_it():
    async def main(clock: Clock):
        await clock.sleep_until(3.0)
        await standstill(never(), "join as phones/3", patience=0.05)

    with pytest.raises(Stalled, match=r"stood at 3 s for 0.05 s of real time: \('join as phones/3',\) is due"):
        virtually(main)


def _add_reader(loop, near):
    loop.add_reader(near, lambda: None)


def _add_writer(loop, near):
    loop.add_writer(near, lambda: None)


@pytest.mark.parametrize("add", [_add_reader, _add_writer])
def test_a_descriptor_cannot_be_waited_for_in_emulated_time(add):
    """When it becomes ready is the real world's; aside it may be watched."""

    async def watch(near):
        loop = asyncio.get_running_loop()
        add(loop, near)
        return loop.remove_reader(near) or loop.remove_writer(near)

    async def main(clock: Clock):
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            with pytest.raises(ClockError, match=f"descriptor {near.fileno()} would be waited for in emulated time"):
                add(asyncio.get_running_loop(), near.fileno())
            return await standstill(watch(near), "watch")

    assert virtually(main) is True


def test_a_socket_cannot_be_read_in_emulated_time_and_can_aside():
    """The bytes come from a thread after 20 ms, so that reading must wait."""

    async def main(clock: Clock):
        loop, (near, far) = asyncio.get_running_loop(), socket.socketpair()
        with near, far:
            near.setblocking(False)
            with pytest.raises(ClockError, match="sockets are for tasks aside"):
                await loop.sock_recv(near, 1)
            later = threading.Timer(0.02, far.send, [b"x"])
            later.start()
            clock.call_at(0.001, lambda: None)
            received = await standstill(loop.sock_recv(near, 1), "receive")
            later.join()
            return received, clock.now()

    assert virtually(main) == (b"x", 0.0)


def test_a_function_in_a_thread_takes_no_emulated_time():
    async def main(clock: Clock):
        loop = asyncio.get_running_loop()
        clock.call_at(0.001, lambda: None)
        await loop.run_in_executor(None, time.sleep, 0.02)
        assert await asyncio.to_thread(lambda: threading.current_thread() is threading.main_thread()) is False
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        return clock.now()

    assert virtually(main) == 0.0


def test_functions_in_threads_end_in_the_order_in_which_they_were_called():
    """Each of 20 waits for the one after it, so that they really end in reverse; what they are is no order."""
    count = 20
    ended = [threading.Event() for _ in range(count + 1)]
    ended[count].set()

    async def main(clock: Clock):
        order = []

        async def call(i):
            def work():
                assert ended[i + 1].wait(10)
                ended[i].set()

            await asyncio.get_running_loop().run_in_executor(executor, work)
            order.append(i)

        with ThreadPoolExecutor(count) as executor:
            async with asyncio.TaskGroup() as group:
                for i in range(count):
                    group.create_task(call(i))
        return order

    assert virtually(main) == list(range(count))


def test_the_loop_shuts_down_after_a_thread_that_is_still_at_work():
    """The thread ends 50 ms after the run: the default executor is joined, without a deadlock."""
    done = []

    def work():
        time.sleep(0.05)
        done.append("work")

    async def main(clock: Clock):
        working = asyncio.get_running_loop().run_in_executor(None, work)
        await asyncio.sleep(0)
        working.cancel()

    virtually(main)
    assert done == ["work"]


def test_the_loop_shuts_down_after_a_task_aside_that_takes_its_time_to_end():
    """The run ends at once; the task that is cancelled then still closes something for 20 real ms."""
    closed = []

    async def work():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.02)
            closed.append("work")

    async def main(clock: Clock):
        aside(work(), "work")
        await clock.sleep_until(1.0)
        return clock.now()

    assert virtually(main) == 1.0
    assert closed == ["work"]


@pytest.mark.parametrize("landing", list(itertools.permutations(range(3))))
def test_flights_that_are_equal_in_all_are_released_in_the_order_of_their_making(landing):
    async def main(clock: Clock):
        released = []

        async def wait(i):
            await flights[i]
            released.append(i)

        flights = [clock.flight(1.0, ("same",)) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for i in reversed(range(3)):
                group.create_task(wait(i))
            await asyncio.sleep(0)
            for i in landing:
                flights[i].land()
        return released

    assert virtually(main) == [0, 1, 2]


def test_a_deadlock_names_the_tasks_of_emulated_time_alone():
    """What is aside is at real work, and never the reason why emulated time cannot go on."""

    async def main(clock: Clock):
        aside(asyncio.sleep(3600), "the one aside")
        asyncio.current_task().set_name("main")
        await asyncio.gather(*[asyncio.create_task(never(), name=name) for name in ("second", "first")])

    with pytest.raises(Deadlock) as error:
        virtually(main)
    waiting = str(error.value).partition("these tasks wait: ")[2].split("; ")
    assert [text.partition(" at ")[0] for text in waiting] == ["first", "main", "second"]


def test_a_grpc_channel_to_nobody_lets_no_emulated_time_pass():
    """gRPC's own waiting is real: it finds out that nobody listens while an emulated timer at 1 ms stands."""

    async def knock(port):
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await channel.wait_for_state_change(state)
                state = channel.get_state()
            with pytest.raises(aio.AioRpcError, match="UNAVAILABLE"):
                await channel.unary_unary("/nobody/Answers")(b"")

    async def main(clock: Clock):
        clock.call_at(0.001, lambda: None)
        with socket.socket() as bound:  # bound and not listening: nobody else gets the port
            bound.bind(("127.0.0.1", 0))
            await standstill(knock(bound.getsockname()[1]), "knock")
        return clock.now()

    assert virtually(main) == 0.0
