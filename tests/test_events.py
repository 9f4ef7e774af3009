"""Events and their lines: what is written down comes back."""

import json
import math

import pytest

from fedemu.events import (
    DelayMeasured,
    Evaluated,
    RoundStarted,
    TransferEnded,
    as_line,
    as_record,
    from_record,
)

ABOUT = {"client": "a/0", "group": "a", "round": 1, "attempt": 2}
CUT = TransferEnded(
    at=1.5, **ABOUT, direction="up", outcome="cut", bytes=3, wire=5, began=1.0, queued=0.0, retransmitted=0, delay=None
)


@pytest.mark.parametrize("event", [CUT, RoundStarted(at=0.0, round=1, cohort=("a/0", "a/1"))])
def test_an_event_comes_back_from_its_line(event):
    """Tuples are tuples again, and None stays None where it has a meaning."""
    assert from_record(json.loads(as_line(event))) == event


def test_a_number_that_json_does_not_have_comes_back_as_nan():
    """Infinite or no number: the line has null for both."""
    for loss in (math.nan, math.inf):
        event = from_record(as_record(Evaluated(at=1.0, round=1, accuracy=0.5, loss=loss)))
        assert isinstance(event, Evaluated)
        assert math.isnan(event.loss)


@pytest.mark.parametrize("name", ["Nonsense", DelayMeasured.__name__, "as_line"])
def test_what_is_in_no_log_is_no_event(name):
    """A measurement is told and never written down."""
    with pytest.raises(KeyError):
        from_record({"at": 1.0, "event": name})


def test_an_event_with_other_fields_is_none():
    """It is another version's."""
    with pytest.raises(TypeError):
        from_record(as_record(CUT) | {"colour": "red"})
