"""The grid of a scenario: its variants, axes and repeats, spread into cells, each checked on its own."""

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from fedemu.errors import Fault
from fedemu.keys import Loc, Wrong, instead, worded
from fedemu.scenario.homes import homes_of
from fedemu.scenario.sections import Scenario
from fedemu.scenario.source import Place, Source


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a point of the grid with one seed."""

    variant: str
    """Empty without variants."""
    values: Mapping[str, str]
    """Axis to value, as text; empty without a matrix."""
    seed: int
    scenario: Scenario
    resolved: Mapping[str, Any]
    """The mapping that `parse` makes this scenario of; it can go through YAML and JSON."""
    path: str
    """`variant/key=value,.../seed-N`: the run directory below that of the experiment; empty where there is but one."""


def locate(key: str) -> Loc:
    """Return where a dotted key points; the axes of a matrix and the keys of a variant are dotted keys themselves."""
    first, _, rest = key.partition(".")
    if first == "matrix" and rest:
        return first, rest
    if first == "variants" and rest:
        return first, *rest.split(".", 1)
    return tuple(key.split("."))


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
    homes = homes_of(str(loc[-1])) if wrong.kind == "key" and loc and loc[-1] != "kind" else []
    text = f"{loc[-1]!r} is not a key here, but of {' or '.join(homes)}" if homes else wrong.text
    return Fault(*source.place(wrong.loc), ".".join(map(str, loc)) or "scenario", text)


GRID = ("variants", "matrix", "repeat")
"""Keys that make a grid of a scenario, and that no cell has."""


def spread(source: Source) -> tuple[list[Cell], list[Fault]]:
    """Return every run of the grid, or every fault of every cell."""
    base, wrong = validated(source)
    if any(w.loc[:1] in {(key,) for key in GRID} for w in wrong):
        return [], [fault_of(source, w) for w in wrong]
    axes: dict[str, list[Any]] = source.tree.get("matrix", {})
    variants: dict[str, dict[str, Any]] = source.tree.get("variants", {"": {}})
    changes = [*axes, *dict.fromkeys(key for bundle in variants.values() for key in bundle)]
    if changes:
        wrong = [w for w in wrong if not any(_settles(locate(change), w) for change in changes)]
        faults = [fault for axis, values in axes.items() for fault in _axis_faults(source, axis, values)]
        for one, other in itertools.combinations([_Change(("matrix", axis), axis, axes[axis]) for axis in axes], 2):
            if _both_set(one, other):
                faults.append(other.fault(source, f"sets what {one.name} sets; put it in one of the two"))
        faults += [fault for variant in variants for fault in _variant_faults(source, variant, variants[variant], axes)]
        # a mistyped key is told on its own: with it, the changes might reach into nothing
        if faults or any(w.kind == "key" for w in wrong):
            return [], faults + [fault_of(source, w) for w in wrong]
    elif base is None:
        return [], [fault_of(source, w) for w in wrong]
    repeat, is_grid = source.tree.get("repeat", 1), any(key in source.tree for key in GRID)
    cells, found = list[Cell](), dict[Fault, None]()
    for variant, point in itertools.product(variants, itertools.product(*axes.values())):
        here, faults = _at(source, variant, variants[variant], dict(zip(axes, point, strict=True)))
        scenario, wrong = validated(here)
        found.update(dict.fromkeys([*faults, *(fault_of(here, w) for w in wrong)]))
        if scenario is None:
            continue
        values = {axis: _text(value) for axis, value in zip(axes, point, strict=True)}
        for seed in range(scenario.seed, scenario.seed + repeat):
            head = {"name": scenario.name, "seed": seed}
            resolved = {**head, **{k: v for k, v in here.tree.items() if k not in head}}
            path = "/".join(filter(None, (variant, _directory(values), f"seed-{seed}"))) if is_grid else ""
            cells.append(Cell(variant, values, seed, scenario.model_copy(update={"seed": seed}), resolved, path))
    return cells, list(found)


def _settles(change: Loc, wrong: Wrong) -> bool:
    """Tell whether a change may mend what is wrong: it replaces it, or puts there what is missing."""
    common = min(len(change), len(wrong.loc))
    return wrong.kind != "key" and change[:common] == wrong.loc[:common]


def _axis_faults(source: Source, axis: str, values: Sequence[Any]) -> Iterator[Fault]:
    place = source.place(("matrix", axis))
    if axis in GRID:
        yield Fault(*place, f"matrix.{axis}", f"{axis!r} cannot be an axis")
        return
    if axis == "seed" and "repeat" in source.tree:
        yield Fault(*place, "matrix.seed", "repeat counts seeds up itself; leave out one of the two")
    texts = [_text(value) for value in values]
    for text in dict.fromkeys(text for text in texts if texts.count(text) > 1):
        yield Fault(*place, f"matrix.{axis}", f"{text} stands on this axis twice")
    yield from put(source, axis, values[0], place)[1]


def _variant_faults(
    source: Source, variant: str, bundle: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]
) -> Iterator[Fault]:
    changes = [_Change(("variants", variant, key), key, [value]) for key, value in bundle.items()]
    for change in changes:
        if locate(change.key)[0] in GRID:
            yield change.fault(source, f"{change.key!r} cannot stand in a variant")
    others = [_Change(("matrix", axis), axis, values) for axis, values in axes.items()]
    for one, other in (*itertools.combinations(changes, 2), *itertools.product(changes, others)):
        if _both_set(one, other):
            yield one.fault(source, f"sets what {other.name} sets; put it in one of the two")


class _Change(NamedTuple):
    """What a variant or an axis changes."""

    loc: Loc
    """Where it is written."""
    key: str
    """What it sets."""
    values: Sequence[Any]
    """To one of these."""

    @property
    def name(self) -> str:
        return ".".join(map(str, self.loc))

    def fault(self, source: Source, text: str) -> Fault:
        return Fault(*source.place(self.loc), self.name, text)


def _both_set(one: _Change, other: _Change) -> bool:
    """Tell whether there is a key that both of them set, so that one would win."""
    pairs = ((one, other), (other, one))
    return any(_sets(value, locate(a.key), locate(b.key)) for a, b in pairs for value in a.values)


def _sets(value: Any, loc: Loc, other: Loc) -> bool:
    """Tell whether a value that is put at `loc` also says what stands at `other`."""
    if other[: len(loc)] != loc:
        return False
    for step in other[len(loc) :]:
        if not isinstance(value, Mapping) or step not in value:
            return False
        value = value[step]
    return True


def _at(
    source: Source, variant: str, bundle: Mapping[str, Any], point: Mapping[str, Any]
) -> tuple[Source, list[Fault]]:
    """Return the source in a variant and at a point of the grid, with the changes that reach inside others put last."""
    tree = {key: value for key, value in source.tree.items() if key not in GRID}
    here, faults = Source(tree, source.places), list[Fault]()
    changes = [(key, value, source.place(("variants", variant, key))) for key, value in bundle.items()]
    changes += [(axis, value, source.place(("matrix", axis))) for axis, value in point.items()]
    for key, value, place in sorted(changes, key=lambda change: len(locate(change[0]))):
        here, wrong = put(here, key, value, place)
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
