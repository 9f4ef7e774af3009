"""Without TCP a message is its own size."""

import numpy as np

from fedemu.links._base import Burst, Sending
from fedemu.links.tcp.none import none


def test_a_message_is_one_burst_of_its_own_size() -> None:
    """No headers, no turnaround, whatever the path; and it knows nothing of packets that are lost."""
    tcp = none()
    assert list(tcp.bursts(Sending(248_069, 0.0, 5e6, 0.1), lambda: np.random.default_rng(1))) == [Burst(248_069, 0.0)]
    assert not tcp.takes_loss
