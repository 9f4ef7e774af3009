"""Run a proxy until it is told to end: its sockets, its link, its control and its metrics, put together."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import web

from fedemu.clock import Clock, RealClock
from fedemu.errors import first_of
from fedemu.net.path import Path
from fedemu.net.proxy.proxy import DIRECTIONS, Direction, Link, Proxy
from fedemu.net.proxy.selector import prompt_loop
from fedemu.net.proxy.sockets import Address, listen, resolve
from fedemu.proxying.control import Control, metrics_routes
from fedemu.proxying.link import LinkFile
from fedemu.proxying.metrics import ProxyMetrics
from fedemu.types import Seconds

DRAIN: Seconds = 5.0
"""What is on its way has this long to arrive when the proxy is told to end."""


@dataclass(frozen=True, slots=True)
class Service:
    """What `fedemu proxy` is told.

    Attributes:
        listen: Where clients connect to.
        upstream: What they want to reach.
        link: What stands between.
        seed: Of all random streams.
        shared: Whether all connections share the link's pipes.
        control: Where the HTTP interface answers; None for none.
        metrics_port: Where Prometheus is answered; None for none.
        announce: Told what happens, for people.
    """

    listen: Address
    upstream: Address
    link: LinkFile
    seed: int
    shared: bool
    control: Address | None
    metrics_port: int | None
    announce: Callable[[str], None]

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C, a second one of which waits for nothing.

        Raises:
            NetworkError: It cannot listen where it should, or there is no such upstream.
        """
        with suppress(ValueError):  # the hard limit is unknown or below the soft one
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with asyncio.Runner(loop_factory=prompt_loop) as runner:
            try:
                with suppress(asyncio.CancelledError):  # told twice
                    runner.run(self._until_told())
            except BaseExceptionGroup as error:
                raise first_of(error) from error

    async def _until_told(self) -> None:
        main = asyncio.current_task()
        assert main is not None
        async with self.serving() as proxy:
            loop, told = asyncio.get_running_loop(), asyncio.Event()

            def tell() -> None:
                if told.is_set():
                    main.cancel()
                told.set()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, tell)
            await told.wait()
            self.announce(f"closing {len(proxy.connections)} connections")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        """Serve inside the context; at its end, let what is on its way arrive."""
        clock, metrics = RealClock(), ProxyMetrics()
        clock.start()
        proxy = Proxy(
            self.listen,
            await resolve(self.upstream),
            self._link(self.link, clock),
            self.seed,
            clock,
            metrics,
            self.announce,
        )
        metrics.watch(proxy)

        def apply(link: LinkFile) -> None:
            proxy.link = self._link(link, clock)

        control = Control(proxy, self.link, apply, {"seed": self.seed, "shared": self.shared}, metrics.registry)
        async with AsyncExitStack() as stack:
            serving = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(proxy.end)
            if self.control is not None:
                at = await stack.enter_async_context(_answering(control.app(), self.control))
                self.announce(f"control at {at if at.port is None else f'http://{at}'}")
            if self.metrics_port is not None:
                app = web.Application()
                app.add_routes(metrics_routes(metrics.registry))
                everywhere = Address("0.0.0.0", self.metrics_port)  # noqa: S104  containers are scraped from outside
                at = await stack.enter_async_context(_answering(app, everywhere))
                self.announce(f"metrics at http://localhost:{at.port}/metrics")
            serving.create_task(proxy.serve(drain=DRAIN))
            self.announce(f"proxy at {proxy.at}, to {self.upstream}")
            yield proxy

    def _link(self, link: LinkFile, clock: Clock) -> Link:
        since = clock.now()
        build = partial(link.path, seed=self.seed, since=since)
        common = {direction: build(direction, 0) for direction in DIRECTIONS}

        def path(direction: Direction, connection: int) -> Path:
            if not self.shared:
                return build(direction, connection)
            one = common[direction]
            return replace(build(direction, 0), route=one.route, bucket=one.bucket)

        return Link(path, partial(link.pipes, since), clock, shared=self.shared)


@asynccontextmanager
async def _answering(app: web.Application, at: Address) -> AsyncIterator[Address]:
    """Answer HTTP inside the context; gives the address."""
    listener, chosen = listen(at)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield chosen
    finally:
        await runner.cleanup()
