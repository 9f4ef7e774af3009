"""Run a scenario several times in one process and print each run's digest; see test_determinism."""

import itertools
import os
import sys

from fedemu import experiment
from fedemu.loop import VirtualFlight
from fedemu.scenario import load


def without_gate() -> None:
    """Let effects happen when the real work is done, not when they are due."""

    def land(flight: VirtualFlight) -> None:
        flight.landed = True
        flight.release()

    VirtualFlight.land = land  # type: ignore[method-assign]


def without_order() -> None:
    """Release what is due at the same time in the order in which it landed."""
    landings, land = itertools.count(), VirtualFlight.land

    def landing(flight: VirtualFlight) -> None:
        flight.key = ("", next(landings))
        land(flight)

    VirtualFlight.land = landing  # type: ignore[method-assign]


CONTROLS = {"gate": without_gate, "order": without_order}


def main(scenario: str, transport: str, runs: str, without: str = "") -> None:
    """Print the digests of that many runs of a scenario."""
    if without:
        CONTROLS[without]()
    cell = load(scenario, transport=transport).cells[0]
    with experiment.workers(cell.scenario) as compute:
        for _ in range(int(runs)):
            print(experiment.run(cell, compute)["digest"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
    if len(sys.argv) > 4:
        os._exit(0)  # what a control has broken may hang at the end
