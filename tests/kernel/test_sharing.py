"""Max-min fair sharing against tc-htb: TCP transfers at once, each in a leaf class that may borrow all of 20 Mbit/s."""

import statistics
from collections.abc import Sequence

import pytest

from fedemu.links._fluid import Fluid
from fedemu.links.tcp._segments import FULL, wire
from tests.kernel.lab import lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.usefixtures("kernel")]

RATE = 20e6
LARGEST = 1_200_000
REPEATS = 3
TOLERANCE = 0.01


def together(sizes: Sequence[int], weights: Sequence[int]) -> list[float]:
    """Return when each of these transfers ends in our pipe, if all start at 0."""
    fluid = Fluid({"link": RATE})
    for flow, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        fluid.start(flow, wire(size), ["link"], 0.0, weight=weight)
    ends = fluid.ended(8 * sum(map(wire, sizes)) / RATE + 1)
    return [ends[flow] for flow in range(len(sizes))]


def in_the_kernel(sizes: Sequence[int], weights: Sequence[int]) -> list[float]:
    """Return when each ends in the kernel: the median of a few runs."""
    with lab() as here:
        here.cable()
        here.ip("near", "tc qdisc add dev path root handle 1: htb")
        here.ip("near", f"tc class add dev path parent 1: classid 1:1 htb rate {RATE:.0f}bit burst 3k cburst 3k")
        classes = range(0x10, 0x10 + len(sizes))
        for leaf, weight in zip(classes, weights, strict=True):
            assured = RATE * weight / sum(weights)
            htb = f"rate {assured:.0f}bit ceil {RATE:.0f}bit burst 2k cburst 2k quantum {FULL * weight}"
            here.ip("near", f"tc class add dev path parent 1:1 classid 1:{leaf:x} htb {htb}")
            here.ip("near", f"tc qdisc add dev path parent 1:{leaf:x} pfifo limit 2000")
        here.start("far", "transfers", "serve")
        sender = here.start("near", "transfers", "send")
        pairs = " ".join(f"{size}:1{leaf:04x}" for size, leaf in zip(sizes, classes, strict=True))
        runs = [[float(seconds) for seconds in sender.ask(pairs).split()] for _ in range(REPEATS)]
        return [statistics.median(times) for times in zip(*runs, strict=True)]


def off(measured: Sequence[float], model: Sequence[float]) -> list[float]:
    """Return how far a model is off for each transfer."""
    return [abs(ours / kernels - 1) for ours, kernels in zip(model, measured, strict=True)]


def check(measured: Sequence[float], model: Sequence[float]) -> None:
    """Assert that a model is right in the mean over the transfers."""
    assert statistics.mean(off(measured, model)) <= TOLERANCE


@pytest.mark.parametrize(
    "weights", [(1,) * 2, (1,) * 5, (1,) * 10, (1, 2, 3, 1, 2)], ids=["two", "five", "ten", "five-weighted"]
)
def test_transfers_end_when_the_kernels_do(weights: tuple[int, ...]) -> None:
    """Sizes 1/n to n/n of 1.2 MB.

    The kernel is up to 2.8 % earlier with the first of ten, whose class begins with a full burst. A model whose
    transfers keep their first share when others end, or that overlooks the weights, fails the same check.
    """
    count = len(weights)
    sizes = [LARGEST * (place + 1) // count for place in range(count)]
    measured = in_the_kernel(sizes, weights)
    errors = off(measured, together(sizes, weights))
    print(f"HTB, weights {weights}: mean error {statistics.mean(errors):.2%}, worst {max(errors):.2%}")
    check(measured, together(sizes, weights))
    kept = [8 * wire(size) * sum(weights) / weight / RATE for size, weight in zip(sizes, weights, strict=True)]
    with pytest.raises(AssertionError):
        check(measured, kept)
    if len(set(weights)) > 1:
        with pytest.raises(AssertionError):
            check(measured, together(sizes, [1] * count))
