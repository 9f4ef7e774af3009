"""How far each TCP model is from a real kernel's transfer times. Run by `make fidelity`.

`tun_cubic.jsonl` has 32 cells of rate, round trip, loss and size, `grpclab.jsonl` unary gRPC calls, both of Linux 6.18
with CUBIC through a user-space WAN box: a rate with a drop-tail queue of one bandwidth-delay product and at least 64
packets, half the round trip each way, independent loss on the way up. A time is from the first byte written to an
answer of one byte, so that half a round trip is added to what the link takes up and half for the answer.

The box's TUN devices carry 1500 bytes for each segment, and the models count Ethernet's 1514: the models' rate is
1514/1500 times the box's, which makes full segments equal and one short one 13 bytes longer. The queue that `rounds` is
given is the box's.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedemu.links._base import Burst, Sending, Tcp
from fedemu.links.tcp.lv08 import lv08
from fedemu.links.tcp.mean import mean
from fedemu.links.tcp.none import none
from fedemu.links.tcp.rounds import rounds
from fedemu.links.tcp.slow_start import slow_start

HERE = Path(__file__).parent
SEEDS = 300
ETHERNET = 1514 / 1500
"""Bytes of a full segment on the models' wire, over those on the box's."""


class Cell(NamedTuple):
    """Transfers of one size over one path."""

    rate: float
    rtt: float
    loss: float
    size: int
    measured: float
    """Mean time, or for gRPC the median."""
    repeats: int
    mode: str = "fresh"


class Error(NamedTuple):
    """Of one model over many cells."""

    typical: float
    """exp(mean |ln(model / measured)|) - 1."""
    worst: float


def transfers() -> list[Cell]:
    """Return the cells of plain TCP."""
    rows = map(json.loads, (HERE / "tun_cubic.jsonl").read_text().splitlines())
    return [Cell(r["rate"], r["rtt"], r["loss"], r["size"], r["mean"], r["n"]) for r in rows]


def calls() -> list[Cell]:
    """Return the cells of gRPC without loss."""
    rows = map(json.loads, (HERE / "grpclab.jsonl").read_text().splitlines())
    cells = [Cell(r["rate"] * 1e6, r["rtt"], r["loss"], r["size"], r["grpc_med"], 0, r["mode"]) for r in rows]
    return [cell for cell in cells if not cell.loss]


def on_an_idle_path(bursts: Iterable[Burst], rate: float) -> float:
    """Serve bursts as a link does: each after the one before is served, and not before its turnaround."""
    start = end = 0.0
    for burst in bursts:
        end = start + 8 * burst.size / rate
        start = max(end, start + burst.turnaround)
    return end


def takes(tcp: Tcp, cell: Cell, rate: float, seed: int, idle: float = math.inf) -> float:
    """Return how long a model takes for one transfer and its answer."""
    rng = np.random.default_rng(seed)

    def lost(count: int, at: float) -> int:
        return int(rng.binomial(count, cell.loss))

    sending = Sending(cell.size, 0.0, rate, cell.rtt, idle, lost if cell.loss else None, cell.loss)
    return on_an_idle_path(tcp.bursts(sending, lambda: rng), rate) + cell.rtt


def once(build: Callable[[], Tcp], rate: float, cell: Cell) -> float:
    """Return the time of a model that draws nothing; `rate` is the models' over the box's."""
    return takes(build(), cell, cell.rate * rate, 0)


def often(cell: Cell) -> float:
    """Return the mean time of `rounds` with the box's queue."""
    packets = max(64, int(cell.rate * cell.rtt / 8 / 1500))
    times = (takes(rounds(limit=packets), cell, cell.rate * ETHERNET, seed) for seed in range(SEEDS))
    return statistics.mean(times) if cell.loss else takes(rounds(limit=packets), cell, cell.rate * ETHERNET, 0)


MODELS: Mapping[str, Callable[[Cell], float]] = {
    "size / bandwidth": partial(once, none, 1.0),  # without headers, as simulators do
    "lv08": partial(once, lv08, 1.0),
    "slow-start": partial(once, slow_start, ETHERNET),
    "mean": partial(once, mean, ETHERNET),
    "rounds": often,
}


def error(times: Sequence[float], cells: Sequence[Cell]) -> Error:
    """Return the typical and the worst error of those times."""
    logs = [abs(math.log(time / cell.measured)) for time, cell in zip(times, cells, strict=True)]
    return Error(math.exp(statistics.mean(logs)) - 1, math.exp(max(logs)) - 1)


def table() -> dict[str, tuple[Error, Error]]:
    """Return each model's error without and with loss."""
    clean, lossy = ([cell for cell in transfers() if (cell.loss > 0) == with_loss] for with_loss in (False, True))
    return {
        name: (error(list(map(model, clean)), clean), error(list(map(model, lossy)), lossy))
        for name, model in MODELS.items()
    }


def call(cell: Cell) -> float:
    """Return the time of a gRPC call: on a fresh connection, after 1.5 s without a call, or right after another."""
    tcp = slow_start()
    idle = {"fresh": math.inf, "idle": 1.5, "warm": 0.0}[cell.mode]
    if cell.mode != "fresh":
        takes(tcp, cell, cell.rate * ETHERNET, 0)
    return takes(tcp, cell, cell.rate * ETHERNET, 0, idle)


def by_mode() -> dict[str, Error]:
    """Return the error of slow-start with memory for gRPC calls of each mode."""
    groups = {mode: [cell for cell in calls() if cell.mode == mode] for mode in ("fresh", "idle", "warm")}
    return {mode: error(list(map(call, cells)), cells) for mode, cells in groups.items()}


def main() -> None:
    """Print the errors, and the cells in which the default is furthest off."""
    print(f"{'typical / worst error':<24}{'no loss':>18}{'0.1-3 % loss':>18}")
    for name, errors in table().items():
        shown = (f"{error.typical:.1%} / {error.worst:.0%}" for error in errors)
        print(f"{name:<24}" + "".join(f"{text:>18}" for text in shown))
    print("\nrounds, cells with loss")
    for cell in transfers():
        if cell.loss:
            time = often(cell)
            where = f"{cell.rate / 1e6:g} Mbit/s, {cell.rtt * 1e3:g} ms, {cell.loss:.1%}, {cell.size / 1e3:g} kB"
            print(
                f"{where:<36}{cell.measured:8.3f} s of {cell.repeats:<3}{time:8.3f} s {time / cell.measured - 1:+7.1%}"
            )
    print("\ngRPC calls without loss, slow-start with memory")
    for mode, (typical, worst) in by_mode().items():
        print(f"{mode:<24}{f'{typical:.1%} / {worst:.0%}':>18}")


if __name__ == "__main__":
    main()
