"""Without TCP a message is its own size."""

from fedemu.links._base import Burst
from fedemu.links.tcp.none import none


def test_a_message_is_one_burst_of_its_own_size() -> None:
    """No headers, no turnaround, whatever the path."""
    assert list(none()(248_069, 5e6, 0.1)) == [Burst(248_069, 0.0)]
