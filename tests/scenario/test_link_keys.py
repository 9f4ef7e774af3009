"""What is wrong with a link is named at its line: one mistake, one fault."""

from pathlib import Path

import pytest

from fedemu.errors import Fault, ScenarioError
from fedemu.scenario import load

TOP = """\
name: keys
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
stop: {rounds: 1}
"""
LINK = f"{TOP}clients:\n  phones:\n    count: 2\n    link:\n"
SHARED = f"{TOP}clients: {{phones: {{count: 2, link: {{via: cell}}}}}}\nshared:\n  cell:\n"
SERVER = f"{TOP}clients: {{phones: {{count: 2}}}}\nserver:\n  link:\n"

FILES = {
    "good": "1\n2\n3\n",
    "empty": "",
    "letters": "1\n2\nx\n",
    "backwards": "5\n4\n",
    "zero": "0\n0\n",
    "words": "a b c d\n",
    "letters.dist": "# a law\n1 2\nq\n",
    "flat.dist": "1 1 1\n",
}


def faults(directory: Path, head: str, lines: str) -> list[Fault]:
    """Return what is wrong where `lines` are the mapping that `head` begins; lines count from there, from 1."""
    for name, content in FILES.items():
        (directory / name).write_text(content)
    path = directory / "keys.yaml"
    indent = " " * (len(head.splitlines()[-1]) - len(head.splitlines()[-1].lstrip()) + 2)
    path.write_text(head + "".join(f"{indent}{line}\n" for line in lines.splitlines()))
    with pytest.raises(ScenarioError) as caught:
        load(path)
    above = len(head.splitlines())
    return [Fault(f.file, f.line - above, f.key, f.text.replace(f"{directory}/", "")) for f in caught.value.faults]


def check(directory: Path, head: str, lines: str, line: int, key: str, text: str) -> None:
    (fault,) = faults(directory, head, lines)
    assert (fault.line, fault.key) == (line, key)
    assert fault.text.startswith(text)


@pytest.mark.parametrize(
    ("lines", "line", "key", "text"),
    [
        # delay
        ("delay: -5ms", 1, "delay", "'-5ms' is negative; write e.g. 40ms"),
        ("jitter: 5ms", 1, "jitter", "jitter 0.005s without delay would need delays below zero; set delay as well"),
        ("up: {jitter: 5ms}", 1, "up.jitter", "jitter 0.005s without delay"),
        ("delay: 40ms\njitter: -1ms", 2, "jitter", "'-1ms' is negative"),
        (
            "delay: 40ms\njitter: 10ms\ncorrelation: 100%",
            3,
            "correlation",
            "correlation 100% would give every packet the first one's delay; expected less than 100%",
        ),
        ("delay: 40ms\nup:\n  jitter: 1ms\n  correlation: 1", 4, "up.correlation", "correlation 100% would give"),
        ("delay: 40ms\njitter: 10ms\ncorrelation: 150%", 3, "correlation", "'150%' is outside of 0..1"),
        ("delay: 40ms\ncorrelation: 25%", 2, "correlation", "no meaning without jitter; set jitter or leave it out"),
        ("delay: 40ms\ndown: {correlation: 25%}", 2, "down.correlation", "no meaning without jitter"),
        ("delay: 40ms\ndistribution: normal", 2, "distribution", "no meaning without jitter"),
        (
            "delay: 40ms\njitter: 30ms\ndistribution: normal",
            2,
            "jitter",
            "normal delay 40ms with jitter 30ms reaches below zero; expected a jitter of at most 10ms, or write "
            "distribution: lognormal",
        ),
        ("delay: 40ms\njitter: 5ms\ndistribution: constant", 2, "jitter", "jitter 5ms of a constant delay"),
        ("delay: 40ms\njitter: 5ms\ndistribution: gauss", 3, "distribution", "'gauss' is not one of constant, unif"),
        (
            "delay: 40ms\njitter: 5ms\ndistribution: {table: none.dist}",
            3,
            "distribution",
            "none.dist cannot be read",
        ),
        (
            "delay: 40ms\njitter: 5ms\ndistribution: {table: letters.dist}",
            3,
            "distribution",
            "letters.dist:3: 'q' is not a whole number",
        ),
        (
            "delay: 40ms\njitter: 5ms\ndistribution: {table: flat.dist}",
            3,
            "distribution",
            "flat.dist has 1 different numbers; expected a law's quantiles, at least 2",
        ),
        (
            "delay: 40ms\njitter: 5ms\ndistribution: {tabel: flat.dist}",
            3,
            "distribution",
            "{'tabel': 'flat.dist'} is not a table",
        ),
        # rate, burst and traces
        ("rate: -1Mbit/s", 1, "rate", "'-1Mbit/s' is negative; write e.g. 10Mbit/s"),
        ("rate: 0bit/s", 1, "rate", "'0bit/s' is out of range; expected more than 0"),
        ("burst: 15kB", 1, "burst", "no meaning without rate; set rate or leave it out"),
        ("up: {trace: good, burst: 15kB}", 1, "up.burst", "no meaning without rate"),
        ("rate: 1Mbit/s\nburst: 0B", 2, "burst", "'0B' is out of range; expected more than 0"),
        ("rate: 1Mbit/s\ntrace: good", 2, "trace", "rate says it already; write one of the two"),
        ("rate: 1Mbit/s\nup: {trace: good}", 2, "up.trace", "rate says it already"),
        ("trace: nowhere", 1, "trace", "nowhere cannot be read: No such file or directory"),
        ("trace: empty", 1, "trace", "empty: the trace is empty; expected one opportunity at least"),
        ("trace: letters", 1, "trace", "letters:3: 'x' is not a millisecond"),
        ("trace: backwards", 1, "trace", "backwards:2: 4 comes after 5; expected milliseconds in order"),
        ("trace: zero", 1, "trace", "zero: the trace is over at millisecond 0"),
        ("trace: words", 1, "trace", "words:1: 'a b c d' is in none of the formats mahimahi"),
        ("up:\n  trace: letters", 2, "up.trace", "letters:3: 'x' is not a millisecond"),
        ("trace:\n  offset: random\n  file: letters", 3, "trace.file", "letters:3: 'x' is not a millisecond"),
        ("trace: {offset: random}", 1, "trace.file", "missing; expected a Mahimahi trace"),
        ("trace: {file: good, format: pcap}", 1, "trace.format", "'pcap' is not one of mahimahi, sabre"),
        ("trace: {file: good, offset: later}", 1, "trace.offset", "'later' "),
        ("trace: {file: good, offset: -1s}", 1, "trace.offset", "'-1s' is negative"),
        # loss and TCP
        ("loss: 101%", 1, "loss", "'101%' is outside of 0..1"),
        ("loss: -1%", 1, "loss", "'-1%' is not a ratio"),
        ("loss: 100%", 1, "loss", "loss of 100% lets nothing through"),
        ("loss: {correlation: 25%}", 1, "loss", "expected one of random and gemodel"),
        ("loss: {random: 1%, gemodel: {p: 1%, r: 9%}}", 1, "loss", "expected one of random and gemodel"),
        ("loss: {random: 1%, correlation: 100%}", 1, "loss", "correlation 100% would lose all packets or none"),
        ("loss: {random: 1%, correlation: 9%, burst: 3}", 1, "loss", "correlation and burst say the same thing"),
        ("loss: {random: 60%, burst: 1}", 1, "loss", "bursts of 1 cannot make up 60% of the packets"),
        ("loss: {random: 1%, burst: 0.5}", 1, "loss.burst", "0.5 is out of range; expected at least 1"),
        ("loss: {gemodel: {p: 1%}}", 1, "loss.gemodel", "r is missing; write e.g. {p: 1%, r: 30%}"),
        ("loss: {gemodel: {p: 0, r: 0}}", 1, "loss", "gemodel with p 0 and r 0 never changes its state"),
        ("loss: {gemodel: {p: 2, r: 1}}", 1, "loss", "gemodel with a chance of 2 a packet; expected 0..1, or clock"),
        ("loss: {gemodel: {p: 1%, r: 9%, h: 1}}", 1, "loss.gemodel", "'h' is not a key here"),
        ("loss: {random: 1%, clock: time}", 1, "loss", "clock: time has no meaning without gemodel"),
        ("rate: 1Mbit/s\nloss: 1%\ntcp: none", 2, "loss", "no meaning with tcp none, which does not know packet"),
        ("rate: 1Mbit/s\nloss: 1%\ntcp: slow-start", 2, "loss", "no meaning with tcp slow-start"),
        ("rate: 1Mbit/s\nloss: 1%\ntcp: lv08", 2, "loss", "no meaning with tcp lv08"),
        ("rate: 1Mbit/s\ntcp: slow-start\ndown: {loss: 1%}", 3, "down.loss", "no meaning with tcp slow-start"),
        (
            "rate: 1Mbit/s\ntcp: slow-start\nschedule:\n  - {at: 1s, lasting: 1s, loss: 1%}",
            4,
            "schedule.0.loss",
            "no meaning with tcp slow-start",
        ),
        ("rate: 1Mbit/s\ntcp: reno", 2, "tcp", "'reno' is not a TCP model; there are lv08, mean, none, rounds"),
        ("rate: 1Mbit/s\ntcp: {model: rounds, cc: bbr}", 2, "tcp.cc", "'bbr' is not one of cubic or reno"),
        ("rate: 1Mbit/s\ntcp: {model: rounds, iw: 0}", 2, "tcp.iw", "0 is out of range; expected at least 1"),
        ("rate: 1Mbit/s\ntcp: {kind: rounds, model: mean}", 2, "tcp.model", "kind says it already"),
        ("tcp: none", 1, "tcp", "no meaning without rate, as a link without rate has no TCP"),
        ("rate: 1Mbit/s\ndown:\n  delay: 1ms\ntcp: non", 4, "tcp", "'non' is not a TCP model; did you mean 'none'"),
        ("stage: {kind: 'os:getcwd'}", 1, "stage", "makes '"),
        # calls
        ("drop: 101%", 1, "drop", "'101%' is outside of 0..1"),
        ("drop: {requests: 1%}", 1, "drop.requests", "'requests' is not a key here; did you mean 'request'?"),
        ("reset: often", 1, "reset", "'often' is not a ratio"),
        ("stall: {probability: 60%, duration: -4s}", 1, "stall.duration", "'-4s' is negative"),
        ("up: {stall: {probability: 60%, duration: 4s}}", 1, "up.stall", "'stall' is not a key here"),
        ("retry: never", 1, "retry", "'never' is neither none nor a mapping; write e.g. {attempts: 5, timeout: 10s}"),
        ("retry: {attempts: 0}", 1, "retry.attempts", "0 is out of range; expected at least 1"),
        ("retry: {timeout: 0s}", 1, "retry.timeout", "'0s' is out of range; expected more than 0"),
        ("retry: {backoff: -1s}", 1, "retry.backoff", "'-1s' is negative"),
        # outages
        ("outage: {every: 30s, lasting: 10min}", 1, "outage", "outages lasting 600s every 30s; expected lasting above"),
        ("outage: {every: 30s, lasting: 0s}", 1, "outage", "outages lasting 0s every 30s"),
        ("outage: {every: 30s}", 1, "outage.lasting", "missing; expected mean length of an outage"),
        ("outage: {every: 30s, lasting: 1s, law: weibull}", 1, "outage", "law weibull has no shape"),
        ("outage: {every: 30s, lasting: 1s, shape: 2}", 1, "outage", "shape 2 has no meaning without law: weibull"),
        ("outage: {every: 30s, lasting: 1s, mode: ignore}", 1, "outage.mode", "'ignore' is not one of blackhole or"),
        # shared pipes and presets
        ("rate: 1Mbit/s\nvia: cell", 2, "via", "'cell' is not a pipe under shared"),
        ("preset: 6g", 1, "preset", "'6g' is not a preset; there are edge, 3g, 4g, 5g, wifi, cable, satellite, lora"),
        ("preset: 3", 1, "preset", "3 is not a text; put it in quotes"),
        ("up: {preset: 4g}", 1, "up.preset", "'preset' is not a key here"),
        ("preset: 4g\nrate: 1MB", 2, "rate", "'1MB' has no unit of bit/s"),
        ("preset: 3g\njitter: 400ms\ndistribution: normal", 2, "jitter", "normal delay 150ms with jitter 400ms"),
        ("preset: 3g\ntrace: letters", 2, "trace", "letters:3: 'x' is not a millisecond"),
        ("preset: 3g\nup: 5", 2, "up", "5 is not a mapping; write key: value"),
        # schedules
        ("schedule: {at: 1s}", 1, "schedule", '{"at": "1s"} is not a list'),
        ("schedule:\n  - {at: 10s, cut: {}}", 2, "schedule.0.lasting", "missing; expected how long it lasts"),
        ("schedule:\n  - {at: 1s, lasting: 0s, cut: {}}", 2, "schedule.0.lasting", "'0s' is out of range"),
        ("schedule:\n  - {at: -1s, lasting: 1s, cut: {}}", 2, "schedule.0.at", "'-1s' is negative"),
        ("schedule:\n  - {at: 10s, lasting: 5s}", 2, "schedule.0", "nothing is different meanwhile; write e.g. up:"),
        (
            "schedule:\n  - {at: 10s, lasting: 5s, cut: {}}\n  - {at: 12s, lasting: 5s, cut: {}}",
            3,
            "schedule.1.at",
            "begins at 12s, before the one above it ends at 15s; write them in order of time",
        ),
        (
            "schedule:\n  - {at: 20s, lasting: 5s, cut: {}}\n  - {at: 10s, lasting: 5s, cut: {}}",
            3,
            "schedule.1.at",
            "begins at 10s, before the one above it ends at 25s",
        ),
        (
            "up: {rate: 1Mbit/s}\nschedule:\n  - {at: 10s, lasting: 5s, rate: 2Mbit/s}",
            3,
            "schedule.0.rate",
            "no meaning where the link itself has no constant rate; set rate there",
        ),
        (
            "up: {trace: good}\nschedule:\n  - {at: 10s, lasting: 5s, up: {rate: 1Mbit/s}}",
            3,
            "schedule.0.up.rate",
            "no meaning where the link itself has no constant rate",
        ),
        (
            "rate: 1Mbit/s\nschedule:\n  - at: 10s\n    lasting: 5s\n    up: {rate: 0bit/s}",
            5,
            "schedule.0.up.rate",
            "'0bit/s' is out of range",
        ),
        (
            "schedule:\n  - at: 10s\n    lasting: 5s\n    jitter: 5ms",
            4,
            "schedule.0.jitter",
            "jitter 0.005s without delay",
        ),
        ("schedule:\n  - {at: 1s, lasting: 5s, cut: {share: 120%}}", 2, "schedule.0.cut.share", "'120%' is outside"),
        ("schedule:\n  - {at: 1s, lasting: 5s, cut: {mode: drop}}", 2, "schedule.0.cut.mode", "'drop' is not one of"),
        ("schedule:\n  - {at: 1s, lasting: 5s, loss: 100%}", 2, "schedule.0.loss", "loss of 100% lets nothing"),
        ("schedule:\n  - {at: 1s, lasting: 5s, up: {burst: 3kB}}", 2, "schedule.0.up.burst", "'burst' is not a key"),
    ],
)
def test_a_fault_of_a_client_s_link_stands_at_its_line(
    tmp_path: Path, lines: str, line: int, key: str, text: str
) -> None:
    """Lines are counted from the first key of the link."""
    check(tmp_path, LINK, lines, line, f"clients.phones.link.{key}", text)


STEP = "rate: 1Mbit/s\nbackground: {kind: step, rates: "


@pytest.mark.parametrize(
    ("lines", "line", "key", "text"),
    [
        ("rate: 0bit/s", 1, "rate", "'0bit/s' is out of range; expected more than 0"),
        ("trace: letters", 1, "trace", "letters:3: 'x' is not a millisecond"),
        ("rate: 1Mbit/s\nup: {trace: good}", 2, "up.trace", "rate says it already; write one of the two"),
        ("background: {kind: constant, rate: 1Mbit/s}", 1, "background", "no meaning without rate, as there is no pip"),
        (
            "down: {rate: 1Mbit/s}\nup: {background: {kind: constant, rate: 1Mbit/s}}",
            2,
            "up.background",
            "no meaning without rate",
        ),
        ("rate: 1Mbit/s\nbackground: {kind: constant}", 2, "background.rate", "missing; expected what the flow takes"),
        ("rate: 1Mbit/s\nbackground: {kind: sinus}", 2, "background.kind", "'sinus' is not a background traffic; did"),
        (f"{STEP}[1Mbit/s], every: 1s}}", 2, "background.rates", '["1Mbit/s"] is empty; expected at least 2'),
        (f"{STEP}[1Mbit/s, 1Mbit/s], every: 1s}}", 2, "background", "all rates are the same; write kind: constant"),
        (f"{STEP}[1Mbit/s, 2Mbit/s], every: 0s}}", 2, "background.every", "'0s' is out of range"),
        ("delay: 4ms", 1, "delay", "'delay' is not built yet"),
        ("loss: 1%", 1, "loss", "'loss' is not built yet"),
        ("stall: 3", 1, "stall", "'stall' is not a key here"),
        ("rate: 1Mbit/s\nschedule:\n  - {at: 1s, lasting: 5s}", 3, "schedule.0", "nothing is different meanwhile"),
        (
            "rate: 1bit/s\nschedule:\n  - {at: 1s, lasting: 5s, rate: 0bit/s}\n  - {at: 2s, lasting: 5s, rate: 1bit/s}",
            4,
            "schedule.1.at",
            "begins at 2s, before the one above it ends at 6s; write them in order of time",
        ),
        (
            "trace: good\nschedule:\n  - {at: 1s, lasting: 5s, rate: 1Mbit/s}",
            3,
            "schedule.0",
            "no meaning where the pipe itself has no constant rate; set rate there",
        ),
        (
            "up: {rate: 1Mbit/s}\nschedule:\n  - {at: 1s, lasting: 5s, down: {rate: 1Mbit/s}}",
            3,
            "schedule.0",
            "no meaning where the pipe itself has no constant rate",
        ),
        (
            "up: {rate: 1Mbit/s}\nschedule:\n  - {at: 1s, lasting: 5s, up: {rate: 1bit/s}, down: {rate: 1bit/s}}",
            3,
            "schedule.0",
            "no meaning where the pipe itself has no constant rate",
        ),
        (
            "rate: 1Mbit/s\nschedule:\n  - {at: 1s, lasting: 5s, up: {}}",
            3,
            "schedule.0.up.rate",
            "missing; expected bits",
        ),
        ("rate: 1Mbit/s\nschedule:\n  - {at: 1s, lasting: 5s, delay: 3ms}", 3, "schedule.0.delay", "'delay' is not a"),
    ],
)
def test_a_fault_of_a_shared_pipe_stands_at_its_line(
    tmp_path: Path, lines: str, line: int, key: str, text: str
) -> None:
    """Lines are counted from the first key of the pipe, which the phones go through."""
    check(tmp_path, SHARED, lines, line, f"shared.cell.{key}", text)


@pytest.mark.parametrize(
    ("lines", "line", "key", "text"),
    [
        ("delay: -1ms", 1, "delay", "'-1ms' is negative"),
        ("up: {trace: letters}", 1, "up.trace", "letters:3: 'x' is not a millisecond"),
        ("rate: 1Mbit/s\nup: {trace: good}", 2, "up.trace", "rate says it already; write one of the two"),
        ("via: cell", 1, "via", "'via' is not built yet"),
        ("preset: 4g", 1, "preset", "'preset' is not built yet"),
        ("up: {delay: 3ms}", 1, "up.delay", "'delay' is not built yet"),
    ],
)
def test_a_fault_of_the_server_s_link_stands_at_its_line(
    tmp_path: Path, lines: str, line: int, key: str, text: str
) -> None:
    """Lines are counted from the first key of the server's link."""
    check(tmp_path, SERVER, lines, line, f"server.link.{key}", text)


def test_a_pipe_that_nobody_defined_is_told_what_was_meant(tmp_path: Path) -> None:
    """cell is there, cel is not."""
    head = SHARED.replace("via: cell", "via: cel")
    (fault,) = faults(tmp_path, head, "rate: 1Mbit/s")
    assert (fault.line + len(head.splitlines()), fault.key) == (7, "clients.phones.link.via")
    assert fault.text == "'cel' is not a pipe under shared; did you mean 'cell'?"


def test_faults_of_one_link_come_all_at_once(tmp_path: Path) -> None:
    """Each at its line, whatever else is wrong."""
    lines = "delay: 40\ndrop: 101%\nup: {rate: 1Mbit/s, trace: good}\nschedule:\n  - {at: 5s, lasting: 1s}\nretry: 3"
    found = [(fault.line, fault.key.rpartition("link.")[2]) for fault in faults(tmp_path, LINK, lines)]
    assert found == [(1, "delay"), (2, "drop"), (3, "up.trace"), (5, "schedule.0"), (6, "retry")]
