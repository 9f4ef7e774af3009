"""What kinds there are: each file of a room is a kind, and its builder's parameters are the scenario's keys.

`{kind: dirichlet, alpha: 0.3}` under `partition` is `fedemu/partitioners/dirichlet.py: dirichlet(alpha=0.3)`. A
builder's keyword-only parameters are the author's; what it takes by position, the house gives. A kind may also be
`package.module:builder`, which is imported as it stands.
"""

import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from pydantic import Field, create_model

from fedemu.keys import Keys, as_clause, instead
from fedemu.units import DURATIONS, POWERS, RATES, SIZES, show_duration, show_size

Builder: TypeAlias = Callable[..., Any]


class Room(NamedTuple):
    """A package whose files are kinds."""

    noun: str
    given: tuple[str, ...] = ()
    """What the house gives a builder by position."""
    makes: str = "collections.abc:Callable"
    """The type of what a builder returns."""


ROOMS: Mapping[str, Room] = {
    "datasets": Room("data set", ("folder",), "fedemu.datasets._base:Dataset"),
    "partitioners": Room("partitioner"),
    "models": Room("model", ("task",), "torch.nn:Module"),
    "strategies": Room("strategy", ("training",), "fedemu.strategies._base:Strategy"),
    "selectors": Room("selector"),
    "codecs": Room("codec", makes="fedemu.codecs._base:Codec"),
    "devices": Room("device", makes="fedemu.devices._base:Device"),
    "links": Room("impairment of a link", makes="builtins:object"),
    "links.tcp": Room("TCP model", makes="fedemu.links._base:Tcp"),
    "links.traffic": Room("background traffic"),
    "availabilities": Room("availability"),
}


def kinds(room: str) -> list[str]:
    """Return the kinds of a room, as they are written in a scenario, in alphabetical order."""
    package = importlib.import_module(f"fedemu.{room}")
    names = (m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg)
    return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))


def is_foreign(kind: str) -> bool:
    """Tell whether a kind is `package.module:builder`: code that does not come with fedemu."""
    return ":" in kind


@cache
def find(room: str, kind: str) -> Builder:
    """Return the builder of a kind; a foreign one is imported.

    Raises:
        LookupError: the room has no such kind, or the foreign module or builder cannot be had.
    """
    if is_foreign(kind):
        return _imported(room, kind)
    if kind not in kinds(room):
        noun = ROOMS[room].noun
        article = "an" if noun[0] in "aeiou" else "a"
        raise LookupError(f"{kind!r} is not {article} {noun}; {instead(kind, kinds(room))}")
    name = kind.replace("-", "_")
    builder: Builder = getattr(importlib.import_module(f"fedemu.{room}.{name}"), name)
    return builder


def _imported(room: str, kind: str) -> Builder:
    module, _, name = kind.partition(":")
    if not module or not name:
        raise LookupError(f"{kind!r} is not package.module:builder")
    try:
        builder = getattr(importlib.import_module(module), name)
    except AttributeError:
        raise LookupError(f"module {module!r} has no {name!r}") from None
    except Exception as error:  # whatever a user's module does while it is imported is the scenario's fault
        raise LookupError(f"{module!r} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        takes, gives = given(builder), ROOMS[room].given
        parameters(builder)
    except TypeError as error:
        raise LookupError(f"{kind!r} is no builder: {error}") from None
    if len(takes) != len(gives):
        raise LookupError(
            f"{kind!r} takes ({', '.join(takes)}) by position; a {ROOMS[room].noun} is given ({', '.join(gives)})"
        )
    return typing.cast("Builder", builder)


def build(room: str, kind: str, given: Sequence[Any], params: Mapping[str, Any]) -> Any:
    """Return what a kind's builder makes of what it is given and of its parameters; a foreign one's is looked at.

    Raises:
        ValueError: These parameters cannot go together, or not with what is given; or the foreign builder failed, or
            made what is none of this room.
    """
    builder = find(room, kind)
    if not is_foreign(kind):
        return builder(*given, **params)
    try:
        result = builder(*given, **params)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{kind!r} failed: {type(error).__name__}: {error}") from error
    unfit = "None" if result is None else _unfit(result, pkgutil.resolve_name(ROOMS[room].makes))
    if unfit:
        raise ValueError(f"{kind!r} made {unfit}; a {ROOMS[room].noun} was expected")
    return result


def _unfit(value: Any, expected: Any) -> str | None:
    """Say what a value is if it is not of the type, or has a field that is not of its type; None if all is well."""
    origin = typing.get_origin(expected) or expected
    if isinstance(origin, type) and not isinstance(value, origin):
        return f"a {type(value).__name__}"
    if isinstance(value, tuple) and isinstance(origin, type):
        for name, type_ in typing.get_type_hints(origin).items():
            if unfit := _unfit(getattr(value, name), type_):
                return f"a {origin.__name__} whose {name} is {unfit}"
    return None


def given(builder: Builder) -> list[str]:
    """Return the names of what a builder takes by position.

    Raises:
        TypeError: a parameter could be the house's as well as the author's.
    """
    names = []
    for p in inspect.signature(builder).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise TypeError(f"parameter {p} has no name; name every key")
        if p.kind is not p.KEYWORD_ONLY:
            if p.default is not p.empty:
                raise TypeError(f"parameter {p.name!r} has a default but no * before it; a scenario's key needs one")
            names.append(p.name)
    return names


@cache
def parameters(builder: Builder) -> type[Keys]:
    """Return the model of a builder's keyword-only parameters: strict, frozen, described by its docstring.

    Raises:
        TypeError: a keyword-only parameter has no type.
    """
    hints = typing.get_type_hints(builder.__init__ if inspect.isclass(builder) else builder, include_extras=True)
    about = _arguments(inspect.getdoc(builder) or "")
    fields: dict[str, Any] = {}
    for p in inspect.signature(builder).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            if p.name not in hints:
                raise TypeError(f"parameter {p.name!r} has no type; annotate it")
            default = ... if p.default is p.empty else p.default
            fields[p.name] = (hints[p.name], Field(default, description=about.get(p.name)))
    return create_model(getattr(builder, "__name__", "parameters"), __base__=Keys, **fields)


def _arguments(doc: str) -> dict[str, str]:
    """Return the `Args:` of a Google docstring: name to description."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+)(?: \([^)]*\))?: *(.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


class Parameter(NamedTuple):
    """A key of a kind, for people."""

    name: str
    unit: str
    default: str | None
    """None where the key is required."""
    about: str


class Description(NamedTuple):
    """A kind, for people."""

    kind: str
    about: str
    parameters: tuple[Parameter, ...]


def describe(room: str) -> Iterator[Description]:
    """Yield every kind of a room with its parameters, units, defaults and one-line description."""
    for kind in kinds(room):
        builder = find(room, kind)
        model = parameters(builder)
        schema = model.model_json_schema()["properties"] if model.model_fields else {}
        entries = []
        for name, field in model.model_fields.items():
            unit, show = _unit(schema[name])
            default = None if field.is_required() else "none" if field.default is None else show(field.default)
            entries.append(Parameter(name, unit, default, as_clause(field.description or "")))
        summary = (inspect.getdoc(builder) or "").partition("\n")[0]
        yield Description(kind, as_clause(summary), tuple(entries))


_UNITS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "40ms": (f"duration ({', '.join(DURATIONS)})", show_duration),
    "15kB": (f"size ({', '.join(SIZES)})", show_size),
    "10Mbit/s": (f"rate ({', '.join(RATES)})", lambda rate: f"{rate:g}bit/s"),
    "2.5W": (f"power ({', '.join(POWERS)})", lambda power: f"{power:g}W"),
    "60%": ("ratio (%, or 0..1)", lambda ratio: f"{ratio * 100:g}%"),
}


def _unit(schema: Mapping[str, Any]) -> tuple[str, Callable[[Any], str]]:
    """Return what a key's values are, and how one is written, from its JSON schema."""
    for example in schema.get("examples", ()):
        if example in _UNITS:
            return _UNITS[example]
    if "anyOf" in schema:
        return _unit(schema["anyOf"][0])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"])), str
    words = {
        "integer": "whole number",
        "number": "number",
        "boolean": "true | false",
        "string": "file" if schema.get("format") == "path" else "text",
        "array": "list",
        "object": "mapping",
    }
    bounds = (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    )
    limits = [f"{word} {schema[key]}" for key, word in bounds if key in schema]
    return " ".join([words.get(schema.get("type", ""), "value"), *limits]), str
