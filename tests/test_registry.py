"""Kinds, their builders, and what a user brings along."""

import inspect
import pickle
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from fedemu.models._base import Task
from fedemu.registry import ROOMS, _unfit, build, describe, find, given, is_foreign, kinds, parameters
from fedemu.scenario.kind import Kind, KindOf
from fedemu.strategies._base import Strategy
from fedemu.strategies.fedavg import fedavg
from fedemu.types import Training
from fedemu.units import Duration, Rate, Ratio, Size


def made(
    task: object,
    /,
    *,
    delay: Duration,
    size: Size = 15_000,
    rate: Rate | None = None,
    chance: Ratio = 0.5,
    depth: Annotated[int, Field(ge=1)] = 4,
    mu: float = 1,
    shape: Literal["a", "b"] = "a",
    on: bool = False,
) -> dict[str, Any]:
    """Make something.

    Args:
        task: Given by the house.
        delay: How long it takes,
            on the whole.
        mu (float): Weight.

    Raises:
        ValueError: never: this is no parameter.
    """
    return {"task": task, "delay": delay, "size": size, "rate": rate, "chance": chance, "depth": depth, "mu": mu}


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that does not come with fedemu."""
    (tmp_path / "users_own.py").write_text(
        "def dealt(*, each: int = 1):\n    '''Deal.'''\n    return lambda *_: ('dealt', each)\n"
        "def nothing(): ...\n"
        "def number(): return 42\n"
        "def fails(): return 1 / 0\n"
        "def half():\n"
        "    from fedemu.codecs.none import none\n"
        "    return none()._replace(decode='decode')\n"
        "def loose(*, each=1): ...\n"
        "def blurred(each=1): ...\n"
        "def greedy(a, b, /): ...\n"
    )
    (tmp_path / "users_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_own"
    for name in ("users_own", "users_broken"):
        sys.modules.pop(name, None)
    find.cache_clear()


@pytest.mark.parametrize(("room", "kind"), [(room, kind) for room in ROOMS for kind in kinds(room)])
def test_every_kind_has_a_builder_whose_keys_are_typed_and_described(room: str, kind: str) -> None:
    """A file of a room is found unasked, and `fedemu kinds` has something to say about each of its keys."""
    builder = find(room, kind)
    assert len(given(builder)) == len(ROOMS[room].given)
    assert inspect.getdoc(builder)
    assert all(field.description for field in parameters(builder).model_fields.values())


def test_kinds_are_the_public_files_of_a_room() -> None:
    """A dash in YAML is an underscore in Python; private files and the TCP room are no link stages."""
    assert {"delay", "drop", "stall"} <= set(kinds("links"))
    assert "tcp" not in kinds("links")
    assert "slow-start" in kinds("links.tcp")
    assert not any(kind.startswith("-") or "_" in kind for room in ROOMS for kind in kinds(room))


@pytest.mark.parametrize(
    ("room", "kind", "text"),
    [
        ("strategies", "fedagv", "'fedagv' is not a strategy; did you mean 'fedavg'?"),
        ("links.tcp", "slow_start", "'slow_start' is not a TCP model; did you mean 'slow-start'?"),
        ("selectors", "_base", "'_base' is not a selector; there are eligible, oort"),
        ("models", "../x", "'../x' is not a model; there are "),
    ],
)
def test_an_unknown_kind_is_told_what_was_meant(room: str, kind: str, text: str) -> None:
    """difflib finds a near miss; where there is none, all kinds are listed."""
    with pytest.raises(LookupError) as caught:
        find(room, kind)
    assert str(caught.value).startswith(text)


def test_parameters_parse_units_and_refuse_what_is_not_the_type() -> None:
    """40 ms are 0.04 s; "3" is not 3, and true is not 1."""
    keys = parameters(made)
    assert keys is parameters(made)
    read = keys.model_validate({"delay": "40ms", "rate": "5Mbit/s", "chance": "20%", "mu": 3}).model_dump()
    assert read == {
        "delay": 0.04, "size": 15_000, "rate": 5e6, "chance": 0.2, "depth": 4, "mu": 3.0, "shape": "a", "on": False
    }  # fmt: skip
    wrong = {
        "delay": 3, "size": "3", "rate": "1MB", "chance": "120%", "depth": "3", "mu": True, "shape": "c", "on": 1
    }  # fmt: skip
    with pytest.raises(ValidationError) as caught:
        keys.model_validate(wrong)
    assert {e["loc"]: e["msg"] for e in caught.value.errors()} == {
        ("delay",): "3 has no unit of ns, us, ms, s, min, h, d; write e.g. 40ms",
        ("size",): "'3' has no unit of B, kB, MB, GB, KiB, MiB, GiB; write e.g. 15kB",
        ("rate",): "'1MB' has no unit of bit/s, kbit/s, Mbit/s, Gbit/s; write e.g. 10Mbit/s",
        ("chance",): "'120%' is outside of 0..1; write e.g. 60% or 0.6",
        ("depth",): "'3' is not a whole number",
        ("mu",): "true is not a number",
        ("shape",): "'c' is not one of a or b",
        ("on",): "1 is neither true nor false",
    }


@pytest.mark.parametrize(("mu", "text"), [(float("nan"), "nan is not a finite"), (float("inf"), "inf is not a finite")])
def test_numbers_are_finite(mu: float, text: str) -> None:
    """YAML can write .nan and .inf; no parameter means them."""
    with pytest.raises(ValidationError, match=text):
        parameters(made).model_validate({"delay": "1s", "mu": mu})


def test_descriptions_come_from_the_docstring() -> None:
    """Continuation lines belong to their parameter, other sections to none."""
    fields = parameters(made).model_fields
    assert fields["delay"].description == "How long it takes, on the whole."
    assert fields["mu"].description == "Weight."
    assert fields["on"].description is None
    assert "task" not in fields


def test_a_description_has_units_and_defaults() -> None:
    """shards(per_client=2) and delay(delay, jitter=0) as `fedemu kinds` shows them."""
    (shards,) = (kind for kind in describe("partitioners") if kind.kind == "shards")
    assert [p[:3] for p in shards.parameters] == [("per_client", "whole number at least 1", "2")]
    (delay,) = (kind for kind in describe("links") if kind.kind == "delay")
    assert [p[:3] for p in delay.parameters] == [
        ("delay", "duration (ns, us, ms, s, min, h, d)", None),
        ("jitter", "duration (ns, us, ms, s, min, h, d)", "0ms"),
        ("correlation", "ratio (%, or 0..1)", "0%"),
        (
            "distribution",
            "constant | uniform | normal | pareto | paretonormal | lognormal | exponential",
            "lognormal",
        ),
    ]


def test_a_user_brings_a_kind_without_touching_fedemu(user_module: str) -> None:
    """package.module:builder stands where a kind stands, its keys beside it."""
    kind = KindOf("partitioners").read({"kind": f"{user_module}:dealt", "each": 3})
    assert is_foreign(kind.kind)
    assert kind.build()() == ("dealt", 3)


@pytest.mark.parametrize(
    ("room", "builder", "text"),
    [
        ("partitioners", "nothing", "made None; a partitioner was expected"),
        ("selectors", "number", "made a int; a selector was expected"),
        ("codecs", "number", "made a int; a codec was expected"),
        ("codecs", "half", "made a Codec whose decode is a str; a codec was expected"),
        ("devices", "fails", "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_what_a_users_builder_makes_is_looked_at(user_module: str, room: str, builder: str, text: str) -> None:
    """Before it runs: a fault of the scenario, at its line."""
    with pytest.raises(ValidationError) as caught:
        KindOf(room).read({"kind": f"{user_module}:{builder}"})
    assert [error["msg"] for error in caught.value.errors()] == [f"'{user_module}:{builder}' {text}"]


def test_a_users_strategy_whose_parts_do_not_fit_is_a_fault() -> None:
    """The aggregation in place of the function that starts it."""
    strategy = fedavg(Training())
    assert _unfit(strategy, Strategy) is None
    wrong = strategy._replace(aggregate=strategy.aggregate.start)  # type: ignore[arg-type]
    assert _unfit(wrong, Strategy) == "a Strategy whose aggregate is a type"
    inside = strategy._replace(aggregate=strategy.aggregate._replace(add=None))  # type: ignore[arg-type]
    assert _unfit(inside, Strategy) == "a Strategy whose aggregate is a Aggregation whose add is a NoneType"


@pytest.mark.parametrize(("room", "kind"), [(room, kind) for room in ROOMS for kind in kinds(room)])
def test_what_our_own_builders_make_fits_their_room(room: str, kind: str) -> None:
    """The same look; those that need data or a parameter are built in their own tests."""
    builder = find(room, kind)
    given_here = {"strategies": [Training()], "models": [Task((3, 32, 32), 10)]}.get(room, [])
    if room in ("datasets", "links") or any(field.is_required() for field in parameters(builder).model_fields.values()):
        return
    product = build(room, kind, given_here, {})
    assert _unfit(product, pkgutil.resolve_name(ROOMS[room].makes)) is None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("users_absent:f", "'users_absent' cannot be imported: ModuleNotFoundError: No module named 'users_absent'"),
        ("users_broken:f", "'users_broken' cannot be imported: ZeroDivisionError: division by zero"),
        ("users_own:absent", "module 'users_own' has no 'absent'"),
        ("users_own:loose", "'users_own:loose' is no builder: parameter 'each' has no type; annotate it"),
        ("users_own:blurred", "'users_own:blurred' is no builder: parameter 'each' has a default but no * before it"),
        ("users_own:greedy", "'users_own:greedy' takes (a, b) by position; a partitioner is given ()"),
        (":f", "':f' is not package.module:builder"),
        ("users_own:", "'users_own:' is not package.module:builder"),
    ],
)
@pytest.mark.usefixtures("user_module")
def test_what_a_user_brings_is_checked_before_it_runs(kind: str, text: str) -> None:
    """Each is the author's fault and says what to mend."""
    with pytest.raises(LookupError) as caught:
        find("partitioners", kind)
    assert str(caught.value).startswith(text)


def test_a_kind_builds_with_what_the_house_gives() -> None:
    """The training goes in by position, the keys by name; a kind goes through a pipe to a worker."""
    kind = KindOf("strategies").read({"kind": "fedavg", "weighting": "uniform"})
    assert kind == Kind("strategies", "fedavg", {"weighting": "uniform", "server_lr": 1.0})
    assert pickle.loads(pickle.dumps(kind)) == kind


@pytest.mark.parametrize(
    ("value", "loc", "text"),
    [
        ("iid", (), "'iid' is not a mapping; write {kind: iid}"),
        (3, (), "3 is not a mapping; write {kind: ...}"),
        ({}, ("kind",), "missing; expected one of copy, dirichlet, "),
        ({"knd": "iid", "x": 1}, ("knd",), "'knd' is not a key here; did you mean 'kind'?"),
        ({"kind": None}, ("kind",), "no value; write one of copy, "),
        ({"kind": 3}, ("kind",), "3 is not one of copy, "),
        ({"kind": "iidd"}, ("kind",), "'iidd' is not a partitioner; did you mean 'iid'?"),
        ({"kind": "iid", "alpha": 1}, ("alpha",), "'alpha' is not a key here; nothing goes here"),
        ({"kind": "dirichlet", "alpha": "x"}, ("alpha",), "'x' is not a number"),
        ({"kind": "dirichlet"}, ("alpha",), "missing; expected concentration"),
    ],
)
def test_a_faulty_kind_gives_one_fault(value: object, loc: tuple[str, ...], text: str) -> None:
    """Without a kind its keys cannot be judged, so only the kind is."""
    with pytest.raises(ValidationError) as caught:
        KindOf("partitioners").read(value)
    (error,) = caught.value.errors()
    assert error["loc"] == loc
    assert error["msg"].startswith(text)
