"""What each command does: arguments in, an exit status out."""

import argparse
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

from fedemu import (
    campaign,
    certs,
    comparison,
    enrolment,
    experiment,
    export,
    guard,
    guest,
    recovery,
    replay,
    summary,
    tc,
    verify,
)
from fedemu.errors import Fault, RunError, ScenarioError
from fedemu.events import Observer
from fedemu.observers.console import Console
from fedemu.observers.prometheus import Metrics
from fedemu.proxying import link
from fedemu.proxying.service import Service
from fedemu.registry import ROOMS, Description, describe
from fedemu.scenario import Cell, Experiment, Scenario, load, schema
from fedemu.scenario.presets import PRESETS
from fedemu.units import show_duration


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


def run_command(arguments: argparse.Namespace) -> int:
    """Run a scenario, or every cell of its matrix."""
    plan = _load(arguments, arguments.clock, arguments.transport)

    def progress(run: campaign.Progress) -> None:
        if not plan.is_grid:
            say(summary.of_run(run.result))
        elif not arguments.quiet:
            how = "there already" if run.is_old else f"{run.result['emulated_seconds']:.3f} s emulated"
            tell(f"[{run.number}/{len(plan.cells)}] {run.cell.path}: {how}")

    runs = campaign.run(
        plan,
        out=arguments.out,
        jobs=arguments.jobs,
        resume=arguments.resume,
        watch=lambda cell: _watched(cell, arguments, silent=plan.is_grid),
        tell=progress,
        announce=lambda text: tell(f"fedemu: {text}"),
    )
    if plan.is_grid:
        say(comparison.as_text(comparison.compared(runs)))
    return 0


def replay_command(arguments: argparse.Namespace) -> int:
    """Run recorded runs again; 1 if one differs."""
    recordings = replay.recordings(arguments.folder, transport=arguments.transport)
    status = 0
    with experiment.workers_for(recording.cell.scenario for recording in recordings) as compute:
        for recording in recordings:
            with _watched(recording.cell, arguments, silent=len(recordings) > 1) as observers:
                verdict = replay.replay(recording, compute, observers=observers)
            say(verdict.text)
            status = status if verdict.identical else 1
    return status


def export_command(arguments: argparse.Namespace) -> int:
    """Write recorded runs as OpenMetrics."""
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
    tell(f"fedemu: {what}: {show_duration(length)} of emulated time, from {start.isoformat()} to {end.isoformat()}")
    return 0


def verify_command(arguments: argparse.Namespace) -> int:
    """Compare a scenario on both clocks; 1 if nothing could be compared."""
    plan = _load(arguments, None, arguments.transport)
    agreement = verify.verify(
        _only(plan, arguments, "compared"),
        watch=lambda cell: _watched(cell, arguments),
        announce=lambda text: None if arguments.quiet else tell(f"fedemu: {text}"),
        out=arguments.out,
        question=plan.question,
    )
    say(verify.as_text(agreement))
    return 0 if agreement.is_any else 1


def _only(plan: Experiment, arguments: argparse.Namespace, done: str) -> Cell:
    """Return the cell of a scenario that is no grid."""
    if plan.is_grid:
        fault = f"{len(plan.cells)} runs cannot be {done} at once; write a file without matrix and repeat"
        raise ScenarioError([Fault(arguments.scenario, 1, "matrix", fault)])
    return plan.cells[0]


def serve_command(arguments: argparse.Namespace) -> int:
    """Run a scenario's server, for clients in other processes."""
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
        tell(f"fedemu: --insecure: {listen} is open to other machines: {opened}")
    has_begun = arguments.resume and recovery.has_begun(arguments.out)
    if arguments.enrol is not None:
        counts = enrolment.counts_of(arguments.out) if has_begun else None
        if counts is None:
            listen, counts = enrolment.enrol(
                listen,
                list(slots),
                quiet=arguments.enrol,
                tls=tls,
                tokens=tokens,
                announce=lambda text: tell(f"fedemu: {text}"),
            )
        arguments.set += enrolment.settings(counts)
        plan = _load(arguments, "real", "grpc")
        cell = _only(plan, arguments, "served")
    is_new = arguments.resume and not has_begun and (arguments.out / "scenario.yaml").exists()
    found = campaign.finished(plan, arguments.out) if arguments.resume and not is_new else {}
    if cell.path in found:
        tell(f"fedemu: {arguments.out}: the run is over")
        say(summary.of_run(found[cell.path]))
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
            announce=lambda text: tell(f"fedemu: {text}"),
            resume=arguments.resume,
        )
        say(summary.of_run(result))
    return 0


def _certificates(arguments: argparse.Namespace) -> guard.Certificates:
    return guard.Certificates(arguments.tls_cert, arguments.tls_key, arguments.tls_ca)


def join_command(arguments: argparse.Namespace) -> int:
    """Take part in a served run as one client."""
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
            announce=lambda text: tell(f"fedemu: {text}"),
        )
    return 0


def certs_command(arguments: argparse.Namespace) -> int:
    """Write certificates and tokens."""
    clients = None
    if arguments.scenario is not None:
        clients = _only(load(arguments.scenario, arguments.set), arguments, "served").scenario.slots
    elif arguments.set:
        raise ScenarioError([Fault("--set", 1, "set", "no meaning without --tokens")])
    for path in certs.write(arguments.folder, hosts=arguments.host, days=arguments.days, clients=clients):
        say(str(path))
    return 0


def tc_command(arguments: argparse.Namespace) -> int:
    """Print a link as `tc` commands."""
    scenario = _only(load(arguments.scenario, arguments.set), arguments, "shaped").scenario
    commands = tc.commands(scenario, arguments.group, arguments.device, file=arguments.scenario)
    for note in tc.left_out(scenario.clients[arguments.group].link):
        say(f"# {note}")
    for command in commands:
        say(str(command))
    for words in tc.undoing(commands):
        say(f"# undo: {shlex.join(words)}")
    return 0


def proxy_command(arguments: argparse.Namespace) -> int:
    """Put a link in front of a TCP service, until it is interrupted."""
    Service(
        listen=arguments.listen,
        upstream=arguments.upstream,
        link=link.load(arguments.link),
        seed=arguments.seed,
        shared=arguments.shared,
        control=arguments.control,
        metrics_port=arguments.metrics_port,
        announce=lambda text: tell(f"fedemu: {text}"),
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
        tell(f"fedemu: metrics at http://localhost:{port}/metrics")
        yield metrics


def check_command(arguments: argparse.Namespace) -> int:
    """Report the faults of scenarios; 2 if there are any."""
    status = 0
    for path in arguments.scenarios:
        try:
            runs = len(load(path).cells)
        except ScenarioError as error:
            say(str(error))
            status = 2
        else:
            tell(f"{path}: no faults, {runs} {'run' if runs == 1 else 'runs'}")
    return status


def kinds_command(arguments: argparse.Namespace) -> int:
    """List every kind of one room or of all."""
    rooms = [arguments.room] if arguments.room else [*ROOMS, "presets"]
    say("\n\n".join("\n".join([room, *_paragraphs(room)]) for room in rooms))
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


def schema_command(_: argparse.Namespace) -> int:
    """Print the JSON Schema of scenario files."""
    say(json.dumps(schema(), indent=2))
    return 0


def say(text: str) -> None:
    """Write a line that was asked for, to stdout."""
    sys.stdout.write(f"{text}\n")


def tell(text: str) -> None:
    """Write a line for people, to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
