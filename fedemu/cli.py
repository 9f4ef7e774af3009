"""The command line: arguments in, an exit status out."""

import argparse
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedemu import campaign, certs, comparison, enrolment, experiment, export, guard, guest, replay, summary, tc, verify
from fedemu.errors import Fault, FedemuError, RunError, ScenarioError
from fedemu.events import Observer
from fedemu.net.proxy.sockets import Address, address
from fedemu.observers.console import Console
from fedemu.observers.prometheus import Metrics
from fedemu.proxying import link
from fedemu.proxying.service import Service
from fedemu.registry import ROOMS, Description, describe
from fedemu.scenario import Cell, Experiment, Scenario, load, schema
from fedemu.scenario.presets import PRESETS
from fedemu.units import Duration, show_duration


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 1: the run failed. 2: the scenario or the arguments are faulty. 130: interrupted.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a kind may be package.module:builder, in a file beside the scenario's author
    arguments = _arguments().parse_args(argv)
    with suppress(ValueError):  # not the main thread of a program that calls us
        # as Ctrl-C, of which event loops know how to end; what a handler raises anywhere, C code may swallow
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        status: int = arguments.command(arguments)
    except ScenarioError as error:
        _say(str(error))
        return 2
    except FedemuError as error:
        _tell(f"fedemu: {type(error).__name__}: {error}")
        return 1
    except KeyboardInterrupt:
        _tell("fedemu: interrupted")
        return 130
    return status


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedemu", description="Federated learning over networks that misbehave: how long does it take to learn?"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run a scenario, or every cell of its matrix")
    _take_scenario(run)
    _take_service(run)
    run.add_argument("--jobs", type=_JOBS, default=1, metavar="N", help="runs of a grid at once, each in a process")
    run.add_argument(
        "--resume", action="store_true", help="go on with --out: leave out the runs that have come to their end"
    )
    run.set_defaults(command=_run)

    again = commands.add_parser("replay", help="run a run directory again and tell the first event that differs")
    again.add_argument("folder", type=Path, metavar="DIR", help="what run --out wrote: of a run, or of a matrix")
    _take_how(again)
    again.set_defaults(command=_replay)

    recorded = commands.add_parser("export", help="give recorded runs to a real Prometheus, at emulated times")
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
    recorded.set_defaults(command=_export)

    both = commands.add_parser("verify", help="run a scenario on both clocks and compare emulated times with real ones")
    _take_scenario(both)
    both.set_defaults(command=_verify)

    _add_served(commands)

    proxy = commands.add_parser("proxy", help="put an emulated link in front of any TCP service, on the real clock")
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
    proxy.set_defaults(command=_proxy)

    kernel = commands.add_parser("tc", help="print a link as the commands by which a Linux kernel shapes it")
    kernel.add_argument("scenario", metavar="SCENARIO", help="scenario file (YAML)")
    _take_sets(kernel)
    kernel.add_argument("--group", required=True, help="a group of the scenario; its clients have links alike")
    kernel.add_argument("--device", default="eth0", metavar="DEVICE", help="the client's network device; default eth0")
    kernel.set_defaults(command=_tc)

    check = commands.add_parser("check", help="report every fault of scenarios as file:line: key: fault")
    check.add_argument("scenarios", nargs="+", metavar="SCENARIO", help="scenario file (YAML)")
    check.set_defaults(command=_check)

    kinds = commands.add_parser("kinds", help="list every kind with its parameters, units and defaults")
    rooms = [*ROOMS, "presets"]
    kinds.add_argument("room", nargs="?", choices=rooms, metavar="ROOM", help=f"one of {', '.join(rooms)}")
    kinds.set_defaults(command=_kinds)

    commands.add_parser("schema", help="print the JSON Schema of scenario files").set_defaults(command=_schema)
    return parser


def _add_served(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add what serves clients in other processes."""
    serve = commands.add_parser("serve", help="run a scenario's server, for clients in other processes")
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
    serve.set_defaults(command=_serve)

    join = commands.add_parser("join", help="take part in a served run as one client")
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
        "--kernel", metavar="DEVICE", help="have the kernel shape this network device as the client's link, with tc"
    )
    join.add_argument(
        "--memory", type=Path, metavar="DIR", help="keep there what the algorithm remembers, for who is killed"
    )
    join.add_argument("--metrics-port", type=_PORT, metavar="N", help="answer Prometheus here")
    join.set_defaults(command=_join)

    made = commands.add_parser("certs", help="write certificates and tokens for clients on other machines")
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
    made.set_defaults(command=_certs)


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


def _load(arguments: argparse.Namespace, clock: str | None, transport: str | None) -> Experiment:
    plan = load(arguments.scenario, arguments.set, seed=arguments.seed, clock=clock, transport=transport)
    if arguments.linger and arguments.metrics_port is None:
        raise ScenarioError([Fault("--linger", 1, "linger", "no meaning without --metrics-port")])
    if arguments.resume and arguments.out is None:
        raise ScenarioError([Fault("--resume", 1, "resume", "no meaning without --out")])
    if arguments.jobs > 1 and arguments.metrics_port is not None:
        fault = "runs at once cannot share --metrics-port; leave out one of the two"
        raise ScenarioError([Fault("--jobs", 1, "jobs", fault)])
    if arguments.jobs > 1:
        for cell in plan.cells:
            if cell.scenario.clock == "real":
                fault = "runs at once would disturb each other on the real clock; leave out one of the two"
                raise ScenarioError([Fault("--jobs", 1, "clock", fault)])
            if cell.scenario.compute.kind == "pool":
                fault = "runs at once have one worker each; leave out compute.kind: pool, or --jobs"
                raise ScenarioError([Fault("--jobs", 1, "compute.kind", fault)])
    if arguments.out is not None and arguments.out.exists() and not arguments.resume:
        raise ScenarioError([Fault("--out", 1, str(arguments.out), "exists already; name a new directory")])
    return plan


def _run(arguments: argparse.Namespace) -> int:
    plan = _load(arguments, arguments.clock, arguments.transport)

    def tell(run: campaign.Progress) -> None:
        if not plan.is_grid:
            _say(summary.of_run(run.result))
        elif not arguments.quiet:
            how = "there already" if run.is_old else f"{run.result['emulated_seconds']:.3f} s emulated"
            _tell(f"[{run.number}/{len(plan.cells)}] {run.cell.path}: {how}")

    runs = campaign.run(
        plan,
        out=arguments.out,
        jobs=arguments.jobs,
        resume=arguments.resume,
        watch=lambda cell: _watched(cell, arguments, silent=plan.is_grid),
        tell=tell,
        announce=lambda text: _tell(f"fedemu: {text}"),
    )
    if plan.is_grid:
        _say(comparison.as_text(comparison.compared(runs)))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    recordings = replay.recordings(arguments.folder, transport=arguments.transport)
    status = 0
    with experiment.workers_for(recording.cell.scenario for recording in recordings) as compute:
        for recording in recordings:
            with _watched(recording.cell, arguments, silent=len(recordings) > 1) as observers:
                verdict = replay.replay(recording, compute, observers=observers)
            _say(verdict.text)
            status = status if verdict.identical else 1
    return status


def _export(arguments: argparse.Namespace) -> int:
    runs, now = export.recorded(arguments.openmetrics), datetime.now(UTC)
    start = arguments.start or datetime.fromtimestamp(export.default_start(runs, now.timestamp()), UTC)
    length = max(run.length for run in runs)
    if start.timestamp() < 0 or start.timestamp() + length > now.timestamp():
        fault = f"{start.isoformat()} and {show_duration(length)} of emulated time do not lie in the past"
        raise ScenarioError([Fault("--start", 1, "start", fault)])
    path = arguments.output
    try:
        with nullcontext(sys.stdout) if path is None else path.open("w", encoding="utf-8", newline="\n") as file:
            export.write(runs, start.timestamp(), file)
    except OSError as error:
        raise RunError(f"{path or 'stdout'} cannot be written: {error.strerror}") from error
    what, end = runs[0].label if len(runs) == 1 else f"{len(runs)} runs", start + timedelta(seconds=length)
    _tell(f"fedemu: {what}: {show_duration(length)} of emulated time, from {start.isoformat()} to {end.isoformat()}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    plan = _load(arguments, None, arguments.transport)
    agreement = verify.verify(
        _only(plan, arguments, "compared"),
        watch=lambda cell: _watched(cell, arguments),
        announce=lambda text: None if arguments.quiet else _tell(f"fedemu: {text}"),
        out=arguments.out,
        question=plan.question,
    )
    _say(verify.as_text(agreement))
    return 0 if agreement.is_any else 1


def _only(plan: Experiment, arguments: argparse.Namespace, done: str) -> Cell:
    """Return the cell of a scenario that is no grid."""
    if plan.is_grid:
        fault = f"{len(plan.cells)} runs cannot be {done} at once; write a file without matrix and repeat"
        raise ScenarioError([Fault(arguments.scenario, 1, "matrix", fault)])
    return plan.cells[0]


def _serve(arguments: argparse.Namespace) -> int:
    if arguments.clock == "virtual":
        fault = "'virtual' cannot be served: clients elsewhere wait for real"
        raise ScenarioError([Fault("--clock", 1, "clock", fault)])
    if arguments.transport not in (None, "grpc"):
        fault = f"{arguments.transport!r} does not reach clients elsewhere; --listen takes unix:PATH"
        raise ScenarioError([Fault("--transport", 1, "transport", fault)])
    said = _load(arguments, None, None).cells[0].resolved
    for written, answer in (("clock", "real"), ("transport", "grpc")):
        if getattr(arguments, written) is None and said.get(written, answer) != answer:
            fault = f"{said[written]!r} cannot be served; leave it out, or say --clock real --transport grpc"
            raise ScenarioError([Fault(arguments.scenario, 1, written, fault)])
    if "availability" in said or any("availability" in group for group in said["clients"].values()):
        fault = "clients elsewhere come and go by themselves; leave it out, or use run"
        raise ScenarioError([Fault(arguments.scenario, 1, "availability", fault)])
    plan = _load(arguments, "real", "grpc")
    cell = _only(plan, arguments, "served")
    listen, slots = arguments.listen, cell.scenario.slots
    clients = slots if arguments.enrol is None else dict.fromkeys(slots)
    tls, tokens, opened = guard.of_server(
        listen, _certificates(arguments), arguments.tokens, clients, insecure=arguments.insecure
    )
    if opened:
        _tell(f"fedemu: --insecure: {listen} is open to other machines: {opened}")
    if arguments.enrol is not None:
        counts = enrolment.counts_of(arguments.out) if arguments.resume else None
        if counts is None:
            listen, counts = enrolment.enrol(
                listen,
                list(slots),
                quiet=arguments.enrol,
                tls=tls,
                tokens=tokens,
                announce=lambda text: _tell(f"fedemu: {text}"),
            )
        arguments.set += enrolment.settings(counts)
        plan = _load(arguments, "real", "grpc")
        cell = _only(plan, arguments, "served")
    found = campaign.finished(plan, arguments.out) if arguments.resume else {}
    if cell.path in found:
        _tell(f"fedemu: {arguments.out}: the run is over")
        _say(summary.of_run(found[cell.path]))
        return 0
    with experiment.workers(cell.scenario) as compute, _watched(cell, arguments) as observers:
        result = experiment.run(
            cell,
            compute,
            observers=observers,
            out=arguments.out,
            question=plan.question,
            listen=listen,
            tls=tls,
            tokens=tokens,
            announce=lambda text: _tell(f"fedemu: {text}"),
            resume=arguments.resume,
        )
        _say(summary.of_run(result))
    return 0


def _certificates(arguments: argparse.Namespace) -> guard.Certificates:
    return guard.Certificates(arguments.tls_cert, arguments.tls_key, arguments.tls_ca)


def _join(arguments: argparse.Namespace) -> int:
    tls, token = guard.of_client(
        arguments.server,
        _certificates(arguments),
        arguments.token or os.environ.get("FEDEMU_TOKEN", ""),
        insecure=arguments.insecure,
    )
    with ExitStack() as stack:

        def observe(scenario: Scenario) -> Sequence[Observer]:
            return (
                []
                if arguments.metrics_port is None
                else [stack.enter_context(_metrics(scenario, scenario.name, arguments))]
            )

        guest.join(
            arguments.server,
            arguments.group,
            arguments.slot,
            tls=tls,
            token=token,
            allow=arguments.allow,
            memory=arguments.memory,
            kernel=arguments.kernel,
            observe=observe,
            announce=lambda text: _tell(f"fedemu: {text}"),
        )
    return 0


def _certs(arguments: argparse.Namespace) -> int:
    clients = None
    if arguments.scenario is not None:
        clients = _only(load(arguments.scenario, arguments.set), arguments, "served").scenario.slots
    elif arguments.set:
        raise ScenarioError([Fault("--set", 1, "set", "no meaning without --tokens")])
    for path in certs.write(arguments.folder, hosts=arguments.host, days=arguments.days, clients=clients):
        _say(str(path))
    return 0


def _tc(arguments: argparse.Namespace) -> int:
    scenario = _only(load(arguments.scenario, arguments.set), arguments, "shaped").scenario
    commands = tc.commands(scenario, arguments.group, arguments.device, file=arguments.scenario)
    for note in tc.left_out(scenario.clients[arguments.group].link):
        _say(f"# {note}")
    for command in commands:
        _say(str(command))
    for words in tc.undoing(commands):
        _say(f"# undo: {shlex.join(words)}")
    return 0


def _proxy(arguments: argparse.Namespace) -> int:
    Service(
        listen=arguments.listen,
        upstream=arguments.upstream,
        link=link.load(arguments.link),
        seed=arguments.seed,
        shared=arguments.shared,
        control=arguments.control,
        metrics_port=arguments.metrics_port,
        announce=lambda text: _tell(f"fedemu: {text}"),
    ).run()
    return 130  # nothing else ends it


@contextmanager
def _watched(cell: Cell, arguments: argparse.Namespace, *, silent: bool = False) -> Iterator[list[Observer]]:
    """Give the observers that the arguments ask for; stay a while with the metrics after the run."""
    stop = cell.scenario.stop
    with ExitStack() as stack:
        observers: list[Observer] = []
        if arguments.metrics_port is not None:
            label = "/".join(filter(None, (cell.scenario.name, cell.path)))
            observers.append(stack.enter_context(_metrics(cell.scenario, label, arguments)))
        if not arguments.quiet and not silent:
            observers.append(stack.enter_context(Console(rounds=stop.rounds, target=stop.accuracy)))
        yield observers
        if arguments.metrics_port is not None:
            threading.Event().wait(arguments.linger)


@contextmanager
def _metrics(scenario: Scenario, run: str, arguments: argparse.Namespace) -> Iterator[Metrics]:
    metrics = Metrics(run=run, clock=scenario.clock, target=scenario.stop.accuracy)
    with metrics.serve(arguments.metrics_port) as port:
        _tell(f"fedemu: metrics at http://localhost:{port}/metrics")
        yield metrics


def _check(arguments: argparse.Namespace) -> int:
    status = 0
    for path in arguments.scenarios:
        try:
            runs = len(load(path).cells)
        except ScenarioError as error:
            _say(str(error))
            status = 2
        else:
            _tell(f"{path}: no faults, {runs} {'run' if runs == 1 else 'runs'}")
    return status


def _kinds(arguments: argparse.Namespace) -> int:
    rooms = [arguments.room] if arguments.room else [*ROOMS, "presets"]
    _say("\n\n".join("\n".join([room, *_paragraphs(room)]) for room in rooms))
    return 0


def _paragraphs(room: str) -> Iterator[str]:
    if room == "presets":
        for name, preset in PRESETS.items():
            yield f"  {name:<14} {_flow(preset.link)}\n      source: {preset.source}"
    else:
        yield from map(_paragraph, describe(room))


def _flow(value: object) -> str:
    """Write a mapping as YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return str(value)


def _paragraph(kind: Description) -> str:
    lines = [f"  {kind.kind:<14} {kind.about}"]
    for name, unit, default, about in kind.parameters:
        value = "required" if default is None else f"default {default}"
        lines.append(f"      {name}: {unit}, {value}{'; ' if about else ''}{about}")
    return "\n".join(lines)


def _schema(_: argparse.Namespace) -> int:
    _say(json.dumps(schema(), indent=2))
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
