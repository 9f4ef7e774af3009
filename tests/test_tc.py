"""A link as tc commands: each key's words, what has none, and what is printed."""

from pathlib import Path

import pytest

from fedemu.cli import main
from fedemu.errors import ScenarioError
from fedemu.scenario import load
from fedemu.scenario.presets import PRESETS
from fedemu.tc import Command, commands, left_out, undoing

SCENARIO = """\
name: kernel
dataset: {{kind: digits}}
partition: {{kind: iid}}
model: {{kind: softmax}}
training: {{epochs: 1, batch_size: 16, lr: 0.1}}
strategy: {{kind: fedavg}}
shared: {{cell: {{rate: 50Mbit/s}}}}
clients:
  laptops: {{count: 1}}
  phones: {{count: 3, link: {link}, device: {device}}}
server: {{link: {{rate: 100Mbit/s, delay: 5ms}}}}
stop: {{rounds: 1}}
"""
NO_DEVICE = "{kind: constant, per_example: 1ms}"

UP = [
    ("{up: {rate: 5Mbit/s, burst: 15kB}}", "root handle 1: tbf rate 5000000bit burst 15000 limit 33554432"),
    # no burst of its own: two packets, or what a millisecond brings where that is more
    ("{up: {rate: 5Mbit/s}}", "root handle 1: tbf rate 5000000bit burst 3028 limit 33554432"),
    ("{up: {rate: 100Mbit/s}}", "root handle 1: tbf rate 100000000bit burst 12500 limit 33554432"),
    ("{up: {rate: 5.46875kbit/s}}", "root handle 1: tbf rate 5468.75bit burst 3028 limit 33554432"),
    # 2^25 bytes are 22,162 packets
    ("{up: {delay: 40ms}}", "root handle 1: netem delay 40ms limit 22162"),
    ("{up: {delay: 2.5us}}", "root handle 1: netem delay 0.0025ms limit 22162"),
    (
        "{up: {delay: 40ms, jitter: 5ms, distribution: normal}}",
        "root handle 1: netem delay 40ms 5ms distribution normal limit 22162",
    ),
    (
        "{up: {delay: 40ms, jitter: 5ms, distribution: pareto}}",
        "root handle 1: netem delay 40ms 5ms distribution pareto limit 22162",
    ),
    # netem's uniform jitter is half of the width: sqrt(3) deviations
    (
        "{up: {delay: 40ms, jitter: 10ms, distribution: uniform}}",
        "root handle 1: netem delay 40ms 17.3205081ms limit 22162",
    ),
]
CUT = "root handle 1: tbf rate 5000000bit burst 3028 limit 33554432 peakrate 40000000bit mtu 1600"
LOSSES = [
    ("0.5%", "loss random 0.5%"),
    # p = P (1 - C), r = (1 - P)(1 - C): a Gilbert chain, in place of netem's own correlation
    ("{random: 10%, correlation: 25%}", "loss gemodel 7.5% 67.5% 100% 0%"),
    # r = 1 / b, p = P r / (1 - P)
    ("{random: 20%, burst: 4}", "loss gemodel 6.25% 25% 100% 0%"),
    (
        "{gemodel: {p: 1%, r: 30%, one_minus_h: 50%, one_minus_k: 0.1%}}",
        "loss gemodel 1% 30% 50% 0.1%",
    ),
]
REFUSED = [
    ("{stall: {probability: 60%, duration: 4s}}", ["link.stall"]),
    ("{outage: {every: 10min, lasting: 30s}}", ["link.outage"]),
    ("{schedule: [{at: 10s, lasting: 5s, cut: {}}]}", ["link.schedule"]),
    ("{drop: 2%}", ["link.drop"]),
    ("{reset: 1%, up: {drop: 2%}}", ["link.up.drop", "link.reset"]),
    ("{down: {trace: trace}}", ["link.down.trace"]),
    ("{delay: 40ms, jitter: 5ms}", ["link.jitter"]),
    ("{delay: 40ms, jitter: 5ms, distribution: exponential}", ["link.distribution"]),
    ("{delay: 40ms, jitter: 5ms, distribution: {table: table}}", ["link.distribution"]),
    ("{delay: 40ms, jitter: 5ms, distribution: normal, correlation: 20%}", ["link.correlation"]),
    ("{loss: 1%}", ["link.loss"]),
    ("{rate: 1Mbit/s, loss: {gemodel: {p: 1, r: 3}, clock: time}}", ["link.loss"]),
    ("{rate: 1Mbit/s, tcp: none}", ["link.tcp"]),
    ("{up: {rate: 1Mbit/s, burst: 1500B}}", ["link.up.burst"]),
    ("{preset: lora}", ["link.tcp"]),
]


def compiled(
    folder: Path, link: str, device: str = NO_DEVICE, *, group: str = "phones", on: str = "eth0"
) -> list[Command]:
    """Return the commands of a scenario whose phones have that link."""
    (folder / "trace").write_text("1\n2\n")
    (folder / "table").write_text("-8192 8192\n")
    file = folder / "kernel.yaml"
    file.write_text(SCENARIO.format(link=link, device=device))
    return list(commands(load(file).cells[0].scenario, group, on, file="kernel.yaml"))


@pytest.mark.parametrize(("link", "words"), UP)
def test_an_uplink_is_the_egress_of_the_device(tmp_path: Path, link: str, words: str) -> None:
    """The queue is that of the largest window, so that nothing is lost in it."""
    assert [str(command) for command in compiled(tmp_path, link)] == [f"tc qdisc add dev eth0 {words}"]


@pytest.mark.parametrize(("loss", "words"), LOSSES)
def test_loss_is_inside_of_a_bucket_that_cuts_trains(tmp_path: Path, loss: str, words: str) -> None:
    """A peak rate of eight times the rate has a bucket that holds one packet; netem's root would lose 64 kB at once."""
    found = compiled(tmp_path, f"{{up: {{rate: 5Mbit/s, delay: 40ms, loss: {loss}}}}}")
    assert [str(command) for command in found] == [
        f"tc qdisc add dev eth0 {CUT}",
        f"tc qdisc add dev eth0 parent 1:1 handle 10: netem delay 40ms {words} limit 22162",
    ]


def test_a_loss_of_nothing_is_not_said(tmp_path: Path) -> None:
    """`loss random 0%` would ask the kernel for netem."""
    assert all("netem" not in command.words for command in compiled(tmp_path, "{rate: 5Mbit/s, loss: 0%}"))


def test_a_downlink_is_the_egress_of_a_device_between(tmp_path: Path) -> None:
    """The queue is there before anything is sent into it, and goes with the device that it is of."""
    found = compiled(tmp_path, "{down: {rate: 20Mbit/s}}", on="wlp0s20f3abcd")
    assert [str(command) for command in found] == [
        "ip link add dev ifb-wlp0s20f3ab type ifb",
        "ip link set dev ifb-wlp0s20f3ab up",
        "tc qdisc add dev ifb-wlp0s20f3ab root handle 1: tbf rate 20000000bit burst 3028 limit 33554432",
        "tc qdisc add dev wlp0s20f3abcd handle ffff: ingress",
        "tc filter add dev wlp0s20f3abcd parent ffff: protocol all u32 match u32 0 0 "
        "action mirred egress redirect dev ifb-wlp0s20f3ab",
    ]
    assert [" ".join(words) for words in undoing(found)] == [
        "tc qdisc del dev wlp0s20f3abcd ingress",
        "ip link del dev ifb-wlp0s20f3ab",
    ]


def test_a_link_without_conditions_needs_no_command(tmp_path: Path) -> None:
    """The shared pipes are not the client's own link."""
    assert compiled(tmp_path, "{via: cell, weight: 2}") == []
    assert compiled(tmp_path, "{rate: 1Mbit/s}", group="laptops") == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_tcs_or_refused_by_its_key(tmp_path: Path, name: str) -> None:
    """All but LoRa, which has no TCP, are a rate and a delay each way."""
    if name == "lora":
        with pytest.raises(ScenarioError, match=r"link\.tcp"):
            compiled(tmp_path, "{preset: lora}")
    else:
        assert len(compiled(tmp_path, f"{{preset: {name}}}")) == 2 + 6


@pytest.mark.parametrize(("link", "keys"), REFUSED)
def test_what_tc_cannot_say_is_a_fault_that_names_the_key(tmp_path: Path, link: str, keys: list[str]) -> None:
    """Where it stands: beside up and down, or in one of them; once for both directions."""
    with pytest.raises(ScenarioError) as caught:
        compiled(tmp_path, link)
    assert [fault.key for fault in caught.value.faults] == [f"clients.phones.{key}" for key in keys]
    assert all(fault.text.startswith("not with tc: ") for fault in caught.value.faults)


def test_all_that_tc_cannot_say_is_told_at_once(tmp_path: Path) -> None:
    """Energy of a radio too: how long it sent, only the kernel knows. Training is still ours to count."""
    device = "{kind: constant, per_example: 1ms, energy: {compute: 2W, up: 1W, down: 500mW}}"
    link = "{delay: 40ms, jitter: 5ms, loss: 1%, drop: 1%, stall: {probability: 1%, duration: 1s}}"
    with pytest.raises(ScenarioError) as caught:
        compiled(tmp_path, link, device)
    assert [fault.key.removeprefix("clients.phones.") for fault in caught.value.faults] == [
        "link.stall",
        "link.drop",
        "link.jitter",
        "link.loss",
        "device.energy.up",
        "device.energy.down",
    ]
    compiled(tmp_path, "{}", "{kind: constant, per_example: 1ms, energy: {compute: 2W}}")


def test_an_unknown_group_is_a_fault(tmp_path: Path) -> None:
    """With what was meant."""
    with pytest.raises(ScenarioError, match=r"'phone' is not a group; did you mean 'phones'\?"):
        compiled(tmp_path, "{}", group="phone")


def test_keys_that_a_kernel_makes_pointless_are_told(tmp_path: Path) -> None:
    """An emulated TCP stands in for the kernel's; a retry for what TCP does."""
    compiled(tmp_path, "{rate: 1Mbit/s, tcp: {model: slow-start, iw: 4}, retry: {attempts: 2}}")
    link = load(tmp_path / "kernel.yaml").cells[0].scenario.clients["phones"].link
    assert [note.partition(":")[0] for note in left_out(link)] == ["tcp", "retry"]
    compiled(tmp_path, "{rate: 1Mbit/s}")
    assert left_out(load(tmp_path / "kernel.yaml").cells[0].scenario.clients["phones"].link) == []


def test_the_commands_are_printed_one_a_line_with_their_undoing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`| sh` does it; `| sed -n 's/^# undo: //p' | sh` takes it back."""
    file = tmp_path / "kernel.yaml"
    file.write_text(SCENARIO.format(link="{up: {rate: 5Mbit/s, burst: 15kB}, tcp: slow-start}", device=NO_DEVICE))
    assert main(["tc", str(file), "--group", "phones", "--set", "clients.phones.link.up.rate=2Mbit/s"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "# tcp: not needed, as the kernel's own TCP sends",
        "tc qdisc add dev eth0 root handle 1: tbf rate 2000000bit burst 15000 limit 33554432",
        "# undo: tc qdisc del dev eth0 root",
    ]
    assert main(["tc", str(file), "--group", "phones", "--device", "a&b", "--set", "clients.phones.link.drop=1%"]) == 2
    assert "clients.phones.link.drop: not with tc: tc knows packets" in capsys.readouterr().out
    assert main(["tc", str(file), "--group", "phones", "--device", "a&b"]) == 0
    assert "dev 'a&b' root" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["a b", "a/b", "", "sixteen-letters-"])
def test_what_no_device_can_be_called_is_refused(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Linux takes up to 15 characters, none of them a slash or a space."""
    with pytest.raises(SystemExit) as end:
        main(["tc", "any.yaml", "--group", "phones", "--device", device])
    assert end.value.code == 2
    assert f"{device!r} is no name of a network device" in capsys.readouterr().err
