"""From a scenario's links to pipes and paths: who shares what, and what holds when."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from fedemu.links._base import Packet, Sending
from fedemu.links._spells import Spell
from fedemu.net.path import Path as Way
from fedemu.rng import stream
from fedemu.scenario import load
from fedemu.scenario.link import Direction
from fedemu.scenario.presets import PRESETS
from fedemu.types import Rng
from fedemu.wiring import BIN, Wiring

SCENARIO = """\
name: wiring
seed: {seed}
dataset: {{kind: digits}}
partition: {{kind: iid}}
model: {{kind: softmax}}
strategy: {{kind: fedavg}}
shared: {shared}
clients:
  phones: {{count: 40, link: {link}}}
  laptops: {{count: 2, link: {other}}}
server: {{link: {server}}}
stop: {{rounds: 1}}
"""
Wire: TypeAlias = Callable[..., Wiring]
"""Gives the wiring of a scenario with these links."""

CLIENTS = [*(f"phones/{i}" for i in range(40)), "laptops/0", "laptops/1"]


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    """Gives the wiring of phones behind a link; a trace of 1500 bytes a millisecond and then 10 lies beside it."""
    (tmp_path / "trace").write_text("".join(f"{ms}\n" for ms in [*range(1, 501), *[1000] * 10]))

    def build(
        link: str = "{}",
        *,
        other: str = "{}",
        shared: str = "{}",
        server: str = "{}",
        seed: int = 1,
        apart: bool = False,
    ) -> Wiring:
        path = tmp_path / "wiring.yaml"
        path.write_text(SCENARIO.format(link=link, other=other, shared=shared, server=server, seed=seed))
        return Wiring(load(path).cells[0].scenario, CLIENTS, apart=apart)

    return build


def both(wiring: Wiring, client: str = "phones/0") -> dict[Direction, Way]:
    return {direction: wiring.path(client, direction) for direction in ("up", "down")}


# --- pipes


def test_all_pipes_on_the_way_are_crossed_at_once(wire: Wire) -> None:
    """Own up, the cell's up, the server's down; and back."""
    wiring = wire(
        "{via: cell, rate: 5Mbit/s}",
        shared="{cell: {up: {rate: 8Mbit/s}, down: {rate: 30Mbit/s}}}",
        server="{up: {rate: 40Mbit/s}, down: {rate: 6Mbit/s}}",
    )
    paths = both(wiring)
    assert list(paths["up"].route.pipes) == ["phones/0 up", "via cell up", "server down"]
    assert list(paths["down"].route.pipes) == ["phones/0 down", "via cell down", "server up"]
    assert {name: pipe.rate for name, pipe in wiring.pipes.items() if not name.startswith("phones")} == {
        "server up": 40e6,
        "server down": 6e6,
        "via cell up": 8e6,
        "via cell down": 30e6,
    }
    assert list(wiring.path("laptops/0", "up").route.pipes) == ["server down"]


def test_tcp_sees_the_narrowest_pipe_of_each_way(wire: Wire) -> None:
    """Up: 5 Mbit/s of its own; down: 3 Mbit/s of the cell; without a rate of its own, the server's."""
    wiring = wire("{via: cell, rate: 5Mbit/s}", shared="{cell: {down: {rate: 3Mbit/s}}}", server="{rate: 100Mbit/s}")
    assert {direction: path.way(0).rate for direction, path in both(wiring).items()} == {"up": 5e6, "down": 3e6}
    assert wiring.path("laptops/0", "up").way(0).rate == 100e6


def test_a_direction_that_nothing_limits_has_no_pipe(wire: Wire) -> None:
    """The cell has a rate down alone."""
    wiring = wire("{via: cell}", shared="{cell: {down: {rate: 3Mbit/s}}}")
    assert list(wiring.path("phones/0", "up").route.pipes) == []
    assert wiring.path("phones/0", "up").way(0).rate == math.inf
    assert list(wiring.path("phones/0", "down").route.pipes) == ["via cell down"]


def test_a_client_elsewhere_crosses_what_it_shares_where_it_arrives(wire: Wire) -> None:
    """It sends through its own pipe; the server lets what comes cross the cell's and its own."""
    wiring = wire("{via: cell, rate: 1Mbit/s}", shared="{cell: {rate: 2Mbit/s}}", server="{rate: 9Mbit/s}", apart=True)
    assert list(wiring.path("phones/0", "up").route.pipes) == ["phones/0 up"]
    assert wiring.crossed("phones/0", "up") == ["via cell up", "server down"]
    assert list(wiring.path("phones/0", "down").route.pipes) == ["phones/0 down", "via cell down", "server up"]


def test_background_traffic_flows_in_the_direction_that_names_it(wire: Wire) -> None:
    """Beside up and down it holds for both, each with a stream of its own; in one direction, there alone."""
    poisson = "{kind: poisson, rate: 1Mbit/s, size: 10kB}"
    wiring = wire("{via: cell}", shared=f"{{cell: {{rate: 8Mbit/s, background: {poisson}}}}}")
    up, down = (list(itertools.islice(wiring.pipes[f"via cell {d}"].traffic, 5)) for d in ("up", "down"))
    assert len(up) == len(down) == 5
    assert up != down
    again = wire("{via: cell}", shared=f"{{cell: {{rate: 8Mbit/s, up: {{background: {poisson}}}}}}}")
    assert list(itertools.islice(again.pipes["via cell up"].traffic, 5)) == up
    assert list(again.pipes["via cell down"].traffic) == []


def test_a_shared_schedule_changes_the_rate_and_takes_it_back(wire: Wire) -> None:
    """Up alone from 10 s to 15 s; both to 0 from 20 s to 21 s."""
    schedule = "[{at: 10s, lasting: 5s, up: {rate: 1Mbit/s}}, {at: 20s, lasting: 1s, rate: 0bit/s}]"
    wiring = wire("{via: cell}", shared=f"{{cell: {{rate: 8Mbit/s, schedule: {schedule}}}}}")
    assert list(wiring.pipes["via cell up"].changes) == [(10.0, 1e6), (15.0, 8e6), (20.0, 0.0), (21.0, 8e6)]
    assert list(wiring.pipes["via cell down"].changes) == [(20.0, 0.0), (21.0, 8e6)]


def test_a_recorded_rate_of_a_shared_pipe_is_averaged_over_tenths_of_a_second(wire: Wire) -> None:
    """100 packets a tenth for half a second, 10 in the last: 12 Mbit/s five times, 0 four times, 1.2 Mbit/s."""
    wiring = wire("{via: cell}", shared="{cell: {up: {trace: trace}}}")
    pipe = wiring.pipes["via cell up"]
    assert pipe.rate == 510 * 8 * 1500
    expected = [*[12e6] * 5, *[0.0] * 4, 1.2e6]
    changes = list(itertools.islice(pipe.changes, 20))
    assert [at for at, _ in changes] == pytest.approx([BIN * i for i in range(20)])
    assert [rate for _, rate in changes] == pytest.approx(expected * 2)
    assert "via cell down" not in wiring.pipes


# --- schedules and outages


def test_a_schedule_changes_each_direction_by_what_it_says_of_it(wire: Wire) -> None:
    """Keys beside up and down hold for both, those in them override; the rate is the pipe's, the delay the way's."""
    phase = "{at: 10s, lasting: 5s, delay: 100ms, up: {rate: 1Mbit/s, delay: 300ms}, down: {drop: 5%}}"
    wiring = wire(f"{{delay: 20ms, up: {{rate: 4Mbit/s}}, down: {{rate: 8Mbit/s}}, schedule: [{phase}]}}")
    assert list(wiring.pipes["phones/3 up"].changes) == [(10.0, 1e6), (15.0, 4e6)]
    assert {rate for _, rate in wiring.pipes["phones/3 down"].changes} == {8e6}
    paths = both(wiring, "phones/3")
    told = {
        direction: [(at, way.rate, way.delay, [name for name, _ in way.arrival]) for at, way in path.periods]
        for direction, path in paths.items()
    }
    assert told == {
        "up": [(0.0, 4e6, 0.02, ["delay"]), (10.0, 1e6, 0.3, ["delay"]), (15.0, 4e6, 0.02, ["delay"])],
        "down": [(0.0, 8e6, 0.02, ["delay"]), (10.0, 8e6, 0.1, ["delay", "drop"]), (15.0, 8e6, 0.02, ["delay"])],
    }


def test_the_round_trip_is_that_of_both_directions_at_that_time(wire: Wire) -> None:
    """20 + 20 ms; from 10 s to 15 s up has 300 ms, which down's TCP sees too."""
    wiring = wire("{delay: 20ms, schedule: [{at: 10s, lasting: 5s, up: {delay: 300ms}}]}", server="{delay: 5ms}")
    for path in both(wiring).values():
        assert [path.way(at).rtt for at in (0, 12, 15)] == pytest.approx([0.05, 0.33, 0.05])


def test_what_holds_again_is_the_same_with_its_memory(wire: Wire) -> None:
    """The chain of a correlated loss goes on in the phase, which does not touch it, and after it."""
    wiring = wire("{rate: 4Mbit/s, loss: {random: 1%, burst: 5}, schedule: [{at: 10s, lasting: 5s, up: {delay: 1s}}]}")
    periods = [way for _, way in wiring.path("phones/0", "up").periods]
    assert periods[0] is periods[2]
    assert periods[0].loss is periods[1].loss is not None
    assert len(periods[1].arrival) == 1
    other = wire("{rate: 4Mbit/s, loss: 1%, schedule: [{at: 10s, lasting: 5s, loss: 2%}]}").path("phones/0", "up")
    assert other.periods[0][1].loss is not other.periods[1][1].loss


def test_phases_that_touch_leave_no_gap(wire: Wire) -> None:
    """10 to 15 s and 15 to 20 s: at 15 s the second holds."""
    schedule = "[{at: 10s, lasting: 5s, rate: 1Mbit/s}, {at: 15s, lasting: 5s, rate: 2Mbit/s}]"
    wiring = wire(f"{{rate: 4Mbit/s, schedule: {schedule}}}")
    path = wiring.path("phones/0", "up")
    assert [path.way(at).rate for at in (9.9, 10, 15, 20)] == [4e6, 1e6, 2e6, 4e6]
    assert list(wiring.pipes["phones/0 up"].changes) == [(10.0, 1e6), (15.0, 2e6), (20.0, 4e6)]


def test_a_phase_from_the_start_on_holds_from_the_start_on(wire: Wire) -> None:
    """1 Mbit/s until 5 s, and 4 Mbit/s then: of the pipe as of the way, own or shared."""
    schedule = "schedule: [{at: 0s, lasting: 5s, rate: 1Mbit/s}]"
    wiring = wire(f"{{via: cell, rate: 4Mbit/s, {schedule}}}", shared=f"{{cell: {{rate: 4Mbit/s, {schedule}}}}}")
    assert [wiring.path("phones/0", "up").way(at).rate for at in (0, 5)] == [1e6, 4e6]
    for name in ("phones/0 up", "via cell up"):
        pipe = wiring.pipes[name]
        rates = {0.0: pipe.rate} | dict(pipe.changes)
        assert rates == {0.0: 1e6, 5.0: 4e6}, name


def test_an_outage_is_the_same_seen_from_both_directions(wire: Wire) -> None:
    """Fifty spells of each, which another client does not share."""
    wiring = wire("{outage: {every: 10min, lasting: 30s}}")

    def spells(client: str, direction: Direction) -> list[Spell]:
        found, now = list[Spell](), 0.0
        looked_up = wiring.path(client, direction).spells
        assert looked_up is not None
        while len(found) < 50:
            spell = looked_up.next(now)
            assert spell is not None
            found.append(spell)
            now = spell.end
        return found

    assert spells("phones/0", "up") == spells("phones/0", "down")
    assert spells("phones/0", "up") != spells("phones/1", "up")
    assert not any(spell.refuses for spell in spells("phones/0", "up"))


def test_an_outage_may_refuse(wire: Wire) -> None:
    """mode: refuse; another draw of the outage it is not."""
    found = []
    for mode in ("blackhole", "refuse"):
        spells = wire(f"{{outage: {{every: 10min, lasting: 30s, mode: {mode}}}}}").path("phones/0", "up").spells
        assert spells is not None
        found.append(spells.next(0.0))
    silent, refusing = found
    assert silent is not None
    assert refusing == silent._replace(refuses=True)


def cut_off(wiring: Wiring, at: float) -> set[str]:
    """Return the clients that are down then, the same in both directions."""
    found = []
    for direction in ("up", "down"):
        spells = {client: wiring.path(client, direction).spells for client in CLIENTS}
        found.append({c for c, s in spells.items() if s is not None and s.up(at) > at})
    assert found[0] == found[1]
    return found[0]


def test_a_cut_takes_its_share_of_the_clients_each_time_others(wire: Wire) -> None:
    """Half of 40, drawn client by client: 10 to 30 of them (4 sigma is 12.6); a larger share has all of a smaller."""
    cut = "schedule: [{{at: 100s, lasting: 10s, cut: {{share: {0}}}}}, {{at: 200s, lasting: 10s, cut: {{share: {0}}}}}]"
    half, most, all_, none = (wire("{" + cut.format(share) + "}") for share in ("50%", "80%", "100%", "0%"))
    first, second = cut_off(half, 105), cut_off(half, 205)
    assert 8 < len(first) < 32
    assert first != second
    assert first < cut_off(most, 105)
    assert len(cut_off(all_, 105)) == 40  # the laptops' link has no schedule
    assert cut_off(none, 105) == cut_off(half, 95) == cut_off(half, 110) == set()


def test_a_cut_beside_an_outage_takes_the_link_down_as_well(wire: Wire) -> None:
    """Cut off and refused from 100 s to 110 s, whatever the outage does."""
    link = "{outage: {every: 1h, lasting: 1s}, schedule: [{at: 100s, lasting: 10s, cut: {mode: refuse}}]}"
    spells = wire(link).path("phones/0", "up").spells
    assert spells is not None
    assert Spell(100.0, 110.0, True) in [spells.next(float(at)) for at in range(100)]


# --- recorded rates


def test_a_recorded_rate_is_the_route_s_and_tcp_sees_its_mean(wire: Wire) -> None:
    """510 packets a second; the first message's byte crosses at 1 ms, the 501st packet at 1 s."""
    wiring = wire("{up: {trace: trace}}")
    path = wiring.path("phones/0", "up")
    assert path.route.recorded is not None
    assert path.route.recorded(0.0, 1.0) == 0.001
    assert path.route.recorded(0.0, 501 * 1500.0) == 1.0
    assert path.way(0).rate == 510 * 8 * 1500
    assert wiring.path("phones/0", "down").route.recorded is None
    assert not any(name.startswith("phones") for name in wiring.pipes)


def offset(wiring: Wiring, client: str, direction: Direction = "up") -> float:
    """Find where in the trace a client is: 500 packets in 1 s, of which the last 10 ms of the period have none."""
    recorded = wiring.path(client, direction).route.recorded
    assert recorded is not None
    return recorded(0.0, 300 * 1500.0)


def test_a_random_offset_differs_from_client_to_client_and_comes_from_the_seed(wire: Wire) -> None:
    """40 clients are at 40 places; the same seed gives the same, another seed others; up and down differ."""
    link = "{trace: {file: trace, offset: random}}"
    wiring, again, other = wire(link), wire(link), wire(link, seed=2)
    phones = CLIENTS[:40]
    places = [offset(wiring, client) for client in phones]
    assert len(set(places)) > 30  # to the millisecond, 40 of 1000
    assert places == [offset(again, client) for client in phones]
    assert places != [offset(other, client) for client in phones]
    assert places != [offset(wiring, client, "down") for client in phones]


def test_a_random_offset_is_that_of_its_stream(wire: Wire) -> None:
    """Uniform over the trace's second, named by client and direction, so that nothing else moves it."""
    recorded = wire("{trace: {file: trace, offset: random}}").path("phones/7", "up").route.recorded
    place = stream(1, "link", "trace", "phones/7", "up").uniform(0, 1.0)
    fixed = wire(f"{{trace: {{file: trace, offset: {place!r}s}}}}").path("phones/7", "up").route.recorded
    assert recorded is not None
    assert fixed is not None
    assert [recorded(t / 7, 30_000.0) for t in range(10)] == [fixed(t / 7, 30_000.0) for t in range(10)]


# --- TCP, loss and buckets


def name_of_tcp(wiring: Wiring, direction: Direction = "up") -> str:
    """Tell a model by the kind that builds it."""
    build: Any = wiring.path("phones/0", direction).tcp
    kind: str = build.__self__.kind
    return kind


@pytest.mark.parametrize(
    ("link", "model"),
    [
        ("{}", "none"),
        ("{delay: 40ms}", "none"),
        ("{rate: 1Mbit/s}", "slow-start"),
        ("{trace: trace}", "slow-start"),
        ("{rate: 1Mbit/s, loss: 1%}", "rounds"),
        ("{loss: 1%}", "rounds"),
        ("{rate: 1Mbit/s, schedule: [{at: 1s, lasting: 1s, loss: 1%}]}", "rounds"),
        ("{rate: 1Mbit/s, loss: 1%, tcp: mean}", "mean"),
        ("{rate: 1Mbit/s, tcp: none}", "none"),
        ("{rate: 1Mbit/s, down: {loss: 1%}}", "slow-start"),
    ],
)
def test_tcp_is_slow_start_where_there_is_a_rate_and_rounds_where_there_is_loss(
    wire: Wire, link: str, model: str
) -> None:
    """contract.md; without a rate there is none, but of a loss."""
    assert name_of_tcp(wire(link)) == model


def no_draw() -> Rng:
    raise AssertionError("slow start draws nothing")


def test_each_connection_has_a_sender_of_its_own(wire: Wire) -> None:
    """A path builds a model anew each time, so that a window is not remembered beyond its connection."""
    tcp = wire("{rate: 50Mbit/s}").path("phones/0", "up").tcp
    cold = Sending(100_000, 0.0, 50e6, 0.1)
    warm = cold._replace(at=1.0, idle=0.1)
    first = tcp()
    one = first.bursts(cold, no_draw)
    assert len(first.bursts(warm, no_draw)) < len(one)
    assert tcp().bursts(cold, no_draw) == one


def test_losses_of_clients_and_directions_do_not_share_a_state(wire: Wire) -> None:
    """Each path has a chain of its own."""
    wiring = wire("{rate: 1Mbit/s, loss: {random: 10%, burst: 5}}")
    chains = [
        wiring.path(client, direction).way(0).loss
        for client in ("phones/0", "phones/1")
        for direction in ("up", "down")
    ]
    assert len({id(chain) for chain in chains}) == 4
    assert [chain and chain.mean for chain in chains] == pytest.approx([0.1] * 4)


def test_a_burst_is_a_bucket_at_the_links_own_rate(wire: Wire) -> None:
    """15 kB up at 5 Mbit/s, none down."""
    paths = both(wire("{rate: 5Mbit/s, up: {burst: 15kB}}", server="{down: {rate: 1Mbit/s}}"))
    bucket = paths["up"].bucket
    assert bucket is not None
    assert (bucket.rate, bucket.burst, bucket.tokens) == (5e6, 15_000, 15_000.0)
    assert paths["down"].bucket is None


def test_stages_stand_in_the_order_of_the_way(wire: Wire) -> None:
    """A stall and a reset before the pipe, delays and drops after it; what is sent down never stalls."""
    link = "{delay: 1ms, drop: 1%, reset: 1%, stall: {probability: 50%, duration: 1s}}"
    paths = both(wire(link, server="{delay: 1ms}"))
    names = {
        direction: ([name for name, _ in path.way(0).departure], [name for name, _ in path.way(0).arrival])
        for direction, path in paths.items()
    }
    arrival = ["delay", "server delay", "drop"]
    assert names == {"up": (["stall", "reset"], arrival), "down": (["reset"], arrival)}
    packet: Packet | None = Packet(100, 3.0, "control")
    for _, stage in paths["up"].way(0).arrival[:2]:
        assert packet is not None
        packet = stage(packet, lambda: stream(1))
    assert packet is not None
    assert packet.at == pytest.approx(3.002)


# --- presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_wired_as_it_is_written(wire: Wire, name: str) -> None:
    """What a preset says is what somebody would get who writes it out."""
    written = "{" + ", ".join(f"{key}: {flow(value)}" for key, value in PRESETS[name].link.items()) + "}"
    for mine, theirs in zip(both(wire(f"{{preset: {name}}}")).values(), both(wire(written)).values(), strict=True):
        assert (mine.way(0).rate, mine.way(0).delay, mine.way(0).rtt) == (
            theirs.way(0).rate,
            theirs.way(0).delay,
            theirs.way(0).rtt,
        )


def flow(value: object) -> str:
    return "{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}" if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(
    ("link", "rates", "delays"),
    [
        ("{preset: 3g}", (768e3, 1.6e6), (0.15, 0.15)),
        ("{preset: 3g, delay: 10ms}", (768e3, 1.6e6), (0.01, 0.01)),
        ("{preset: 3g, up: {rate: 1Mbit/s}}", (1e6, 1.6e6), (0.15, 0.15)),
        ("{preset: 3g, rate: 2Mbit/s}", (2e6, 2e6), (0.15, 0.15)),
        ("{preset: 3g, rate: 2Mbit/s, down: {rate: 3Mbit/s}}", (2e6, 3e6), (0.15, 0.15)),
        ("{preset: lora, delay: 10ms}", (5468.75, 5468.75), (0.01, 0.01)),
        ("{preset: lora, up: {delay: 10ms}}", (5468.75, 5468.75), (0.01, 1.0)),
    ],
)
def test_keys_beside_a_preset_win(
    wire: Wire, link: str, rates: tuple[float, float], delays: tuple[float, float]
) -> None:
    """Those for both directions stand above what the preset says of one; those of a direction above both."""
    paths = both(wire(link)).values()
    assert tuple(path.way(0).rate for path in paths) == rates
    assert tuple(path.way(0).delay for path in paths) == delays


def test_a_trace_beside_a_preset_takes_the_place_of_its_rate(wire: Wire) -> None:
    """Up is recorded, down still the preset's 1.6 Mbit/s."""
    paths = both(wire("{preset: 3g, up: {trace: trace}}"))
    assert (paths["up"].way(0).rate, paths["down"].way(0).rate) == (510 * 8 * 1500, 1.6e6)
    assert paths["up"].route.recorded is not None
    assert list(paths["up"].route.pipes) == []
