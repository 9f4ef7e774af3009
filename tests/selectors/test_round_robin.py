"""Everybody in turn."""

from collections import Counter

from fedemu.rng import stream
from fedemu.selectors.round_robin import round_robin

RNG = stream(0, "select")


def test_turns_follow_the_scenarios_order_and_begin_anew(federation) -> None:
    """Three of seven: 0 1 2, 3 4 5, 6 0 1, 2 3 4, 5 6 0; each cohort in the order given."""
    clients = federation(7)
    chosen = clients.play(round_robin(), 5, 3)
    places = [[clients.place(client) for client in cohort] for cohort in chosen]
    assert places == [[0, 1, 2], [3, 4, 5], [0, 1, 6], [2, 3, 4], [0, 5, 6]]


def test_nobody_is_asked_twice_more_often_than_another(federation) -> None:
    """After any number of rounds of 3 for 7 the counts differ by one at most."""
    clients, select = federation(7), round_robin()
    asked: Counter[str] = Counter({view.client: 0 for view in clients.views})
    for _ in range(30):
        asked.update(clients.play(select, 1, 3)[0])
        assert max(asked.values()) - min(asked.values()) <= 1


def test_who_was_away_has_its_turn_when_it_is_back_and_once(federation) -> None:
    """Client 1 is away for two rounds of two for five; then it goes with 0, whose turn it is, and not again."""
    views, select = federation(5).views, round_robin()
    without = [views[0], *views[2:]]
    chosen = [select(given, 2, RNG) for given in (without, without, views, views)]
    assert [[client[-1] for client in cohort] for cohort in chosen] == [["0", "2"], ["3", "4"], ["0", "1"], ["2", "3"]]
