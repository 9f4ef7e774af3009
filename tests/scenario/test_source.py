"""YAML 1.2 values, places and edits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedemu.scenario.source import Place, first_comment, plain, read, read_value, write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-7", -7),
        ("010", 10),  # decimal; octal is 0o10
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("5Mbit/s", "5Mbit/s"),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    """The table of YAML 1.2.2, 10.3.2, and what YAML 1.1 made of the same words."""
    assert plain(text) == value
    assert type(plain(text)) is type(value)


def test_quotes_make_a_text() -> None:
    """'3' in quotes is no number."""
    assert read("a: '3'\nb: 3\n", "f")[0].tree == {"a": "3", "b": 3}


def test_every_key_and_item_has_its_line() -> None:
    """Counted by hand, in block and in flow style."""
    source, faults = read("a:\n  b: {c: 1,\n    d: 2}\ne:\n- x\n- y: 1\n", "f.yaml")
    assert faults == []
    lines = {".".join(map(str, loc)): place.line for loc, place in source.places.items()}
    assert lines == {"": 1, "a": 1, "a.b": 2, "a.b.c": 2, "a.b.d": 3, "e": 4, "e.0": 5, "e.1": 6, "e.1.y": 6}


@pytest.mark.parametrize(
    ("text", "line", "key", "fault"),
    [
        ("a: 1\nb: [1\nc: 2\n", 3, "yaml", "expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 1\n", 2, "yaml", "found character"),
        ("a: 1\nb: c: d\n", 2, "yaml", "mapping values are not allowed here"),
        ("a: *x\n", 1, "yaml", "found undefined alias"),
        ("a: 1\n---\nb: 1\n", 2, "yaml", "but found another document"),
        ("", 1, "yaml", "found nothing, expected a mapping"),
        ("# only a comment\n", 1, "yaml", "found nothing"),
        ("- a\n", 1, "yaml", "found a list"),
        ("just words\n", 1, "yaml", "found a single value"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, "b.c", "'c' stands here twice, first on line 3"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "b", "has no meaning here"),
        ("a: 1\nb: !!set {x}\n", 2, "b", "has no meaning here"),
        ("a: &x {b: *x}\n", 1, "a.b", "has no end"),
        ("? [a, b]\n: 1\n", 1, "yaml", "a key is a word"),
    ],
)
def test_what_is_no_sound_yaml_is_a_fault_at_its_line(text: str, line: int, key: str, fault: str) -> None:
    """Each line counted by hand."""
    (found,) = read(text, "f.yaml")[1]
    assert (found.file, found.line, found.key) == ("f.yaml", line, key)
    assert fault in found.text


def test_put_replaces_below_and_leaves_the_source_alone() -> None:
    """A new value's own keys stand where the new value stands."""
    source, _ = read("a: {b: 1, c: 2}\nd: 3\n", "f")
    changed = source.put(("a",), {"x": [7]}, Place("--set", 1))
    assert changed.tree == {"a": {"x": [7]}, "d": 3}
    assert changed.place(("a", "x", 0)) == ("--set", 1)
    assert ("a", "b") not in changed.places
    assert changed.place(("d",)) == ("f", 2)
    assert source.tree == {"a": {"b": 1, "c": 2}, "d": 3}
    deeper = source.put(("a", "n", "m"), 5, Place("--set", 1))
    assert deeper.tree == {"a": {"b": 1, "c": 2, "n": {"m": 5}}, "d": 3}
    assert source.tree["a"] == {"b": 1, "c": 2}
    with pytest.raises(TypeError, match=r"^d is 3, which has no keys$"):
        source.put(("d", "x"), 1, Place("--set", 1))


@pytest.mark.parametrize(
    ("text", "value"), [("80ms", "80ms"), ("[1, 2.5]", [1, 2.5]), ("{kind: x, a: 1e-3}", {"kind": "x", "a": 0.001})]
)
def test_a_command_line_value_is_yaml(text: str, value: object) -> None:
    """The same words as in the file."""
    assert read_value(text, "--set", "k") == (value, [])


def test_a_broken_command_line_value_names_its_key() -> None:
    """The bracket is never closed."""
    value, (fault,) = read_value("[1", "--set", "a.b")
    assert value is None
    assert (fault.file, fault.line, fault.key) == ("--set", 1, "a.b")


@pytest.mark.parametrize(
    ("text", "question"),
    [("# Why?\n# more\na: 1", "Why?"), ("\n#! Why?\n", "! Why?"), ("a: 1\n# later", ""), ("---\n# Why?\n", "Why?")],
)
def test_the_question_is_the_first_comment_line(text: str, question: str) -> None:
    """A comment after the first value asks nothing."""
    assert first_comment(text) == question


_VALUES = st.recursive(
    st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"))
    | st.sampled_from(
        ["1e-3", "yes", "010", "1_000", "0o10", "2001-01-01", "null", "~", "- a", "a: b", "#", ".5", "%"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcxyz", min_size=1), _VALUES, min_size=1, max_size=4))
def test_what_is_written_reads_the_same(tree: dict[str, object]) -> None:
    """The resolved scenario of a run directory must give the same run, to the last digit."""
    source, faults = read(write(tree, "why?"), "f")
    assert faults == []
    assert source.tree == tree
    assert repr(source.tree) == repr(tree)
