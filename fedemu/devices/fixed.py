"""A device that takes the same time for every epoch, however many examples a client has.

The clock cycle of Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, where what clients manage
is counted in epochs.
"""

from typing import Annotated

from pydantic import Field

from fedemu.devices._base import Device
from fedemu.units import Duration


def fixed(*, per_epoch: Annotated[Duration, Field(ge=0)]) -> Device:
    """Every epoch takes the same time, whatever the examples.

    Args:
        per_epoch: Time of one pass over a client's examples.
    """
    return Device(lambda work, rng: work.epochs * per_epoch)
