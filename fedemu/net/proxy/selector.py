"""A selector whose timeouts are exact to some 0.1 ms: epoll's own are whole milliseconds, rounded up.

An epoll descriptor can itself be waited for, and select's timeouts are in microseconds. Without this, everything that
a link delays would be late by half a millisecond in the mean.
"""

import asyncio
import select
import selectors

if hasattr(select, "epoll"):

    class _Prompt(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)


def prompt_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are as prompt as the system allows."""
    return asyncio.SelectorEventLoop(_Prompt() if hasattr(select, "epoll") else None)
