"""The token bucket against tc-tbf: plain TCP transfers over a cable, behind 10 Mbit/s and a burst of 15,000 bytes."""

import statistics
from collections.abc import Callable, Mapping

import pytest

from fedemu.links._bucket import Bucket
from fedemu.links._fluid import Fluid
from fedemu.links.tcp._segments import wire
from tests.kernel.lab import lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.usefixtures("kernel")]

RATE, BURST = 10e6, 15_000
SIZES = (100_000, 1_000_000, 5_000_000)
REPEATS = 3
TOLERANCE = 0.005


def takes(size: float, burst: int = BURST) -> float:
    """Return the seconds that so many bytes on the wire take behind our bucket."""
    fluid = Fluid({"link": RATE})
    fluid.start("transfer", Bucket(RATE, burst).take(int(size), 0.0), ["link"], 0.0)
    end = fluid.next_end()
    assert end is not None
    return end


@pytest.fixture(scope="module")
def measured(kernel: None) -> dict[int, float]:
    """Median seconds of a transfer, by its size."""
    with lab() as here:
        here.cable()
        # its queue holds 0.5 s: TCP loses nothing
        here.ip("near", f"tc qdisc add dev path root tbf rate {RATE:.0f}bit burst {BURST} latency 500ms")
        here.start("far", "transfers", "serve")
        sender = here.start("near", "transfers", "send")
        return {size: statistics.median(float(sender.ask(f"{size}:0")) for _ in range(REPEATS)) for size in SIZES}


def check(measured: Mapping[int, float], model: Callable[[int], float]) -> None:
    """Assert that a model is right for all sizes whose time is not mostly the programs' own."""
    for size in (1_000_000, 5_000_000):
        assert model(size) == pytest.approx(measured[size], rel=TOLERANCE)


def test_a_transfer_takes_the_kernels_time(measured: dict[int, float]) -> None:
    """5 MB in 3,455 segments of 66 bytes of headers, less the burst: 8 * 5,213,030 / 10 Mbit/s = 4.1704 s."""
    for size, seconds in measured.items():
        model = takes(wire(size))
        print(f"TBF {size / 1e3:5.0f} kB: kernel {seconds:.4f} s, ours {model:.4f} s, {model / seconds - 1:+.2%}")
    assert takes(wire(5_000_000)) == pytest.approx(4.1704, abs=5e-5)
    check(measured, lambda size: takes(wire(size)))


def test_the_check_finds_a_model_without_headers_or_without_a_bucket(measured: dict[int, float]) -> None:
    """Headers are 4.4 % of every transfer, the burst 1.4 % of 1 MB."""
    with pytest.raises(AssertionError):
        check(measured, takes)
    with pytest.raises(AssertionError):
        check(measured, lambda size: takes(wire(size), burst=0))
