"""The command line: arguments in, an exit status out."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fedemu.errors import ScenarioError
from fedemu.registry import ROOMS, Description, describe
from fedemu.scenario import load, schema


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 a failed run, 2 a faulty scenario or faulty arguments."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a kind may be package.module:builder, in a file beside the scenario's author
    arguments = _arguments().parse_args(argv)
    status: int = arguments.command(arguments)
    return status


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedemu", description="Federated learning over networks that misbehave: how long does it take to learn?"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = commands.add_parser("check", help="report every fault of scenarios as file:line: key: fault")
    check.add_argument("scenarios", nargs="+", metavar="SCENARIO", help="scenario file (YAML)")
    check.set_defaults(command=_check)

    kinds = commands.add_parser("kinds", help="list every kind with its parameters, units and defaults")
    kinds.add_argument("room", nargs="?", choices=sorted(ROOMS), metavar="ROOM", help=f"one of {', '.join(ROOMS)}")
    kinds.set_defaults(command=_kinds)

    commands.add_parser("schema", help="print the JSON Schema of scenario files").set_defaults(command=_schema)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    status = 0
    for path in arguments.scenarios:
        try:
            runs = len(load(path).cells)
        except ScenarioError as error:
            _say(str(error))
            status = 2
        else:
            sys.stderr.write(f"{path}: no faults, {runs} {'run' if runs == 1 else 'runs'}\n")
    return status


def _kinds(arguments: argparse.Namespace) -> int:
    rooms = [arguments.room] if arguments.room else ROOMS
    _say("\n\n".join("\n".join([room, *(_paragraph(kind) for kind in describe(room))]) for room in rooms))
    return 0


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
