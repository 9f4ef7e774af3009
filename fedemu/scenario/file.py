"""A scenario file and the runs that it describes: read, overridden, spread into cells, checked to the last one.

`load` reads a file; each of its cells has a frozen `Scenario` and the resolved mapping that gives the same run again.
Everything that is wrong is found before anything runs, and told at once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedemu.errors import Fault, ScenarioError
from fedemu.keys import Loc, shown
from fedemu.registry import is_foreign
from fedemu.scenario.grid import GRID, Cell, fault_of, locate, put, spread, validated
from fedemu.scenario.sections import Scenario
from fedemu.scenario.source import Place, Source, anchored, first_comment, read, read_value, write


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a scenario file describes: a question and the runs that answer it."""

    name: str
    question: str
    """First comment line; empty where there is none."""
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def is_grid(self) -> bool:
        """Tell whether the runs have directories of their own."""
        return bool(self.cells[0].path)


def load(
    path: str | Path,
    sets: Iterable[tuple[str, str]] = (),
    *,
    seed: int | None = None,
    clock: str | None = None,
    transport: str | None = None,
) -> Experiment:
    """Read a scenario file.

    Args:
        path: The file.
        sets: Dotted keys and their values as YAML, which replace what the file says.
        seed: Replaces the file's, as do clock and transport.
        clock: virtual or real.
        transport: memory or grpc.

    Raises:
        ScenarioError: with every fault of the file, the replacements and the cells.
    """
    file = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ScenarioError([Fault(file, 1, "scenario", f"cannot be read: {reason}")]) from error
    source, faults = read(text, file)
    if not source.tree and faults:
        raise ScenarioError(faults)
    source = Source(anchored(source.tree, Path(path).parent), source.places)
    if "name" not in source.tree:
        source = source.put(("name",), Path(path).stem, Place(file, 1))
    options = [(f"--{key}", key, value) for key, value in (("seed", seed), ("clock", clock), ("transport", transport))]
    replaced = [(option, key, value) for option, key, value in options if value is not None]
    for key, value_text in sets:
        value, wrong = read_value(value_text, "--set", key)
        value = anchored(value, Path(), key.rpartition(".")[2])  # as on any command line
        faults += wrong
        if not wrong:
            replaced.append(("--set", key, value))
    for option, key, value in replaced:
        source, wrong = put(source, key, value, Place(option, 1))
        faults += wrong
    faults += _overruled(source, replaced)
    cells, wrong = spread(source)
    # a value that is no YAML is also no value; the first fault of a key is the one that says why
    spoken = {(f.file, f.line, f.key) for f in faults}
    faults += [fault for fault in wrong if (fault.file, fault.line, fault.key) not in spoken]
    if faults:
        raise ScenarioError(sorted(dict.fromkeys(faults), key=lambda fault: (fault.file, fault.line)))
    axes = tuple(source.tree.get("matrix", ()))
    return Experiment(cells[0].scenario.name, first_comment(text), axes, tuple(cells))


def parse(mapping: Mapping[str, Any], file: str = "scenario") -> Scenario:
    """Return the scenario that a cell's resolved mapping describes.

    Raises:
        ScenarioError: the mapping is no such scenario.
    """
    source = Source.at(Place(file, 1), mapping)
    scenario, wrong = validated(source)
    faults = [fault_of(source, w) for w in wrong]
    faults += [
        Fault(file, 1, key, "no place in a single run; resolve it to cells first") for key in GRID if key in mapping
    ]
    if faults or scenario is None:
        raise ScenarioError(faults)
    return scenario


def as_yaml(cell: Cell, question: str) -> str:
    """Return the scenario file of a single cell: running it gives the same run."""
    return write(cell.resolved, question)


def differences(text: str, cell: Cell) -> list[str]:
    """Return where the scenario file of a single cell differs from that of `cell`, in words."""
    source, faults = read(text, "scenario.yaml")
    return ["it cannot be read"] if faults else list(_differences((), source.tree, cell.resolved))


def _differences(loc: Loc, there: Any, here: Any) -> Iterator[str]:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*there, *here]):
            yield from _differences((*loc, key), there.get(key), here.get(key))
    elif there != here:
        was, now = ("nothing" if value is None else shown(value) for value in (there, here))
        yield f"{'.'.join(map(str, loc))} was {was} and is {now}"


def foreign(mapping: Any) -> set[str]:
    """Return the modules that a resolved mapping names as `package.module:builder`, without importing any."""
    if isinstance(mapping, list):
        return set().union(*map(foreign, mapping))
    if not isinstance(mapping, Mapping):
        return set()
    kind = mapping.get("kind")
    own = {kind.partition(":")[0]} if isinstance(kind, str) and is_foreign(kind) else set()
    return own.union(*map(foreign, mapping.values()))


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a scenario file."""
    result = Scenario.model_json_schema()
    result["required"].remove("name")  # a file without one is named after itself
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **result, "title": "fedemu scenario"}


def _overruled(source: Source, replaced: Iterable[tuple[str, str, Any]]) -> Iterator[Fault]:
    """Yield the replacements that an axis of the matrix or a variant would undo."""
    axes, variants = source.tree.get("matrix"), source.tree.get("variants")
    undoing = [(axis, f"the matrix sets {axis}; set matrix.{axis}") for axis in axes] if isinstance(axes, dict) else []
    for name, bundle in variants.items() if isinstance(variants, dict) else ():
        for change in bundle if isinstance(bundle, dict) else ():
            undoing += [(change, f"variant {name} sets {change}; set variants.{name}.{change}")]
    for option, key, _ in replaced:
        for change, why in undoing:
            if locate(key)[: len(locate(str(change)))] == locate(str(change)):
                yield Fault(option, 1, key, f"no meaning, as {why} instead")
