"""Both transports keep the channel's promises: order, back-pressure, ends that say why."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import torch

from fedemu.errors import NetworkError, PeerError
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.grpc import GrpcTransport
from fedemu.net.memory import MemoryTransport
from fedemu.net.messages import Message


@asynccontextmanager
async def connected(transport, handler):
    async with transport.serve(handler) as address:
        channel = await transport.connect(address)
        try:
            yield channel
        finally:
            await channel.aclose()


async def receive(channel, count):
    return [await channel.receive() for _ in range(count)]


async def test_frames_arrive_in_order_in_both_directions(transport):
    async def echo(channel):
        with suppress(NetworkError):
            while True:
                await channel.send(await channel.receive())

    async with connected(transport, echo) as channel:
        async with asyncio.TaskGroup() as group:  # both at once: either alone would wait for the other's room
            receiving = group.create_task(receive(channel, 20))
            for i in range(20):
                await channel.send(bytes([i]))
        assert receiving.result() == [bytes([i]) for i in range(20)]


async def test_a_sender_waits_for_a_slow_reader(transport):
    """64 MiB are sent to a reader that does not read: far less than that is taken before the sender waits."""
    read, taken = asyncio.Event(), 0

    async def slow(channel):
        await read.wait()
        with suppress(NetworkError):
            while True:
                await channel.receive()

    async def push(channel):
        nonlocal taken
        for _ in range(64):
            await channel.send(bytes(2**20))
            taken += 1

    async with connected(transport, slow) as channel:
        pushing = asyncio.create_task(push(channel))
        await asyncio.sleep(0.5)
        assert taken <= 16
        read.set()
        await pushing
    assert taken == 64


async def test_a_handlers_refusal_reaches_the_client_with_its_status(transport):
    async def refuse(channel):
        await channel.receive()
        raise PeerError("INVALID_ARGUMENT", "no, thank you")

    async with connected(transport, refuse) as channel:
        await channel.send(b"x")
        with pytest.raises(PeerError, match="INVALID_ARGUMENT: no, thank you"):
            await channel.receive()


async def test_an_end_without_a_reason_is_the_networks(transport):
    async def leave(channel):
        await channel.receive()

    async with connected(transport, leave) as channel:
        await channel.send(b"x")
        with pytest.raises(NetworkError):
            await channel.receive()


async def test_the_server_notices_that_a_client_has_left(transport):
    left = asyncio.Event()

    async def wait(channel):
        with pytest.raises(NetworkError):
            await channel.receive()
        left.set()

    async with connected(transport, wait):
        pass  # the server may only now see the connection, and at once its end
    await asyncio.wait_for(left.wait(), 10)


async def test_connecting_to_nobody_is_a_network_error(tmp_path):
    with pytest.raises(NetworkError, match="nobody"):
        await MemoryTransport().connect("memory")
    with pytest.raises(NetworkError, match="nobody answers at"):
        await GrpcTransport().connect(f"unix:{tmp_path}/none")


async def test_an_address_in_use_is_an_error():
    async def handler(channel):
        pass

    async with GrpcTransport("127.0.0.1:0").serve(handler) as address:
        with pytest.raises(NetworkError, match=f"cannot listen on {address}"):
            async with GrpcTransport(address).serve(handler):
                pass


async def test_a_conversation_carries_a_model_over_grpc_bit_for_bit():
    """5 M parameters are 20 MB: many chunks, and more than gRPC's 4 MiB in one message."""
    weights = torch.rand(5_000_000)

    async def echo(channel):
        conversation = Conversation(channel, limit=weights.numel())
        received = await conversation.receive()
        await conversation.send(Message(pb.Task(version=1), received.vectors))

    async with connected(GrpcTransport(), echo) as channel:
        conversation = Conversation(channel, limit=weights.numel())
        await conversation.send(Message(pb.Update(version=1), {"delta": weights}))
        assert torch.equal((await conversation.receive()).vectors["delta"], weights)


async def test_the_server_notices_a_connection_that_breaks():
    """The stream is reset, as when a client's process is killed: no end of writing is sent."""
    left = asyncio.Event()

    async def wait(channel):
        await channel.send(b"hello")
        with pytest.raises(NetworkError):
            await channel.receive()
        left.set()

    transport = GrpcTransport()
    async with transport.serve(wait) as address:
        channel = await transport.connect(address)
        assert await channel.receive() == b"hello"
        channel._call.cancel()
        await asyncio.wait_for(left.wait(), 10)


@pytest.mark.parametrize("make", [MemoryTransport, GrpcTransport])
async def test_a_bug_of_ours_in_a_handler_ends_the_run(make):
    """gRPC alone would log it and go on; whoever serves must know."""

    async def buggy(channel):
        raise ZeroDivisionError("ours")

    async def main():
        transport = make()
        async with transport.serve(buggy) as address:
            channel = await transport.connect(address)
            await channel.send(b"x")
            await asyncio.sleep(10)

    with pytest.raises(ExceptionGroup) as group:
        await asyncio.wait_for(main(), 9)
    assert group.group_contains(ZeroDivisionError, match="ours")
