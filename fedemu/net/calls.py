"""A call: a message that is sent until it is acknowledged, as often as the link's retry allows."""

import asyncio
from collections.abc import Callable

from fedemu.clock import Clock
from fedemu.errors import AttemptError, NetworkError
from fedemu.links._base import Retry
from fedemu.net.emulated import EmulatedChannel, Meter
from fedemu.net.messages import Message
from fedemu.types import Rng, Seconds


async def call(
    channel: EmulatedChannel,
    attempt: Callable[[int], Message],
    acknowledged: "asyncio.Future[object]",
    *,
    start: Seconds,
    retry: Retry,
    clock: Clock,
    meter: Meter,
    draw: Callable[[int], Rng],
    retried: Callable[[int, str, Seconds], None],
) -> None:
    """Send until the acknowledgement is here.

    The sender notices a lost message, or a lost acknowledgement, by `retry.timeout` seconds without an answer after it
    has sent, and a link that is down by as long without one that takes the message; of a reset or a refusal it is told.
    It then waits `retry.wait` and sends again.

    Args:
        channel: Where to send.
        attempt: Makes the message of an attempt, 1 for the first.
        acknowledged: Done when the acknowledgement has come.
        start: When the first attempt starts, which a real clock may be a little past.
        retry: How often and how soon.
        clock: Waits.
        meter: Counts the bytes of all attempts.
        draw: The random stream for the wait after an attempt.
        retried: Told, after each failed attempt but the last, its number, why it failed and the wait that follows.

    Raises:
        NetworkError: The last attempt was not acknowledged either.
    """
    reason = "not acknowledged"
    for number in range(1, retry.attempts + 1):
        try:
            await channel.send(attempt(number), meter, start if number == 1 else None, retry.timeout)
        except AttemptError as error:
            reason = str(error)
        else:
            reason = "not acknowledged"
            if await _done_by(acknowledged, clock, clock.now() + retry.timeout):
                return
        if number < retry.attempts:
            wait = retry.wait(number, draw(number))
            retried(number, reason, wait)
            if await _done_by(acknowledged, clock, clock.now() + wait):
                return
    raise NetworkError(f"{reason} after {retry.attempts} attempts")


async def _done_by(future: "asyncio.Future[object]", clock: Clock, when: Seconds) -> bool:
    try:
        async with clock.timeout_at(when):
            await asyncio.shield(future)
    except TimeoutError:
        return False
    return True
