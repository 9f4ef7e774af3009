"""What the tests of the wire share: each transport in turn."""

import pytest

from fedemu.net.grpc import GrpcTransport
from fedemu.net.memory import MemoryTransport


@pytest.fixture(params=["memory", "grpc tcp", "grpc unix"])
def transport(request, tmp_path):
    return {
        "memory": MemoryTransport,
        "grpc tcp": GrpcTransport,
        "grpc unix": lambda: GrpcTransport(f"unix:{tmp_path}/socket"),
    }[request.param]()
