"""Presets are links as somebody would write them."""

import re

import pytest

from fedemu.scenario.link import Link
from fedemu.scenario.presets import PRESETS, preset


def test_there_are_the_eight_that_are_promised() -> None:
    """In the order of the issue, which an unknown name is told."""
    assert list(PRESETS) == ["edge", "3g", "4g", "5g", "wifi", "cable", "satellite", "lora"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_link(name: str) -> None:
    """Its keys and units pass the same checks as an author's, and both directions have a rate."""
    link = Link.model_validate(dict(preset(name)))
    assert list(link.clashes()) == []
    assert all((link.way(direction).rate or 0) > 0 for direction in ("up", "down"))


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"5g", "lora"}))  # from two sources, and from a formula
def test_the_figures_stand_in_the_source(name: str) -> None:
    """Each rate's number is in the source's words, and the round trip is twice the delay."""
    link, source = Link.model_validate(dict(preset(name))), PRESETS[name].source
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", source)}
    for direction in ("up", "down"):
        rate = link.way(direction).rate
        assert rate is not None
        assert numbers & {rate / 1e3, rate / 1e6}
    round_trip = sum((link.way(direction).delay or 0) for direction in ("up", "down")) * 1e3
    assert round(round_trip, 6) in numbers


def test_lora_s_rate_is_its_modem_s_formula() -> None:
    """SF 7: 7 bits a symbol of 2^7 chips, 125,000 chips a second, 4 of 5 bits are data: 5468.75 bit/s."""
    link = Link.model_validate(dict(preset("lora")))
    assert link.way("up").rate == link.way("down").rate == 7 * 125_000 / 2**7 * 4 / 5


def test_an_unknown_preset_is_told_what_there_is() -> None:
    """All names, as 5g is not what 6g meant."""
    with pytest.raises(LookupError, match=r"'6g' is not a preset; there are edge, 3g, 4g, 5g, wifi, cable, satellite"):
        preset("6g")


def test_a_preset_cannot_be_written_to() -> None:
    """Every scenario of a process reads the same one."""
    with pytest.raises(TypeError):
        preset("4g")["delay"] = "1ms"  # type: ignore[index]
