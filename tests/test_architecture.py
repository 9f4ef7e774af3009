"""The house's arrows never point up: every import of every module, checked against the table below."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedemu

ROOT = Path(fedemu.__file__).parent

LAYERS = {
    "nouns": "types errors events rng units",
    "rooms": "datasets partitioners models strategies selectors codecs links devices availabilities",
    "wire": "clock loop compute net client attendance sessions packing tokens hello server rounds",
    "views": "observers summary comparison",
    "assembly": "registry keys scenario learning wiring world durable checkpoint journal recovery experiment campaign"
    " guest replay verify export certs guard enrolment shelf proxying tc shaping",
    "door": "cli commands __init__ __main__",
}
"""Where each part of the house stands. A new one needs a place here."""

ARROWS = {
    "nouns": {"nouns"},
    "rooms": {"nouns"},
    "wire": {"nouns", "wire"},
    "views": {"nouns"},
    "assembly": {"nouns", "rooms", "wire", "views", "assembly"},
    "door": {"nouns", "rooms", "wire", "views", "assembly", "door"},
}
"""What each layer may import. A part may also import what is its own; and time and wire may import of a room what its
kinds share, the modules with an underscore."""

NOT_OUTSIDE = {
    "nouns": {"asyncio", "logging", "socket", "threading", "time"},
    "rooms": {"asyncio", "logging", "socket", "threading", "time"},
}
"""Modules of others that a layer has no business with."""

TELLS_TIME = {"clock", "loop"}
READS_WALL_SECONDS = {"experiment"}
"""`wall_seconds` of a result are real, whatever the clock."""

PLACE = {part: layer for layer, parts in LAYERS.items() for part in parts.split()}
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path
    for path in sorted(ROOT.rglob("*.py"))
    if "_pb" not in path.parts
}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of every module that is imported, or of what is imported of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not for us"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def crossings(module: str, source: str) -> list[str]:
    """Return what the source of a module (its name without `fedemu.`) does that its place does not allow."""
    part = module.partition(".")[0]
    layer, tree = PLACE[part], ast.parse(source)
    found = []
    for name in imports(tree):
        first, _, rest = name.partition(".")
        if first != "fedemu":
            banned = NOT_OUTSIDE.get(layer, set()) | (set() if part in TELLS_TIME | READS_WALL_SECONDS else {"time"})
            found += [f"{module} imports {name}"] if first in banned else []
            continue
        other, _, inner = rest.partition(".")
        if other not in PLACE:  # of the package itself: __version__
            allowed = layer in ("assembly", "door")
        elif layer == "wire" and PLACE[other] == "rooms":
            allowed = inner.startswith("_")
        else:
            allowed = other == part or PLACE[other] in ARROWS[layer]
        found += [] if allowed else [f"{module} imports {name}"]
    if part not in TELLS_TIME:
        found += [
            f"{module} sleeps in line {node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "sleep"
        ]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_import_crosses_a_layer(module: str) -> None:
    """One test a module, so that a failure names it."""
    assert crossings(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    """A docstring whose first line is a sentence."""
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text()))
    assert docstring, module
    assert docstring.splitlines()[0].endswith((".", ":"))


def test_every_part_of_the_house_has_one_place() -> None:
    """And every place has its part, but for the doors that may not be there yet."""
    parts = {module.partition(".")[0] for module in MODULES}
    assert parts - PLACE.keys() == set()
    assert PLACE.keys() - parts <= {"__main__"}
    assert sum(len(names.split()) for names in LAYERS.values()) == len(PLACE)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("types", "from fedemu.clock import Clock"),
        ("events", "import time"),
        ("links.delay", "import asyncio"),
        ("links.delay", "from fedemu.devices._base import Device"),
        ("models.lenet", "from fedemu.registry import find"),
        ("partitioners.iid", "def f():\n    import logging.handlers"),
        ("client", "from fedemu.strategies.fedavg import fedavg"),
        ("client", "from fedemu import experiment"),
        ("net.grpc", "from fedemu.observers.jsonl import JsonLines"),
        ("net.grpc", "from time import sleep"),
        ("rounds", "import asyncio\nasync def f():\n    await asyncio.sleep(1)"),
        ("observers.console", "from fedemu.experiment import run"),
        ("observers.console", "import fedemu.rounds"),
        ("server", "from fedemu import __version__"),
        ("experiment", "from fedemu.cli import main"),
        ("world", "import time"),
    ],
)
def test_the_check_finds_a_planted_crossing(module: str, source: str) -> None:
    """Each layer once at least, and each way to import."""
    assert len(crossings(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("links.delay", "import math\nfrom fedemu.links._base import Stage\nfrom fedemu.units import Duration"),
        ("client", "import asyncio\nfrom fedemu.devices._base import Device\nfrom fedemu.net.calls import call"),
        ("clock", "import asyncio, time\nasync def f():\n    await asyncio.sleep(1)"),
        ("experiment", "import time\nfrom fedemu import __version__\nfrom fedemu.observers.jsonl import JsonLines"),
        ("observers.prometheus", "import prometheus_client\nfrom fedemu.events import Event"),
    ],
)
def test_the_check_lets_what_is_allowed_pass(module: str, source: str) -> None:
    """Own room, shared pieces, nouns, other people's libraries."""
    assert crossings(module, source) == []
