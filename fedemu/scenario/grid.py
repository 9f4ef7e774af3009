"""The grid of a scenario: its axes and repeats, spread into cells, each checked on its own."""

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fedemu.errors import Fault
from fedemu.keys import Loc, Wrong, instead, worded
from fedemu.scenario.sections import Scenario
from fedemu.scenario.source import Place, Source


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a point of the grid with one seed."""

    values: Mapping[str, str]
    """Axis to value, as text; empty without a matrix."""
    seed: int
    scenario: Scenario
    resolved: Mapping[str, Any]
    """The mapping that `parse` makes this scenario of; it can go through YAML and JSON."""
    path: str
    """`key=value,.../seed-N`: the run directory below that of the experiment; empty where there is but one run."""


def locate(key: str) -> Loc:
    """Return where a dotted key points; the axes of a matrix are dotted keys themselves."""
    first, _, rest = key.partition(".")
    return (first, rest) if first == "matrix" and rest else tuple(key.split("."))


def put(source: Source, key: str, value: Any, place: Place) -> tuple[Source, list[Fault]]:
    """Return the source with the value at a dotted key, and why it cannot go there."""
    loc = locate(key)
    groups = source.tree.get("clients")
    text = None
    if not all(loc):
        text = f"{key!r} is not a dotted key; write e.g. rounds.deadline"
    elif loc[0] == "clients" and len(loc) > 2 and isinstance(groups, dict) and loc[1] not in groups:
        text = f"{loc[1]!r} is not a group; {instead(str(loc[1]), groups)}"
    else:
        try:
            return source.put(loc, value, place), []
        except TypeError as error:
            text = str(error)
    return source, [Fault(place.file, place.line, key, text)]


def validated(source: Source) -> tuple[Scenario | None, list[Wrong]]:
    """Return the scenario, or else everything that is wrong with it."""
    try:
        return Scenario.model_validate(source.tree), []
    except ValidationError as error:
        return None, [worded(e, source.tree) for e in error.errors()]


def fault_of(source: Source, wrong: Wrong) -> Fault:
    """Return what is wrong with the place where it was written."""
    loc = wrong.loc if wrong.kind == "missing" else source.known(wrong.loc)
    return Fault(*source.place(wrong.loc), ".".join(map(str, loc)) or "scenario", wrong.text)


def spread(source: Source) -> tuple[list[Cell], list[Fault]]:
    """Return every run of the grid, or every fault of every cell."""
    base, wrong = validated(source)
    axes: dict[str, list[Any]] = source.tree.get("matrix", {})
    if any(w.loc[:1] in (("matrix",), ("repeat",)) for w in wrong):
        return [], [fault_of(source, w) for w in wrong]
    if axes:
        wrong = [w for w in wrong if not any(_settles(locate(axis), w) for axis in axes)]
        faults = [fault for axis, values in axes.items() for fault in _axis_faults(source, axis, values)]
        # a mistyped key is told on its own: with it, the axes might reach into nothing
        if faults or any(w.kind == "key" for w in wrong):
            return [], faults + [fault_of(source, w) for w in wrong]
    elif base is None:
        return [], [fault_of(source, w) for w in wrong]
    repeat, is_grid = source.tree.get("repeat", 1), "matrix" in source.tree or "repeat" in source.tree
    cells, found = list[Cell](), dict[Fault, None]()
    for point in itertools.product(*axes.values()):
        here, faults = _at(source, dict(zip(axes, point, strict=True)))
        scenario, wrong = validated(here)
        found.update(dict.fromkeys([*faults, *(fault_of(here, w) for w in wrong)]))
        if scenario is None:
            continue
        values = {axis: _text(value) for axis, value in zip(axes, point, strict=True)}
        for seed in range(scenario.seed, scenario.seed + repeat):
            head = {"name": scenario.name, "seed": seed}
            resolved = {**head, **{k: v for k, v in here.tree.items() if k not in head}}
            path = "/".join(filter(None, (_directory(values), f"seed-{seed}"))) if is_grid else ""
            cells.append(Cell(values, seed, scenario.model_copy(update={"seed": seed}), resolved, path))
    return cells, list(found)


def _settles(axis: Loc, wrong: Wrong) -> bool:
    """Tell whether an axis may mend what is wrong: it replaces it, or puts there what is missing."""
    inside = wrong.loc[: len(axis)] == axis
    return inside or (wrong.kind != "key" and axis[: len(wrong.loc)] == wrong.loc)


def _axis_faults(source: Source, axis: str, values: Sequence[Any]) -> Iterator[Fault]:
    place = source.place(("matrix", axis))
    if axis in ("matrix", "repeat"):
        yield Fault(*place, f"matrix.{axis}", f"{axis!r} cannot be an axis")
        return
    texts = [_text(value) for value in values]
    for text in dict.fromkeys(text for text in texts if texts.count(text) > 1):
        yield Fault(*place, f"matrix.{axis}", f"{text} stands on this axis twice")
    yield from put(source, axis, values[0], place)[1]


def _at(source: Source, point: Mapping[str, Any]) -> tuple[Source, list[Fault]]:
    """Return the source at a point of the grid, with the axes that reach inside others put last."""
    tree = {key: value for key, value in source.tree.items() if key not in ("matrix", "repeat")}
    here, faults = Source(tree, source.places), list[Fault]()
    for axis in sorted(point, key=lambda axis: len(locate(axis))):
        here, wrong = put(here, axis, point[axis], source.place(("matrix", axis)))
        faults += wrong
    return here, faults


_UNSAFE = re.compile(r"[^\w.%+-]+")


def _text(value: Any) -> str:
    """Return a value as it is written in a scenario, on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _directory(values: Mapping[str, str]) -> str:
    """Return `key=value,...` as the name of a directory: what a name cannot have becomes a dash."""
    name = ",".join(f"{axis}={_UNSAFE.sub('-', text.strip('{}'))}" for axis, text in values.items())
    if len(name.encode()) <= 200:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name.encode()[:180].decode(errors='ignore')}~{digest}"  # file systems take 255 bytes
