"""What the tests against this machine's kernel need: `kernel` skips them where it cannot be had."""

import pytest

from tests.kernel.lab import missing


@pytest.fixture(scope="session")
def kernel() -> None:
    """Network namespaces, traffic control, TUN devices, CUBIC, and the right to use them."""
    if lack := missing():
        pytest.skip(f"no lab in this machine's kernel: {lack}")
