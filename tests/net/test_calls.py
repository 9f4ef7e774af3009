"""Calls that are lost: what is sent again, when, how often, and that it counts once."""

import pytest

from fedemu.links._base import Retry
from fedemu.links.drop import drop
from fedemu.rng import stream

RETRY = Retry(attempts=3, timeout=10.0, backoff=1.0)


def losing(kind, attempts):
    """A stage that loses the messages of a role that belong to those attempts."""
    return ("lost", lambda packet, _: None if packet.role == kind and packet.attempt in attempts else packet)


def lossy(toy, *, up=(), down=(), takes=(1.0,), retry=RETRY):
    return toy.Client(takes=takes, up=toy.way(after=up), down=toy.way(after=down), retry=retry)


def test_a_lost_task_is_sent_again_after_its_timeout_and_a_wait(toy):
    """10 s without a receipt, then 1 s within 20 %; the wait that the event tells is the one that passes."""
    played = toy.play({"c/0": lossy(toy, down=[losing("request", {1})])})
    retried = played.the("CallRetried")
    assert (retried.at, retried.direction, retried.attempt, retried.round) == (10.0, "down", 1, 1)
    assert 0.8 <= retried.wait <= 1.2
    assert [(e.attempt, e.at) for e in played.of("TaskSent")] == [(1, 0.0), (2, pytest.approx(10 + retried.wait))]
    assert played.the("TaskReceived").attempt == 2
    assert played.the("UpdateReceived").at == pytest.approx(11 + retried.wait)


def test_a_lost_update_is_sent_again_and_each_wait_is_longer_by_the_factor(toy):
    """Trained at 1 s; waits of 1 s and 1.6 s, each within 20 %, after 10 s each."""
    played = toy.play({"c/0": lossy(toy, up=[losing("request", {1, 2})])})
    one, two = played.of("CallRetried")
    assert (one.direction, one.attempt, two.attempt) == ("up", 1, 2)
    assert 0.8 <= one.wait <= 1.2
    assert 1.28 <= two.wait <= 1.92
    assert (one.at, two.at) == (11.0, pytest.approx(21.0 + one.wait))
    received = played.the("UpdateReceived")
    assert (received.attempt, received.at) == (3, pytest.approx(21.0 + one.wait + two.wait))


def test_the_wait_has_a_stream_of_its_own_for_each_direction_turn_and_attempt(toy):
    """What else is lost moves no wait: the draws are those of the named streams."""
    waits = {"down": [], "up": []}
    played = toy.play({"c/0": lossy(toy, up=[losing("request", {1, 2})], down=[losing("request", {1, 2})])}, seed=5)
    for event in played.of("CallRetried"):
        waits[event.direction].append(event.wait)
    for direction, found in waits.items():
        names = [("retry", "c/0", direction, 1, 1, attempt) for attempt in (1, 2)]
        assert found == [RETRY.wait(i + 1, stream(5, *name)) for i, name in enumerate(names)]


def test_a_task_is_given_up_after_its_last_attempt(toy):
    """3 attempts: lost 10 s after the third; c/1 closes the round. All three tasks crossed the link for nothing."""
    played = toy.play({"c/0": lossy(toy, down=[losing("request", {1, 2, 3})]), "c/1": toy.Client()})
    sent, lost = played.of("TaskSent", client="c/0"), played.the("UpdateLost")
    assert lost.reason == "undelivered: task not acknowledged after 3 attempts"
    assert lost.at == pytest.approx(sent[-1].at + 10)
    assert (lost.attempt, lost.wasted) == (3, sum(e.bytes for e in sent))
    assert [len(sent), len(played.of("CallRetried"))] == [3, 2]
    closed = played.the("RoundClosed")
    assert (closed.at, closed.aggregated, closed.lost) == (lost.at, 1, 1)


def test_an_update_is_given_up_after_its_last_attempt(toy):
    """3 attempts of the update, one of the task: all of these bytes were wasted."""
    played = toy.play({"c/0": lossy(toy, up=[losing("request", {1, 2, 3})]), "c/1": toy.Client()})
    sent, lost = played.of("UpdateSent", client="c/0"), played.the("UpdateLost")
    assert lost.reason == "undelivered: update not acknowledged after 3 attempts"
    assert (len(sent), lost.at) == (3, pytest.approx(sent[-1].at + 10))
    assert lost.wasted == played.the("TaskSent", client="c/0").bytes + sum(e.bytes for e in sent)


def test_without_retry_one_lost_message_loses_the_update(toy):
    """One attempt: no CallRetried."""
    client = lossy(toy, down=[losing("request", {1})], retry=Retry(attempts=1, timeout=10.0))
    played = toy.play({"c/0": client, "c/1": toy.Client()})
    assert played.the("UpdateLost").at == 10.0
    assert not played.of("CallRetried")


def test_an_update_whose_answer_is_lost_counts_once(toy):
    """The answer to attempt 1 is lost: the client sends twice, the server aggregates once and answers twice."""
    played = toy.play({"c/0": lossy(toy, down=[losing("response", {1})]), "c/1": toy.Client(takes=(30.0,))})
    assert len(played.of("UpdateSent", client="c/0")) == 2
    assert len(played.of("UpdateReceived", client="c/0")) == 1
    assert played.the("RoundClosed").aggregated == 2
    assert played.weights == [1.0, 0.0, 0.0]
    assert [e.direction for e in played.of("CallRetried")] == ["up"]


def test_a_task_whose_receipt_is_lost_is_trained_once(toy):
    """The receipt of attempt 1 is lost: the task comes twice, while 15 s of training go on."""
    played = toy.play({"c/0": lossy(toy, up=[losing("response", {1})], takes=(15.0,))})
    assert [e.attempt for e in played.of("TaskSent")] == [1, 2]
    assert len(played.of("TrainingStarted")) == len(played.jobs) == 1
    assert played.the("UpdateReceived").at == 15.0


def test_an_update_says_that_its_task_has_come(toy):
    """No receipt ever arrives; the update does at 5 s, within the timeout of 10 s: the task is not sent again."""
    clients = {"c/0": lossy(toy, up=[losing("response", {1, 2, 3})], takes=(5.0,)), "c/1": toy.Client(takes=(60.0,))}
    played = toy.play(clients)
    assert len(played.of("TaskSent", client="c/0")) == 1
    assert not played.of("CallRetried")


def test_a_task_that_comes_again_does_not_stop_the_next(toy):
    """No receipt ever arrives; rounds of 5 s, resends after 10 s: each task is trained, none is cut off by an older."""
    played = toy.play({"c/0": lossy(toy, up=[losing("response", {1, 2, 3})], takes=(5.0,))}, stop={"rounds": 5})
    assert [job.round for job in played.jobs] == [1, 2, 3, 4, 5]
    assert played.at("RoundClosed") == [5.0, 10.0, 15.0, 20.0, 25.0]


def test_an_update_that_comes_after_its_task_was_given_up_is_answered(toy):
    """Without a receipt the server gives the task up at 10 s; the update of 12 s is too late, and is not sent again."""
    client = lossy(toy, up=[losing("response", {1})], takes=(12.0,), retry=Retry(attempts=1, timeout=10.0))
    played = toy.play({"c/0": client, "c/1": toy.Client(takes=(30.0,))})
    assert played.the("UpdateLost").at == 10.0
    assert played.weights == [1.0, 0.0, 0.0]
    patient = lossy(toy, up=[losing("response", {1, 2})], takes=(25.0,), retry=Retry(2, timeout=10.0, backoff=1.0))
    played = toy.play({"c/0": patient, "c/1": toy.Client(takes=(50.0,))})
    assert len(played.of("UpdateSent", client="c/0")) == 1
    assert [e.direction for e in played.of("CallRetried")] == ["down"]


def test_an_acknowledgement_during_the_wait_saves_the_resend(toy):
    """1.5 s there and back, a timeout of 1 s and a wait of 8 s to 12 s: both ends fret, and neither sends twice."""
    slow = toy.way(delay=0.75)
    client = toy.Client(up=slow, down=slow, retry=Retry(attempts=2, timeout=1.0, backoff=10.0))
    played = toy.play({"c/0": client, "c/1": toy.Client(takes=(30.0,))})
    sent = [len(played.of(kind, client="c/0")) for kind in ("TaskSent", "UpdateSent")]
    assert sent == [1, 1]
    assert played.at("CallRetried") == [1.0, 2.75]  # 1 s after the task was sent, and after the update was, at 1.75 s


def test_a_client_that_is_slower_than_all_timeouts_is_no_wrongdoer(toy):
    """10 s each way and given up after 1 s: what it says of 20 rounds ago is stale, but it does not break the rules."""
    slow = toy.way(delay=10.0)
    client = toy.Client(takes=(0.0,), up=slow, down=slow, retry=Retry(attempts=1, timeout=1.0))
    played = toy.play({"c/0": client}, stop={"rounds": 30})
    assert len(played.of("RoundFailed")) == 30
    assert played.the("ClientLeft").reason == "the run is over"


@pytest.mark.parametrize("chance", [0.2, 0.5])
def test_whatever_is_lost_every_task_has_one_outcome_and_every_update_counts_once(toy, chance):
    """Requests and responses of both directions lost by chance in 20 rounds: the checks of `play`, and the model."""
    lost = ("drop", drop(request=chance, response=chance))
    clients = {f"c/{i}": lossy(toy, up=[lost], down=[lost], takes=(1.0 + i,)) for i in range(3)}
    played = toy.play(clients, stop={"rounds": 20})
    assert played.of("CallRetried")
    closed = played.of("RoundClosed")
    assert sum(e.aggregated for e in closed) == len(played.of("UpdateReceived"))
    assert played.weights == [float(len(closed)), 0.0, 0.0]
