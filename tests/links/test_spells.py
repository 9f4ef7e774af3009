"""When a link is down is looked up as time passes, from several causes at once."""

import itertools
from collections.abc import Iterator

from fedemu.links._spells import KEPT, Spell, Spells
from fedemu.types import Interval


def test_the_spell_that_now_is_in_or_else_the_next() -> None:
    """Down from 10 s to 12 s and from 20 s to 30 s; the end of a spell is no part of it."""
    spells = Spells([([Interval(10.0, 12.0), Interval(20.0, 30.0)], False)])
    first, second = Spell(10.0, 12.0, False), Spell(20.0, 30.0, False)
    assert [spells.next(now) for now in (0.0, 10.0, 11.9)] == [first] * 3
    assert [spells.next(now) for now in (12.0, 25.0)] == [second] * 2
    assert spells.next(30.0) is None


def test_the_link_is_up_when_all_that_take_it_down_are_over() -> None:
    """10 to 20 s, then 15 to 25 s of another kind, then 25 to 26 s of the first: up at 26 s, not at 20 or 25."""
    spells = Spells([([Interval(10.0, 20.0), Interval(25.0, 26.0)], False), ([Interval(15.0, 25.0)], True)])
    assert [spells.up(now) for now in (9.0, 10.0, 17.0, 25.5, 26.0)] == [9.0, 26.0, 26.0, 26.0, 26.0]


def test_of_two_that_begin_together_the_shorter_comes_first() -> None:
    """Its end is looked at first, and then the other's."""
    spells = Spells([([Interval(1.0, 9.0)], True), ([Interval(1.0, 2.0)], False)])
    assert spells.next(0.0) == Spell(1.0, 2.0, False)
    assert spells.next(2.0) == Spell(1.0, 9.0, True)


def test_no_more_is_drawn_than_time_has_come_to() -> None:
    """Intervals for ever, one a second: to know 100.5 s takes the one that is under way and none behind it."""
    drawn: list[int] = []

    def forever() -> Iterator[Interval]:
        for second in itertools.count():
            drawn.append(second)
            yield Interval(float(second), second + 0.6)

    spells = Spells([(forever(), False)])
    assert spells.next(100.5) == Spell(100.0, 100.6, False)
    assert drawn[-1] == 100


def test_a_question_that_comes_late_finds_the_spell_that_is_over() -> None:
    """On a real clock: asked at 100.5 s, then about one of the last few seconds."""
    spells = Spells([((Interval(float(s), s + 0.6) for s in itertools.count()), False)])
    spells.next(100.5)
    for back in range(KEPT + 1):
        assert spells.next(100.5 - back) == Spell(100.0 - back, 100.6 - back, False)


def test_what_has_passed_is_forgotten() -> None:
    """A day of spells, one a second, is not kept."""
    spells = Spells([((Interval(float(s), s + 0.6) for s in itertools.count()), False)])
    for second in range(10_000):
        spells.next(second + 0.5)
    (kind,) = spells._kinds
    assert len(kind._seen) <= KEPT + 2


def test_a_link_that_is_never_down_is_up() -> None:
    """No interval of no kind."""
    assert Spells([]).next(3.0) is None
    assert Spells([((), False)]).up(3.0) == 3.0
