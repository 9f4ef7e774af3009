"""What a real scrape of a run says, number by number."""

import re
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from fedemu.events import (
    CallRetried,
    ClientJoined,
    ClientLeft,
    DelayMeasured,
    Evaluated,
    Event,
    RoundClosed,
    RoundFailed,
    TargetReached,
    TaskReceived,
    TaskSent,
    TrainingFinished,
    TrainingStarted,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    UpdateSent,
)
from fedemu.observers.prometheus import Metrics

Carried = Callable[..., Iterator[Event]]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def about(at: float, client: str, round: int, attempt: int = 1) -> dict[str, Any]:
    return {"at": at, "client": f"phones/{client}", "group": "phones", "round": round, "attempt": attempt}


def trip(client: str, round: int, start: float) -> tuple[Event, ...]:
    """1 s down, 0.5 s idle, 4 s of training, 2 s up."""
    return (
        TaskSent(**about(start, client, round), bytes=100, version=0),
        TaskReceived(**about(start + 1, client, round), bytes=100, version=0),
        TrainingStarted(**about(start + 1.5, client, round), examples=5),
        TrainingFinished(**about(start + 5.5, client, round), steps=1, loss=1.0, duration=4.0),
        UpdateSent(**about(start + 5.5, client, round), bytes=110),
    )


def received(client: str, round: int, at: float, staleness: int = 0) -> UpdateReceived:
    return UpdateReceived(**about(at, client, round), bytes=110, staleness=staleness)


def lost(client: str, round: int, at: float, reason: str, *, wasted: int) -> UpdateLost:
    return UpdateLost(**about(at, client, round), reason=reason, wasted=wasted)


JOINED = tuple(ClientJoined(at=0.0, client=f"phones/{c}", group="phones") for c in "abc")


def scrape(events: Iterable[Event]) -> tuple[Samples, str]:
    """Return the samples and the text of a scrape over HTTP after these events."""
    metrics = Metrics(run="hand", clock="virtual")
    for event in events:
        metrics(event)
    with metrics.serve(0, "127.0.0.1") as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("run"), labels.pop("clock")) == ("hand", "virtual")
            samples[sample.name, tuple(sorted(labels.items()))] = sample.value
    return samples, text


def labelled(samples: Samples, name: str) -> dict[tuple[str, ...], float]:
    return {tuple(value for _, value in labels): found for (sample, labels), found in samples.items() if sample == name}


def test_a_round_by_hand(carried: Carried) -> None:
    """a arrives at 7.5 s, b at 9 s, the round closes at 10 s: waits of 2.5 and 1 s, uploads of 2 and 3.5 s."""
    events = (
        *JOINED,
        *trip("a", 1, 0.0),
        *trip("b", 1, 0.0),
        received("a", 1, 7.5),
        received("b", 1, 9.0, staleness=3),
        RoundClosed(at=10.0, round=1, aggregated=2, late=0, lost=0, duration=10.0),
        Evaluated(at=10.0, round=1, accuracy=0.61, loss=1.0),
        TargetReached(at=10.0, accuracy=0.6, round=1),
    )
    samples, _ = scrape(carried(events))
    assert samples["fedemu_run_seconds", ()] == 10
    assert samples["fedemu_accuracy_ratio", ()] == 0.61
    assert labelled(samples, "fedemu_time_to_target_seconds") == {("0.6",): 10}
    assert labelled(samples, "fedemu_rounds_total") == {("closed",): 1}
    assert samples["fedemu_round_seconds_sum", ()] == 10
    assert samples["fedemu_round_seconds_count", ()] == 1
    assert labelled(samples, "fedemu_phase_seconds_sum") == {
        ("phones", "download"): 2,
        ("phones", "compute"): 8,
        ("phones", "upload"): 5.5,
        ("phones", "wait"): 3.5,
    }
    assert set(labelled(samples, "fedemu_phase_seconds_count").values()) == {2}
    assert labelled(samples, "fedemu_updates_total") == {("phones", "aggregated"): 2}
    assert samples["fedemu_update_staleness_sum", ()] == 3
    assert samples["fedemu_update_staleness_bucket", (("le", "0.0"),)] == 1
    assert labelled(samples, "fedemu_wire_bytes_total") == {("down", "phones"): 200, ("up", "phones"): 220}
    assert labelled(samples, "fedemu_calls_total") == {("phones", "sent"): 4}
    assert labelled(samples, "fedemu_clients") == {("idle",): 3, ("working",): 0}


def test_updates_that_do_not_help_are_told_apart(carried: Carried) -> None:
    """a comes late, b is cut off after 30 of 110 bytes and has another task by then, c is refused and leaves."""
    events = (
        *JOINED,
        *trip("a", 1, 0.0),
        received("a", 1, 8.0),
        lost("a", 1, 8.0, "late", wasted=210),
        *trip("b", 1, 0.0),
        TaskSent(**about(9.0, "b", 2), bytes=100, version=0),
        lost("b", 1, 9.1, "undelivered: update", wasted=130),
        *trip("c", 1, 0.0),
        CallRetried(**about(6.0, "c", 1), direction="up", reason="not acknowledged", wait=1.0),
        UpdateRejected(**about(9.2, "c", 1), reason="nan"),
        ClientLeft(at=9.3, client="phones/c", group="phones", reason="reset"),
        RoundFailed(at=9.4, round=1, reason="0 updates, and nobody left to wait for"),
        RoundClosed(at=9.5, round=2, aggregated=0, late=0, lost=0, duration=0.1),
    )
    samples, _ = scrape(carried(events, {("phones/b", 1, "up"): 30, ("phones/b", 2, "down"): 0}))
    assert labelled(samples, "fedemu_updates_total") == {
        ("phones", "late"): 1,
        ("phones", "lost"): 1,
        ("phones", "rejected"): 1,
    }
    assert ("phones", "wait") not in labelled(samples, "fedemu_phase_seconds_sum")
    # b's second task has not begun to cross
    assert labelled(samples, "fedemu_wire_bytes_total") == {("down", "phones"): 300, ("up", "phones"): 250}
    assert labelled(samples, "fedemu_calls_total") == {
        ("phones", "sent"): 7,
        ("phones", "retried"): 1,
        ("phones", "failed"): 1,
    }
    assert labelled(samples, "fedemu_rounds_total") == {("failed",): 1, ("closed",): 1}
    assert labelled(samples, "fedemu_clients") == {("idle",): 1, ("working",): 1}


def test_what_is_not_known_yet_is_absent() -> None:
    """No evaluation, no target: not zero. And no real time: nothing was created at a wall-clock time."""
    samples, text = scrape(JOINED)
    assert not labelled(samples, "fedemu_accuracy_ratio")
    assert not labelled(samples, "fedemu_time_to_target_seconds")
    assert "_created" not in text


def test_an_update_that_a_failed_round_leaves_to_the_next_waits_until_that_one_closes() -> None:
    """Received at 7.5 s, in a model at 20 s."""
    events = (
        *trip("a", 1, 0.0),
        received("a", 1, 7.5),
        RoundFailed(at=9.0, round=1, reason="1 update, and nobody left to wait for"),
        RoundClosed(at=20.0, round=2, aggregated=1, late=0, lost=0, duration=11.0),
    )
    samples, _ = scrape(events)
    assert labelled(samples, "fedemu_phase_seconds_sum")["phones", "wait"] == 12.5
    assert labelled(samples, "fedemu_updates_total") == {("phones", "aggregated"): 1}


def test_a_server_alone_leaves_out_the_phases_that_it_cannot_know(carried: Carried) -> None:
    """Of another process's trip it sees the task go and the update come: no download, compute or upload; all bytes."""
    sees = (TaskSent, UpdateReceived)
    events = (
        *(event for event in trip("a", 1, 0.0) if isinstance(event, sees)),
        received("a", 1, 7.5),
        RoundClosed(at=10.0, round=1, aggregated=1, late=0, lost=0, duration=10.0),
    )
    samples, _ = scrape(carried(events))
    assert labelled(samples, "fedemu_phase_seconds_sum") == {("phones", "wait"): 2.5}
    assert labelled(samples, "fedemu_wire_bytes_total") == {("down", "phones"): 100, ("up", "phones"): 110}


def test_a_client_alone_tells_what_it_sees(carried: Carried) -> None:
    """Its computing, its retries and what it sent."""
    samples, _ = scrape(carried(trip("a", 1, 0.0)[1:]))
    assert labelled(samples, "fedemu_phase_seconds_sum") == {("phones", "compute"): 4}
    assert labelled(samples, "fedemu_wire_bytes_total")["up", "phones"] == 110


def test_metrics_md_names_every_metric_and_no_other() -> None:
    """The table of METRICS.md against the families of a scrape."""
    page = (Path(__file__).parents[2] / "METRICS.md").read_text()
    documented = set(re.findall(r"^## `(fedemu_\w+)", page, re.MULTILINE))
    _, text = scrape(())
    assert documented == set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


def test_a_server_that_saw_no_upload_begin_does_not_count_what_never_left(carried: Carried) -> None:
    """Clients elsewhere log UpdateSent; the server knows its 100 bytes, and that 30 of the update left."""
    events = (
        *JOINED,
        TaskSent(**about(0.0, "a", 1), bytes=100, version=0),
        lost("a", 1, 3.0, "late", wasted=130),
    )
    samples, _ = scrape(carried(events))
    assert labelled(samples, "fedemu_wire_bytes_total") == {("down", "phones"): 100, ("up", "phones"): 30}


def test_what_was_measured_tells_the_emulations_own_error() -> None:
    """40 ms asked for; 40.3 ms, 42 ms and 39.9 ms long: 0.3 ms, 2 ms and less than nothing too late."""
    achieved = (0.0403, 0.042, 0.0399)
    events = [
        DelayMeasured(at=7.0, group="phones", direction="up", requested=0.04, achieved=seconds) for seconds in achieved
    ]
    samples, _ = scrape(events)
    link = (("direction", "up"), ("group", "phones"))
    assert samples["fedemu_link_delay_seconds_count", (*link, ("kind", "requested"))] == 3
    assert abs(samples["fedemu_link_delay_seconds_sum", (*link, ("kind", "achieved"))] - 0.1222) < 1e-12
    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in samples.items()
        if name == "fedemu_link_delay_error_seconds_bucket"
    }
    assert min(buckets) == 1e-4
    assert sorted(buckets)[-2:] == [1.0, float("inf")]
    assert [buckets[le] for le in (1e-4, 2e-4, 5e-4, 1e-3, 5e-3, float("inf"))] == [1, 1, 2, 2, 3, 3]
    assert samples["fedemu_run_seconds", ()] == 0  # it is no event of the run
