"""Even shares."""

import numpy as np
from scipy import stats

from fedemu.partitioners.iid import iid
from fedemu.rng import stream
from fedemu.types import Annotations


def test_a_hundred_clients_share_mnist_evenly() -> None:
    """60,000 examples among 100 are 600 each, the FedAvg paper's IID split."""
    shares = iid()(Annotations(np.zeros(60_000, dtype=np.int64)), 100, stream(0, "p"))
    assert {len(share) for share in shares} == {600}


def test_what_is_left_over_goes_to_the_first_clients() -> None:
    """11 = 3 + 3 + 3 + 2."""
    assert [len(share) for share in iid()(Annotations(np.zeros(11, dtype=np.int64)), 4, stream(0, "p"))] == [3, 3, 3, 2]


def test_classes_do_not_depend_on_the_client() -> None:
    """A chi-square test of 10 classes by 20 clients with 171 degrees of freedom does not reject at 0.1 %."""
    labels = np.arange(10_000) * 10 // 10_000
    shares = iid()(Annotations(labels), 20, stream(0, "p"))
    table = np.array([np.bincount(labels[share], minlength=10) for share in shares])
    assert stats.chi2_contingency(table).pvalue > 0.001
