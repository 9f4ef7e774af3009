"""A YAML 1.2 document as plain values, and the line where each of them stands."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fedemu.errors import Fault
from fedemu.keys import Loc


class Place(NamedTuple):
    file: str
    line: int
    """From 1 on."""


@dataclass(frozen=True)
class Source:
    """A tree of mappings, lists and scalars that remembers where it was written."""

    tree: dict[str, Any]
    places: Mapping[Loc, Place]

    @staticmethod
    def at(place: Place, tree: Mapping[str, Any]) -> "Source":
        """Return a source of which everything stands at one place."""
        return Source(dict(tree), dict.fromkeys(_locs(tree), place))

    def known(self, loc: Loc) -> Loc:
        """Return the longest beginning of `loc` that was really written."""
        while loc and loc not in self.places:
            loc = loc[:-1]
        return loc

    def place(self, loc: Loc) -> Place:
        """Return where that stands; of what was not written, where its parent stands."""
        return self.places[self.known(loc)]

    def put(self, loc: Loc, value: Any, place: Place) -> "Source":
        """Return the source with the value at `loc` replaced, and mappings on the way there made.

        Raises:
            TypeError: something on the way is not a mapping.
        """
        tree = dict(self.tree)
        places = {k: v for k, v in self.places.items() if k[: len(loc)] != loc}
        parent = tree
        for i, step in enumerate(loc[:-1], start=1):
            child = parent.get(str(step))
            child = {} if child is None else child
            if not isinstance(child, dict):
                raise TypeError(f"{'.'.join(map(str, loc[:i]))} is {child!r}, which has no keys")
            places.setdefault(loc[:i], place)
            parent[str(step)] = parent = dict(child)
        parent[str(loc[-1])] = value
        places.update((loc + below, place) for below in _locs(value))
        return Source(tree, places)


FILES = frozenset({"trace", "file", "table"})
"""Keys whose text is the name of a file."""


def anchored(value: Any, folder: Path, key: str = "") -> Any:
    """Return the value with the names of files made absolute, from a folder on."""
    if isinstance(value, dict):
        return {name: anchored(item, folder, str(name).rpartition(".")[2]) for name, item in value.items()}
    if isinstance(value, list):
        return [anchored(item, folder, key) for item in value]
    return str(folder.absolute() / value) if key in FILES and isinstance(value, str) else value


def _locs(value: Any) -> Iterator[Loc]:
    yield ()
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from ((step, *below) for below in _locs(item))


def read(text: str, file: str) -> tuple[Source, list[Fault]]:
    """Return the document's mapping with its places, and what is wrong with it as YAML.

    A document with a syntax error, or that is no mapping, comes back empty.
    """
    top = Place(file, 1)
    try:
        node = YAML(typ="safe", pure=True).compose(StringIO(text))
    except YAMLError as error:
        return Source({}, {(): top}), [_syntax_fault(error, file)]
    if not isinstance(node, MappingNode):
        found = "nothing" if node is None else "a list" if isinstance(node, SequenceNode) else "a single value"
        return Source({}, {(): top}), [Fault(file, 1, "yaml", f"found {found}, expected a mapping; write key: value")]
    reading = _Reading(file)
    tree = reading.value(node, (), ())
    return Source(tree, {**reading.places, (): top}), reading.faults


def read_value(text: str, file: str, key: str) -> tuple[Any, list[Fault]]:
    """Return the value that a command line gives for `key`, written as in YAML."""
    source, faults = read(f"value: {text}" if text.strip() else "value:", file)
    return source.tree.get("value"), [Fault(file, 1, key, f.text) for f in faults]


def write(tree: Mapping[str, Any], comment: str = "") -> str:
    """Return the tree as a YAML document under a comment line; reading it gives the same tree."""
    yaml, out = YAML(typ="rt"), StringIO()
    yaml.default_flow_style, yaml.width = False, 2**16
    yaml.dump(dict(tree), out)
    return (f"# {comment}\n" if comment else "") + out.getvalue()


def first_comment(text: str) -> str:
    """Return the first comment line without its mark; empty where the document begins without a comment."""
    for line in text.splitlines():
        if line.startswith("#"):
            return line.lstrip("#").strip()
        if line.strip() not in ("", "---"):
            break
    return ""


def _syntax_fault(error: YAMLError, file: str) -> Fault:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    text = (error.problem if isinstance(error, MarkedYAMLError) else None) or str(error)
    return Fault(file, mark.line + 1 if mark else 1, "yaml", " ".join(text.split()))


class _Reading:
    """One walk over a document's nodes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Loc, Place] = {}
        self.faults: list[Fault] = []

    def value(self, node: Node, loc: Loc, above: tuple[int, ...]) -> Any:
        if id(node) in above:
            return self._fault(node, loc, "an alias to what contains it has no end")
        above = (*above, id(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node, loc)
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            return self._fault(node, loc, f"tag {node.tag!r} has no meaning here; leave it out")
        if isinstance(node, SequenceNode):
            return [self._item(item, item, (*loc, i), above) for i, item in enumerate(node.value)]
        tree: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, item in node.value:
            if not isinstance(key, ScalarNode):
                self._fault(key, loc, "a key is a word")
            elif key.value in tree:
                first = lines[key.value]
                self._fault(key, (*loc, key.value), f"{key.value!r} stands here twice, first on line {first}")
            else:
                lines[key.value] = key.start_mark.line + 1
                tree[key.value] = self._item(key, item, (*loc, key.value), above)
        return tree

    def _item(self, marked: Node, item: Node, loc: Loc, above: tuple[int, ...]) -> Any:
        self.places[loc] = Place(self.file, marked.start_mark.line + 1)
        return self.value(item, loc, above)

    def _scalar(self, node: ScalarNode, loc: Loc) -> Any:
        if str(node.tag).removeprefix(_TAG) not in ("str", "int", "float", "bool", "null", "timestamp", "value"):
            return self._fault(node, loc, f"tag {node.tag!r} has no meaning here; leave it out")
        return node.value if node.style else plain(node.value)

    def _fault(self, node: Node, loc: Loc, text: str) -> None:
        self.faults.append(Fault(self.file, node.start_mark.line + 1, ".".join(map(str, loc)) or "yaml", text))


_TAG = "tag:yaml.org,2002:"
_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def plain(text: str) -> Any:
    """Return the value of a scalar without quotes, by the core schema of YAML 1.2 (chapter 10.3.2).

    ruamel's own resolver keeps some of YAML 1.1: 1_000 as a number, 2001-01-01 as a date.
    """
    if text in _WORDS:
        return _WORDS[text]
    if re.fullmatch(r"[-+]?[0-9]{1,999}", text):
        return int(text)
    if re.fullmatch(r"0o[0-7]+|0x[0-9a-fA-F]+", text):
        return int(text, 0)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", text):
        return float(text.replace(".", ""))
    return text
