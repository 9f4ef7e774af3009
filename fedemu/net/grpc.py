"""The transport over real gRPC: one bidirectional stream a client, frames as its messages.

On a virtual loop gRPC runs aside, in real time; only the handlers of connections run in emulated time.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import grpc
from grpc import aio

from fedemu.errors import NetworkError, PeerError
from fedemu.loop import standstill
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Serve
from fedemu.net.diagnosis import refusal as refusal_at
from fedemu.net.tls import Tls

_SERVICE = pb.DESCRIPTOR.services_by_name["Federation"]
_METHOD = _SERVICE.methods_by_name["Participate"]

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.use_local_subchannel_pool", 1),  # clients of one process do not share a connection
    ("grpc.keepalive_time_ms", 60_000),  # a silent peer is noticed although training may take long
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.enable_retries", 0),  # retries are the client's business, on its clock
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server
]

CLOSING = 0.5
"""Seconds that an end of a connection waits for the other to agree."""

_PEERS_FAULT = {
    "INVALID_ARGUMENT",
    "FAILED_PRECONDITION",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
}
"""Statuses by which a server says that it will not have this client; all others are the network's."""


class _ServerChannel:
    def __init__(self, context: aio.ServicerContext) -> None:
        self._context = context

    async def send(self, frame: bytes) -> None:
        with self._broken():
            await self._context.write(frame)

    async def receive(self) -> bytes:
        with self._broken():
            frame: Any = await self._context.read()
        if frame is aio.EOF:
            raise NetworkError("the client closed the connection")
        return bytes(frame)

    @contextlib.contextmanager
    def _broken(self) -> Iterator[None]:
        """Make it a network error when the connection breaks meanwhile."""
        try:
            yield
        except (aio.BaseError, asyncio.InvalidStateError) as error:
            raise NetworkError(f"the client is gone: {error}") from error

    async def aclose(self) -> None:
        pass  # the stream ends when its handler returns


class _ClientChannel:
    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel
        self._call: aio.StreamStreamCall = channel.stream_stream(f"/{_SERVICE.full_name}/{_METHOD.name}")()

    async def send(self, frame: bytes) -> None:
        try:
            await self._call.write(frame)
        except aio.AioRpcError as error:
            raise _as_ours(error.code(), error.details()) from error
        except asyncio.InvalidStateError:  # the stream has ended; its status says why
            raise _as_ours(await self._call.code(), await self._call.details()) from None

    async def receive(self) -> bytes:
        try:
            frame: Any = await self._call.read()
        except aio.AioRpcError as error:
            raise _as_ours(error.code(), error.details()) from error
        if frame is aio.EOF:
            raise _as_ours(await self._call.code(), await self._call.details())
        return bytes(frame)

    async def aclose(self) -> None:
        with contextlib.suppress(aio.BaseError, asyncio.InvalidStateError, TimeoutError):
            if not self._call.done():
                await self._call.done_writing()
                async with asyncio.timeout(CLOSING):  # real time: how long the server may take to end the stream
                    await self._call.code()
        await self._channel.close()


def _as_ours(code: grpc.StatusCode, details: str | None) -> NetworkError | PeerError:
    if code.name in _PEERS_FAULT:
        return PeerError(code.name, details or "")
    return NetworkError(f"the connection ended: {code.name} {details or ''}".rstrip())


class GrpcTransport:
    """Serves and connects over TCP (`host:port`, port 0 for a free one) or Unix sockets (`unix:PATH`).

    Args:
        listen: Where `serve` listens.
        tls: Of the end that serves or connects; None talks in the open.
        refused: Told, for people, whom the server has sent away, and why.
    """

    def __init__(
        self, listen: str = "127.0.0.1:0", *, tls: Tls | None = None, refused: Callable[[str], None] = lambda _: None
    ) -> None:
        self._listen, self._tls, self._refused = listen, tls, refused

    @asynccontextmanager
    async def serve(self, handler: Serve) -> AsyncIterator[str]:
        async def handle(context: aio.ServicerContext) -> PeerError | None:
            try:
                await handler(_ServerChannel(context))
            except PeerError as error:
                return error
            return None

        async def participate(_: AsyncIterator[bytes], context: aio.ServicerContext) -> None:
            # in a task of ours: gRPC would only log what is wrong with us, and the run would go on or hang
            # shielded: gRPC cancels this one when the connection breaks, while ours has its books to close
            refusal = await asyncio.shield(handlers.create_task(handle(context), context=emulated.copy()))
            if refusal is not None:
                self._refused(f"refused {unquote(context.peer())}: {refusal}")
                await context.abort(grpc.StatusCode[refusal.status], refusal.text)

        emulated, handlers = contextvars.copy_context(), asyncio.TaskGroup()
        server, address = await standstill(self._start(participate), "start the server")
        async with handlers:
            try:
                yield address
            finally:
                await standstill(server.stop(grace=CLOSING), "stop the server")

    async def _start(self, behavior: Callable[..., Awaitable[None]]) -> tuple[aio.Server, str]:
        server = aio.server(options=_OPTIONS)
        method = grpc.stream_stream_rpc_method_handler(behavior)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE.full_name, {_METHOD.name: method}),)
        )
        port_text = self._listen.rpartition(":")[2]
        if port_text.isdigit() and int(port_text) > 65535:  # gRPC would take it modulo 65536
            raise NetworkError(f"cannot listen on {self._listen}: ports end at 65535")
        try:
            if self._tls is None:
                port = server.add_insecure_port(self._listen)
            else:
                port = server.add_secure_port(self._listen, self._tls.of_server())
        except RuntimeError as error:
            raise NetworkError(f"cannot listen on {self._listen}: {error}") from error
        await server.start()
        return server, self._listen if self._listen.startswith("unix:") else f"{self._listen.rpartition(':')[0]}:{port}"

    async def connect(self, address: str) -> _ClientChannel:
        return await standstill(self._connect(address), f"connect to {address}")

    async def _connect(self, address: str) -> _ClientChannel:
        if self._tls is None:
            channel = aio.insecure_channel(address, options=_OPTIONS)
        else:
            channel = aio.secure_channel(address, self._tls.of_client(), options=_OPTIONS)
        state = channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await channel.close()
                raise await refusal_at(address, self._tls) or NetworkError(f"nobody answers at {address}")
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)
        return _ClientChannel(channel)
