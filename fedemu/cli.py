"""The command line: arguments in, an exit status out."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedemu import commands
from fedemu.commands import say, tell
from fedemu.errors import FedemuError, ScenarioError
from fedemu.net.proxy.sockets import Address, address
from fedemu.registry import ROOMS
from fedemu.units import Duration


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 1: the run failed. 2: the scenario or the arguments are faulty. 130: interrupted.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a kind may be package.module:builder, in a file beside the scenario's author
    arguments = _arguments().parse_args(argv)
    with suppress(ValueError):  # not the main thread of a program that calls us
        signal.signal(signal.SIGTERM, _terminate)
    try:
        status: int = arguments.command(arguments)
    except ScenarioError as error:
        say(str(error))
        return 2
    except FedemuError as error:
        tell(f"fedemu: {type(error).__name__}: {error}")
        return 1
    except KeyboardInterrupt:
        tell("fedemu: interrupted")
        return 130
    return status


def _terminate(*_: object) -> None:
    """End as Ctrl-C does, of which event loops know how to end: what a handler raises anywhere, C code may swallow."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedemu", description="Federated learning over networks that misbehave: how long does it take to learn?"
    )
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = parsers.add_parser("run", help="run a scenario, or every cell of its matrix")
    _take_scenario(run)
    _take_service(run)
    run.add_argument("--jobs", type=_JOBS, default=1, metavar="N", help="runs of a grid at once, each in a process")
    run.add_argument(
        "--resume", action="store_true", help="go on with --out: leave out the runs that have come to their end"
    )
    run.set_defaults(command=commands.run_command)

    again = parsers.add_parser("replay", help="run a run directory again and tell the first event that differs")
    again.add_argument("folder", type=Path, metavar="DIR", help="what run --out wrote: of a run, or of a matrix")
    _take_how(again)
    again.set_defaults(command=commands.replay_command)

    recorded = parsers.add_parser("export", help="give recorded runs to a real Prometheus, at emulated times")
    recorded.add_argument(
        "--openmetrics", required=True, type=Path, metavar="DIR", help="what run --out wrote: of a run, or of a matrix"
    )
    recorded.add_argument(
        "--start",
        type=_moment,
        metavar="TIME",
        help="when the runs begin: RFC 3339, or seconds since 1970; default so that they are over three hours ago",
    )
    recorded.add_argument("-o", "--output", type=Path, metavar="FILE", help="write here, for promtool; default stdout")
    recorded.set_defaults(command=commands.export_command)

    both = parsers.add_parser("verify", help="run a scenario on both clocks and compare emulated times with real ones")
    _take_scenario(both)
    both.set_defaults(command=commands.verify_command)

    _add_served(parsers)

    proxy = parsers.add_parser("proxy", help="put an emulated link in front of any TCP service, on the real clock")
    for option, text in (("--listen", "where clients connect to (port 0: a free one)"), ("--upstream", "the service")):
        proxy.add_argument(option, required=True, type=_address, metavar="ADDR", help=f"{text}: host:port or unix:PATH")
    proxy.add_argument("--link", required=True, metavar="LINK", help="link file (YAML): what stands under link: there")
    proxy.add_argument("--seed", type=_SEED, default=1, metavar="N", help="of all random draws; default 1")
    proxy.add_argument(
        "--shared", action="store_true", help="all connections share the pipes, max-min fair; else each has its own"
    )
    proxy.add_argument(
        "--control", type=_address, metavar="ADDR", help="look at it and change its link here, over HTTP"
    )
    proxy.add_argument("--metrics-port", type=_PORT, metavar="N", help="answer Prometheus here (0: a free port)")
    proxy.set_defaults(command=commands.proxy_command)

    kernel = parsers.add_parser("tc", help="print a link as the commands by which a Linux kernel shapes it")
    kernel.add_argument("scenario", metavar="SCENARIO", help="scenario file (YAML)")
    _take_sets(kernel)
    kernel.add_argument("--group", required=True, help="a group of the scenario; its clients have links alike")
    kernel.add_argument(
        "--device", default="eth0", type=_device, metavar="DEVICE", help="the client's network device; default eth0"
    )
    kernel.set_defaults(command=commands.tc_command)

    check = parsers.add_parser("check", help="report every fault of scenarios as file:line: key: fault")
    check.add_argument("scenarios", nargs="+", metavar="SCENARIO", help="scenario file (YAML)")
    check.set_defaults(command=commands.check_command)

    kinds = parsers.add_parser("kinds", help="list every kind with its parameters, units and defaults")
    rooms = [*ROOMS, "presets"]
    kinds.add_argument("room", nargs="?", choices=rooms, metavar="ROOM", help=f"one of {', '.join(rooms)}")
    kinds.set_defaults(command=commands.kinds_command)

    parsers.add_parser("schema", help="print the JSON Schema of scenario files").set_defaults(
        command=commands.schema_command
    )
    return parser


def _add_served(parsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add what serves clients in other processes."""
    serve = parsers.add_parser("serve", help="run a scenario's server, for clients in other processes")
    _take_scenario(serve)
    _take_service(serve)
    serve.add_argument(
        "--resume", action="store_true", help="go on with --out, where a server has left off; else begin"
    )
    serve.add_argument("--listen", required=True, metavar="ADDR", help="host:port (port 0: a free one) or unix:PATH")
    _take_certificates(serve, "clients need a certificate from these authorities")
    serve.add_argument("--tokens", type=Path, metavar="FILE", help="clients need one of these tokens")
    serve.add_argument(
        "--insecure", action="store_true", help="listen beyond this machine without TLS, or for whoever wants to join"
    )
    serve.add_argument(
        "--enrol",
        type=_duration,
        metavar="TIME",
        help="wait for clients first, until none has come or gone for so long: they are the counts of their groups",
    )
    serve.set_defaults(command=commands.serve_command)

    join = parsers.add_parser("join", help="take part in a served run as one client")
    join.add_argument("--server", required=True, metavar="ADDR", help="host:port or unix:PATH")
    join.add_argument("--group", required=True, help="a group of the scenario")
    join.add_argument(
        "--slot", type=_SLOT, metavar="N", help="which client of the group, from 0; default the next free"
    )
    join.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="run code of this package if scenarios name it"
    )
    _take_certificates(join, "talk TLS, with a server that has a certificate from these authorities")
    join.add_argument(
        "--token", metavar="TOKEN", help="what the server asks for; @FILE reads it there; default $FEDEMU_TOKEN"
    )
    join.add_argument(
        "--insecure", action="store_true", help="show the token to a server beyond this machine without TLS"
    )
    join.add_argument(
        "--kernel",
        type=_device,
        metavar="DEVICE",
        help="have the kernel shape this network device as the client's link, with tc",
    )
    join.add_argument(
        "--memory", type=Path, metavar="DIR", help="keep there what the algorithm remembers, for who is killed"
    )
    join.add_argument("--metrics-port", type=_PORT, metavar="N", help="answer Prometheus here")
    join.set_defaults(command=commands.join_command)

    made = parsers.add_parser("certs", help="write certificates and tokens for clients on other machines")
    made.add_argument("folder", type=Path, metavar="DIR", help="write there; nothing is replaced")
    made.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="name or IP address by which clients reach the server, beside localhost; may be repeated",
    )
    made.add_argument(
        "--days", type=_DAYS, default=365, metavar="N", help="how long the certificates are valid; default 365"
    )
    made.add_argument(
        "--tokens", dest="scenario", metavar="SCENARIO", help="write a token for each group and client of it, too"
    )
    _take_sets(made)
    made.set_defaults(command=commands.certs_command)


def _take_scenario(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", metavar="SCENARIO", help="scenario file (YAML)")
    _take_sets(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="replace the seed")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the run directory here; it must not exist yet")
    _take_how(parser)


def _take_sets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", help="replace a key: rounds.goal=8"
    )


def _take_certificates(parser: argparse.ArgumentParser, trust: str) -> None:
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="own certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help=f"{trust} (PEM)")


def _take_how(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(metrics_port=None, linger=0.0, jobs=1, resume=False)
    parser.add_argument("--transport", choices=["memory", "grpc", "grpc-unix"], help="replace the transport")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _take_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clock", choices=["virtual", "real"], help="replace the clock")
    parser.add_argument("--metrics-port", type=_PORT, metavar="N", help="answer Prometheus here (0: a free port)")
    parser.add_argument(
        "--linger", type=_duration, metavar="TIME", help="go on answering Prometheus so long after the run"
    )


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE; write e.g. clients.phones.link.delay=80ms")
    return key, value


def _number_to(limit: int, least: int = 0) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= limit:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {limit}")
        return int(text)

    return parse


_PORT, _SLOT = _number_to(65535), _number_to(2**32 - 1)


_SEED = _number_to(2**63 - 1)
_JOBS = _number_to(1024, least=1)
_DAYS = _number_to(36500, least=1)


def _address(text: str) -> Address:
    try:
        return address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _device(text: str) -> str:
    if not 0 < len(text) < 16 or any(char.isspace() or char == "/" for char in text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a network device: up to 15 characters, without / or space"
        )
    return text


def _duration(text: str) -> float:
    try:
        return TypeAdapter[float](Duration).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(str(error.errors()[0]["ctx"]["error"])) from None


def _moment(text: str) -> datetime:
    with suppress(ValueError, OverflowError):
        return datetime.fromtimestamp(float(text), UTC)
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    raise argparse.ArgumentTypeError(f"{text!r} is not a moment; write e.g. 2026-11-21T08:00:00Z, or 1795248000")
