"""Windows grow and shrink by the RFCs' equations."""

import math

import pytest

from fedemu.links.tcp._congestion import Cubic, Reno


@pytest.mark.parametrize("build", [Reno, Cubic])
def test_slow_start_doubles_a_window_that_is_in_use(build: type[Reno]) -> None:
    """10, 20, 40; 5 of 40 in use leave it as it is, 30 let it grow to 60, and the threshold holds it."""
    window = build(10.0)
    for sent, then in ((10, 20.0), (20, 40.0), (5, 40.0), (30, 60.0)):
        window.acknowledged(sent, 0.1)
        assert window.window == then
    window.threshold = 100.0
    window.acknowledged(60, 0.1)
    assert window.window == 100.0


def test_reno_halves_and_then_grows_by_one_a_round_trip() -> None:
    """40 -> 20 -> 21 -> 22, nearly; a window that is not used does not grow."""
    window = Reno(40.0)
    window.lost()
    assert (window.window, window.threshold) == (20.0, 20.0)
    window.acknowledged(20, 0.1)
    window.acknowledged(21, 0.1)
    assert window.window == pytest.approx(22.0)
    window.acknowledged(3, 0.1)
    assert window.window == pytest.approx(22.0)


def test_cubic_comes_back_to_its_peak_after_k_seconds() -> None:
    """From 1000 to 700; K = (300 / 0.4)^(1/3) = 9.09 s later it is 1000 again: equations 1 and 2."""
    window, rtt = Cubic(1000.0), 0.1
    window.lost()
    assert window.window == 700
    plateau = math.cbrt(300 / 0.4)
    for step in range(1, 130):
        window.acknowledged(int(window.window), rtt)
        assert window.window == pytest.approx(0.4 * (step * rtt - plateau) ** 3 + 1000, rel=1e-9)


def test_cubic_is_no_slower_than_reno_would_be() -> None:
    """From 20 to 14 at RTT 10 ms the cubic function gains nothing in a second: 3 (1 - 0.7)/(1 + 0.7) a round trip."""
    window = Cubic(20.0)
    window.lost()
    for _ in range(10):
        window.acknowledged(int(window.window), 0.01)
    # nine steps: a window follows in the round trip after; int(window) / window of each is acknowledged
    assert window.window == pytest.approx(14 + 9 * 0.529, abs=0.3)


def test_a_window_that_falls_twice_aims_lower() -> None:
    """Fast convergence: below the last peak, the next is 85 % of the window."""
    window = Cubic(100.0)
    window.lost()
    assert window.peak == 100
    window.lost()
    assert window.peak == pytest.approx(0.85 * 70)


@pytest.mark.parametrize(("build", "threshold"), [(Reno, 20.0), (Cubic, 28.0)])
def test_a_timeout_leaves_one_segment(build: type[Reno], threshold: float) -> None:
    """And slow start up to what a loss would have left."""
    window = build(40.0)
    window.timed_out()
    assert (window.window, window.threshold) == (1.0, threshold)


def test_no_loss_leaves_less_than_two_segments() -> None:
    """RFC 5681's and Linux's floor."""
    window = Cubic(2.0)
    window.lost()
    assert window.window == 2.0
