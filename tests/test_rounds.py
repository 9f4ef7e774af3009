"""The round loop on the virtual clock: times and models by hand, exact."""

import math
from dataclasses import replace

import pytest
import torch

import fedemu.rounds
from fedemu.devices._base import Equipment, Memory
from fedemu.errors import RunError, first_of
from fedemu.links.stall import stall
from fedemu.rounds import RoundPolicy
from fedemu.selectors.eligible import eligible
from fedemu.strategies.fedasync import fedasync
from fedemu.types import ClientView, Trained, Training


def test_a_synchronous_round_takes_as_long_as_its_slowest_client(toy):
    """1 s, 2 s and 3 s of training: 3 s a round, 6 s for two."""
    clients = {f"c/{i}": toy.Client(takes=(i + 1.0,)) for i in range(3)}
    played = toy.play(clients, stop={"rounds": 2})
    assert played.at("RoundClosed") == [3.0, 6.0]
    assert [e.duration for e in played.of("RoundClosed")] == [3.0, 3.0]
    assert (played.reason, played.end) == ("rounds", 6.0)


def test_the_new_model_is_the_mean_by_examples(toy):
    """1 example says (4, 0, 8), 3 say (0, 4, 0): their mean is (1, 3, 2)."""
    clients = {"c/0": toy.Client((4.0, 0.0, 8.0), examples=1), "c/1": toy.Client((0.0, 4.0, 0.0), examples=3)}
    assert toy.play(clients).weights == [1.0, 3.0, 2.0]


# --- the deadline


def with_straggler(toy, *, policy=None, late="cancel", **straggler):
    """A client that needs 1 s and one as given; the round closes at 3 s without the second."""
    clients = {"c/0": toy.Client((1.0, 1.0, 1.0)), "c/1": toy.Client((9.0, 9.0, 9.0), **straggler)}
    return toy.play(clients, policy={"deadline": 3.0, "late": late, **(policy or {})})


def test_a_deadline_closes_the_round_without_the_straggler(toy):
    """The straggler would need 10 s; its whole task crossed and is wasted, and it never finishes training."""
    played = with_straggler(toy, takes=(10.0,))
    closed = played.the("RoundClosed")
    assert (closed.at, closed.aggregated, closed.late, closed.lost) == (3.0, 1, 1, 0)
    assert played.weights == [1.0, 1.0, 1.0]
    lost = played.the("UpdateLost")
    assert (lost.client, lost.at, lost.reason) == ("c/1", 3.0, "late")
    assert lost.wasted == played.the("TaskSent", client="c/1").bytes
    assert not played.of("TrainingFinished", client="c/1")


def test_a_download_that_is_cut_off_wastes_what_had_crossed(toy):
    """10 bytes a second for 3 s: 30 bytes are wasted, the rest of the task was never sent, and nothing was trained."""
    played = with_straggler(toy, down=toy.way(rate=80.0))
    ended, lost = played.the("TransferEnded", client="c/1"), played.the("UpdateLost")
    assert (lost.at, lost.reason, lost.wasted) == (3.0, "late", 30)
    assert (ended.at, ended.outcome, ended.bytes, ended.delay) == (3.0, "cut", 30, None)
    assert not played.of("TaskReceived", client="c/1")


def test_an_upload_that_is_cut_off_wastes_what_had_crossed(toy):
    """Trained at 1 s, 10 bytes a second until 3 s: 20 bytes of update, and the whole task."""
    played = with_straggler(toy, up=toy.way(rate=80.0))
    task, lost = played.the("TaskSent", client="c/1").bytes, played.the("UpdateLost")
    ended = played.the("TransferEnded", client="c/1", direction="up")
    assert (lost.at, lost.wasted) == (3.0, task + 20)
    assert (ended.at, ended.began, ended.outcome, ended.bytes) == (3.0, 1.0, "cut", 20)


def test_an_upload_goes_on_until_the_cancel_has_reached_its_sender(toy):
    """0.5 s later the task comes and the cancel too: from 1.5 s to 3.5 s, 20 bytes; 0.25 s up: known at 3.75 s."""
    played = with_straggler(toy, up=toy.way(rate=80.0, delay=0.25), down=toy.way(delay=0.5))
    task, lost = played.the("TaskSent", client="c/1").bytes, played.the("UpdateLost")
    ended = played.the("TransferEnded", client="c/1", direction="up")
    assert (lost.at, lost.wasted) == (3.75, task + 20)
    assert (ended.at, ended.began, ended.outcome, ended.bytes) == (3.5, 1.5, "cut", 20)


def test_an_update_that_is_stalled_at_the_close_was_never_sent(toy):
    """Trained at 1 s, stalled until 5 s: at 3 s no byte of the update has left."""
    played = with_straggler(toy, up=toy.way(before=[("stall", stall(probability=1.0, duration=4.0))]))
    lost = played.the("UpdateLost")
    ended = played.the("TransferEnded", client="c/1", direction="up")
    assert (ended.at, ended.began, ended.outcome, ended.bytes) == (3.0, 3.0, "cut", 0)  # it was not to begin before 5 s
    assert lost.wasted == played.the("TaskSent", client="c/1").bytes


def test_an_update_that_is_under_way_at_the_close_is_received_late(toy):
    """Sent at 1 s, 5 s of delay: all of it crossed the link for nothing, and at 6 s the server knows."""
    played = with_straggler(toy, up=toy.way(delay=5.0))
    size = played.the("TaskSent", client="c/1").bytes + played.the("UpdateSent", client="c/1").bytes
    assert played.at("UpdateReceived", client="c/1") == [6.0]
    lost = played.the("UpdateLost")
    assert (lost.at, lost.reason, lost.wasted) == (6.0, "late", size)
    ended = played.the("TransferEnded", client="c/1", direction="up")
    assert (ended.at, ended.outcome, ended.delay) == (1.0, "delivered", 5.0)


def test_a_cancel_that_catches_up_with_its_task_is_answered(toy):
    """The task and the cancel arrive together at 10 s: 7 s of delay for the one, 10 s for the other, in order."""
    delays = iter([10.0, 7.0, 7.0])

    def slow(packet, rng):
        return packet._replace(at=packet.at + next(delays))

    played = with_straggler(toy, down=toy.way(after=[("slow", slow)]))
    lost = played.the("UpdateLost")
    assert (lost.at, lost.reason) == (10.0, "late")
    assert not played.of("TrainingFinished", client="c/1")


def test_an_update_at_the_moment_of_the_close_does_not_leak_into_the_next_round(toy):
    """The straggler's update of round 1 comes at exactly 3 s: round 2 has its own two updates, and no third."""
    clients = {"c/0": toy.Client((1.0, 0.0, 0.0)), "c/1": toy.Client((5.0, 0.0, 0.0), takes=(3.0, 1.0))}
    played = toy.play(clients, policy={"deadline": 3.0}, stop={"rounds": 2}, every=1)
    assert [(e.at, e.aggregated, e.late) for e in played.of("RoundClosed")] == [(3.0, 1, 1), (4.0, 2, 0)]
    assert played.models == [[1.0, 0.0, 0.0], [4.0, 0.0, 0.0]]
    assert [(e.round, e.at) for e in played.of("UpdateLost")] == [(1, 3.0)]


def test_a_deadline_off_the_nanosecond_grid_closes_the_round(toy):
    """A third of a second is no whole number of nanoseconds; a round once waited for ever for a moment in between."""
    played = toy.play({"c/0": toy.Client(takes=(0.1,)), "c/1": toy.Client()}, policy={"deadline": 1 / 3})
    assert played.the("RoundClosed").at == 0.333333333


def test_a_round_below_its_quorum_goes_on_until_it_is_there(toy):
    """2 of 4 are asked for; at the deadline of 1.5 s one is there, at 2 s two are."""
    clients = {f"c/{i}": toy.Client(takes=(i + 1.0,)) for i in range(4)}
    played = toy.play(clients, policy={"deadline": 1.5, "quorum": 2})
    closed = played.the("RoundClosed")
    assert (closed.at, closed.aggregated, closed.late) == (2.0, 2, 2)


def test_a_round_closes_at_its_goal_although_more_were_asked(toy):
    """Over-selection: 2 of 3 updates are wanted, and there at 2 s."""
    clients = {f"c/{i}": toy.Client(takes=(i + 1.0,)) for i in range(3)}
    closed = toy.play(clients, policy={"goal": 2}).the("RoundClosed")
    assert (closed.at, closed.aggregated, closed.late) == (2.0, 2, 1)


# --- those who are late


def test_dropped_clients_finish_are_ignored_and_are_busy_until_then(toy):
    """The straggler needs 5 s, rounds close at 3 s and then each second; it is asked again in the round after 5 s."""
    clients = {"c/0": toy.Client((1.0, 0.0, 0.0)), "c/1": toy.Client((7.0, 0.0, 0.0), takes=(5.0, 1.0))}
    played = toy.play(clients, policy={"deadline": 3.0, "late": "drop"}, stop={"rounds": 4}, every=1)
    assert played.at("RoundClosed") == [3.0, 4.0, 5.0, 6.0]
    assert [e.round for e in played.of("TaskSent", client="c/1")] == [1, 4]
    assert [(e.round, e.at, e.reason) for e in played.of("UpdateLost")] == [(1, 5.0, "late")]
    assert [w for w, _, _ in played.models] == [1.0, 2.0, 3.0, 7.0]  # +1, +1, +1, +(1 + 7) / 2


def test_kept_updates_are_used_in_a_later_round_with_their_staleness(toy):
    """The straggler's update of round 1 comes at 3.5 s, in round 2, which started with version 1: staleness 1."""
    clients = {"c/0": toy.Client((1.0, 0.0, 0.0)), "c/1": toy.Client((7.0, 0.0, 0.0), takes=(3.5,))}
    played = toy.play(clients, policy={"deadline": 3.0, "late": "keep"}, stop={"rounds": 2}, every=1)
    assert [(e.at, e.aggregated, e.late) for e in played.of("RoundClosed")] == [(3.0, 1, 0), (4.0, 2, 0)]
    assert [(e.client, e.round, e.staleness) for e in played.of("UpdateReceived")] == [
        ("c/0", 1, 0),
        ("c/1", 1, 1),
        ("c/0", 2, 0),
    ]
    assert played.models == [[1.0, 0.0, 0.0], [5.0, 0.0, 0.0]]


# --- rounds that fail


def test_a_round_with_nobody_left_fails_and_what_had_come_counts_for_the_next(toy):
    """Quorum 2; c/1 leaves at 2 s and is back at 5 s: round 2 starts then, wants 2, and has c/0's first already."""
    clients = {"c/0": toy.Client((2.0, 0.0, 0.0)), "c/1": toy.Client((4.0, 0.0, 0.0), takes=(3.0,))}

    async def leave_and_return(federation, rejoin):
        await federation.clock.sleep_until(2.0)
        await federation.conversations["c/1"].aclose()
        await federation.clock.sleep_until(5.0)
        rejoin("c/1")

    played = toy.play(clients, policy={"quorum": 2}, stop={"rounds": 2}, meanwhile=leave_and_return)
    failed, closed = played.the("RoundFailed"), played.the("RoundClosed")
    assert (failed.at, failed.round) == (2.0, 1)
    assert (failed.reason) == "1 updates, and nobody left to wait for"
    assert (closed.round, closed.at, closed.aggregated) == (2, 6.0, 2)  # c/0 again after 1 s
    assert played.weights == [2.0, 0.0, 0.0]
    lost = played.of("UpdateLost")[0]
    assert (lost.client, lost.reason) == ("c/1", "client left: the other end closed the connection")


def test_a_round_counts_from_when_its_clients_are_there(toy):
    """The only client is away from 0.5 s to 10 s; the deadline of 3 s is not over before its round has begun."""

    async def leave_and_return(federation, rejoin):
        await federation.clock.sleep_until(0.5)
        await federation.conversations["c/0"].aclose()
        await federation.clock.sleep_until(10.0)
        rejoin("c/0")

    played = toy.play({"c/0": toy.Client()}, policy={"deadline": 3.0}, stop={"rounds": 2}, meanwhile=leave_and_return)
    assert played.at("RoundStarted") == [0.0, 10.0]
    closed = played.the("RoundClosed")
    assert (closed.at, closed.duration) == (11.0, 1.0)


def test_what_is_lost_at_the_moment_of_the_close_is_lost_and_not_late(toy):
    """Two updates come at once and one closes the round; the other was refused, and is counted although none waits."""

    def answering(numbers):
        async def script(conversation):
            while not isinstance((message := await conversation.receive()).header, toy.pb.Goodbye):
                if isinstance(message.header, toy.pb.Task):
                    update = toy.pb.Update(assignment=message.header.assignment, num_examples=1)
                    await conversation.send(toy.Message(update, {"delta": torch.ones(numbers)}))

        return toy.Client(script=script)

    played = toy.play({"c/0": answering(3), "c/1": answering(2)}, policy={"goal": 1})
    closed = played.the("RoundClosed")
    assert (closed.aggregated, closed.late, closed.lost) == (1, 0, 1)


def test_a_client_that_comes_back_within_a_round_gets_its_next_turn(toy):
    """No barrier, goal 3: c/1 leaves at 0.5 s and is back at 1.25 s, when c/0's first update has made no model yet."""

    async def leave_and_return(federation, rejoin):
        await federation.clock.sleep_until(0.5)
        await federation.conversations["c/1"].aclose()
        await federation.clock.sleep_until(1.25)
        rejoin("c/1")

    played = toy.play(
        {"c/0": toy.Client(), "c/1": toy.Client()},
        policy={"goal": 3, "barrier": False, "late": "keep"},
        meanwhile=leave_and_return,
    )
    assert [(job.round, job.turn) for job in played.jobs if job.client == "c/1"] == [(1, 1), (1, 2)]


# --- no barrier


def test_without_a_barrier_each_update_makes_a_model_and_room_for_its_client(toy):
    """FedAsync, 1 s and 2.5 s: at 2.5 s two versions were made since c/1 started; at 3 s one since c/0 did."""
    clients = {"c/0": toy.Client(takes=(1.0,)), "c/1": toy.Client(takes=(2.5,))}
    policy = {"goal": 1, "barrier": False, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"rounds": 5})
    assert played.at("RoundClosed") == [1.0, 2.0, 2.5, 3.0, 4.0]
    assert [(e.client, e.at, e.staleness) for e in played.of("UpdateReceived")] == [
        ("c/0", 1.0, 0),
        ("c/0", 2.0, 0),
        ("c/1", 2.5, 2),
        ("c/0", 3.0, 1),
        ("c/0", 4.0, 0),
    ]


def test_a_buffer_of_two_makes_a_model_of_every_second_update(toy):
    """FedBuff, 1 s and 2.25 s. c/0 at 1, 2 s: version 1. c/1 at 2.25 (stale 1), c/0 at 3 s (0): version 2."""
    clients = {"c/0": toy.Client((1.0, 0.0, 0.0)), "c/1": toy.Client((5.0, 0.0, 0.0), takes=(2.25,))}
    policy = {"goal": 2, "barrier": False, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"rounds": 2}, every=1)
    assert played.at("RoundClosed") == [2.0, 3.0]
    assert [e.staleness for e in played.of("UpdateReceived")] == [0, 0, 1, 0]
    assert played.models == [[1.0, 0.0, 0.0], [4.0, 0.0, 0.0]]  # (1 + 1) / 2, then (5 + 1) / 2
    assert [(e.round, e.at) for e in played.of("TaskSent", client="c/0")] == [(1, 0.0), (1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("goal", [1, 2])
def test_no_more_than_the_concurrency_are_at_work(toy, goal):
    """Four clients, three of them at once: a task opens, an update or a loss closes."""
    clients = {f"c/{i}": toy.Client(takes=(1.0 + 0.3 * i,)) for i in range(4)}
    policy = {"concurrency": 3, "goal": goal, "barrier": False, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"rounds": 8})
    at_work, most = 0, 0
    for event in played.events:
        at_work += {"TaskSent": 1, "UpdateReceived": -1, "UpdateLost": -1}.get(type(event).__name__, 0)
        most = max(most, at_work)
    assert most == 3


def test_a_round_that_closes_gives_out_no_more_tasks(toy):
    """Overdue at 1.5 s, one update at 2 s is enough: c/0 is asked again in round 2, and not just before in round 1."""
    clients = {"c/0": toy.Client(takes=(2.0,)), "c/1": toy.Client(takes=(3.0,))}
    policy = {"goal": 2, "barrier": False, "deadline": 1.5, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"rounds": 2})
    assert played.at("RoundClosed") == [2.0, 3.5]
    assert [(e.round, e.version) for e in played.of("TaskSent", client="c/0")] == [(1, 0), (2, 1)]


def test_updates_that_nobody_took_before_the_end_are_late(toy):
    """Goal 1, and both come at 1 s: the first ends the run, the second was for nothing; its task has an outcome too."""
    clients = {"c/0": toy.Client(), "c/1": toy.Client()}
    played = toy.play(clients, policy={"goal": 1, "barrier": False, "late": "keep"})
    assert [(e.client, e.reason) for e in played.of("UpdateLost")] == [("c/1", "late")]


# --- the end


def test_a_run_stops_when_it_reaches_its_accuracy(toy):
    """1/10 a round: 0.3 after the third of at most ten."""
    played = toy.play(
        {"c/0": toy.Client()}, stop={"accuracy": 0.25, "rounds": 10}, every=1, accuracy=lambda w: w[0] / 10
    )
    reached = played.the("TargetReached")
    assert (played.reason, played.end, reached.round, reached.at) == ("accuracy", 3.0, 3, 3.0)
    assert [e.accuracy for e in played.of("Evaluated")] == pytest.approx([0.1, 0.2, 0.3])


def test_a_run_stops_in_mid_round_when_its_time_is_over(toy):
    """2.5 s for rounds of 1 s: two close, the third is cut off, its client is late."""
    played = toy.play({"c/0": toy.Client()}, stop={"time": 2.5})
    assert (played.reason, played.end) == ("time", 2.5)
    assert played.at("RoundClosed") == [1.0, 2.0]
    assert [(e.round, e.at, e.reason) for e in played.of("UpdateLost")] == [(3, 2.5, "late")]
    assert played.models == [[2.0, 0.0, 0.0]]


def test_what_comes_when_the_time_is_over_is_too_late(toy):
    """2 s for rounds of 1 s: the second would close at this very moment, and does not."""
    played = toy.play({"c/0": toy.Client()}, stop={"time": 2.0})
    assert (played.reason, played.end) == ("time", 2.0)
    assert played.at("RoundClosed") == [1.0]
    assert played.weights == [1.0, 0.0, 0.0]


def test_the_deadline_and_the_end_of_the_run_at_once_end_the_run(toy):
    """Both at 2 s."""
    played = toy.play({"c/0": toy.Client(takes=(5.0,))}, policy={"deadline": 2.0}, stop={"time": 2.0})
    assert (played.reason, played.end) == ("time", 2.0)


def test_models_are_evaluated_every_so_many_rounds_and_at_the_end(toy):
    """Every 2 of 5: rounds 2 and 4, and the last model; of 4, the last is not evaluated twice."""
    for rounds, expected in [(5, [2, 4, 5]), (4, [2, 4])]:
        played = toy.play({"c/0": toy.Client()}, stop={"rounds": rounds}, every=2)
        assert [e.round for e in played.of("Evaluated")] == expected


# --- the log


def misbehaving(toy, probability, *, seed=1, deadline=6.0):
    """4 clients with jitter and stalls of 10 s."""

    def client(i):
        up = toy.way(
            delay=0.2, jitter=0.1, rate=4000.0, before=[("stall", stall(probability=probability, duration=10.0))]
        )
        return toy.Client(takes=(1.0 + i,), up=up, down=toy.way(delay=0.3, jitter=0.2, rate=4000.0))

    clients = {f"c/{i}": client(i) for i in range(4)}
    return toy.play(clients, policy={"deadline": deadline}, stop={"rounds": 12}, seed=seed)


def test_the_same_seed_gives_the_same_lines(toy):
    """Byte for byte; another seed gives others, so that the comparison can fail."""
    assert misbehaving(toy, 0.5).lines == misbehaving(toy, 0.5).lines
    assert misbehaving(toy, 0.5).lines != misbehaving(toy, 0.5, seed=2).lines


def test_who_is_stalled_seldom_is_stalled_often_too(toy):
    """One uniform draw a client and round, whatever the probability: stalls at 20 % are a part of those at 80 %."""

    def stalled(probability):
        played = misbehaving(toy, probability, deadline=float("inf"))
        left = {(e.client, e.round): e.at for e in played.of("UpdateSent")}
        return {key for e in played.of("UpdateReceived") if e.at > left[key := (e.client, e.round)] + 10}

    few, many = stalled(0.2), stalled(0.8)
    assert few < many
    assert 0 < len(few) < 24 < len(many)  # of 48


def test_a_quorum_above_the_goal_is_refused_by_the_policy():
    """Such a round closes at its goal, fails for its quorum, and so on without time going on."""
    with pytest.raises(AssertionError, match="would fail for want of its quorum"):
        RoundPolicy(concurrency=3, goal=3, quorum=5, barrier=False)


def test_updates_that_no_model_was_made_of_when_time_ended_the_run_are_lost(toy):
    """One of two updates is in at 1 s, the run ends at 1.5 s: both tasks have an outcome, and neither counts."""
    clients = {"c/0": toy.Client(takes=(1.0,)), "c/1": toy.Client(takes=(9.0,))}
    played = toy.play(clients, stop={"time": 1.5})
    assert [(e.client, e.reason) for e in played.of("UpdateLost")] == [("c/0", "unused"), ("c/1", "late")]
    assert played.of("RoundClosed") == []


def test_the_last_evaluation_names_the_round_that_made_the_model(toy):
    """Rounds take 1 s each and are evaluated every 4th; at 6.5 s the model is the 6th round's, though the 7th runs."""
    played = toy.play({"c/0": toy.Client(takes=(1.0,))}, stop={"time": 6.5}, every=4)
    assert [e.round for e in played.of("Evaluated")] == [4, 6]


def test_clients_that_can_do_nothing_do_not_spin_rounds(toy):
    """Too little memory on an ideal link: a failed round takes a second at least, and the last one ends the run."""
    small = Equipment(memory=Memory(11))
    played = toy.play({"c/0": toy.Client(equipment=small)}, stop={"rounds": 3})
    assert [event.at for event in played.of("RoundFailed")] == [0.0, 1.0, 2.0]
    assert played.end == 2.0  # nothing waits for a fourth
    assert [event.needed for event in played.of("MemoryExceeded")] == [12, 12, 12]
    assert {event.reason for event in played.of("UpdateLost")} == {"out of memory"}


def test_a_task_that_is_lost_at_once_makes_no_room_without_a_barrier(toy):
    """c/0 gives its task back in no time, for ever; c/1 works, and its updates close the rounds."""
    clients = {"c/0": toy.Client(equipment=Equipment(memory=Memory(11))), "c/1": toy.Client()}
    played = toy.play(clients, policy={"goal": 1, "barrier": False, "late": "keep"}, stop={"rounds": 3})
    assert [event.at for event in played.of("RoundClosed")] == [1.0, 2.0, 3.0]
    assert len(played.of("MemoryExceeded")) == 3  # once a round


def test_rounds_in_which_no_time_ever_passes_are_an_error(toy, monkeypatch):
    """An ideal link, no training time, and only time to end the run: it would never come."""
    monkeypatch.setattr(fedemu.rounds, "TIMELESS", 5)
    with pytest.raises(ExceptionGroup) as caught:
        toy.play({"c/0": toy.Client(takes=(0.0,))}, stop={"time": 3.0})
    error = first_of(caught.value)
    assert isinstance(error, RunError)
    assert str(error).startswith("5 rounds have taken no emulated time")


# --- a tick


@pytest.mark.parametrize("takes", [(1.0, 2.0), (1.0, 7.0)], ids=["all come", "one comes"])
def test_a_round_lasts_a_tick_whoever_comes(toy, takes):
    """5 s, with both updates there at 2 s, and with one; the next begins at once."""
    clients = {f"c/{slot}": toy.Client(takes=(each,)) for slot, each in enumerate(takes)}
    played = toy.play(clients, policy={"tick": 5.0, "late": "keep"}, stop={"rounds": 2})
    assert played.at("RoundStarted") == [0.0, 5.0]
    assert played.at("RoundClosed") == [5.0, 10.0]
    assert [e.duration for e in played.of("RoundClosed")] == [5.0, 5.0]


def test_a_tick_takes_more_updates_than_the_cohort_where_there_is_no_barrier(toy):
    """One client, 1.5 s: at 1.5, 3 and 4.5 s; its fourth at 6 s is stale by 1, and two that began after 5 s are not."""
    policy = {"tick": 5.0, "barrier": False, "late": "keep"}
    played = toy.play({"c/0": toy.Client(takes=(1.5,))}, policy=policy, stop={"rounds": 2})
    assert [(e.at, e.aggregated, e.late) for e in played.of("RoundClosed")] == [(5.0, 3, 0), (10.0, 3, 0)]
    received = [(e.at, e.staleness) for e in played.of("UpdateReceived")]
    assert received == [(1.5, 0), (3.0, 0), (4.5, 0), (6.0, 1), (7.5, 0), (9.0, 0)]


@pytest.mark.parametrize("barrier", [True, False])
def test_who_is_late_for_its_tick_comes_into_the_next_with_staleness_1(toy, barrier):
    """c/1 needs 7 s of ticks of 5 s: the second model is 1 + (1 + 9) / 2, as c/0 brings 1 in each of the ticks."""
    clients = {
        "c/0": toy.Client((1.0, 0.0, 0.0), takes=(4.0, 4.0, 9.0)),
        "c/1": toy.Client((9.0, 0.0, 0.0), takes=(7.0,)),
    }
    policy = {"tick": 5.0, "barrier": barrier, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"rounds": 2}, every=1)
    assert [(e.at, e.staleness) for e in played.of("UpdateReceived", client="c/1")] == [(7.0, 1)]
    assert played.models == [[1.0, 0.0, 0.0], [6.0, 0.0, 0.0]]


def test_a_tick_without_a_quorum_is_followed_by_another_of_the_same_round(toy):
    """Two are asked for; the second comes at 7 s, so that the only round takes two ticks, and 12 s take three."""
    for slow, closed in ((7.0, 10.0), (12.0, 15.0)):
        clients = {"c/0": toy.Client(), "c/1": toy.Client(takes=(slow,))}
        played = toy.play(clients, policy={"tick": 5.0, "quorum": 2, "late": "keep"})
        assert [(e.at, e.aggregated) for e in played.of("RoundClosed")] == [(closed, 2)]
        assert {e.staleness for e in played.of("UpdateReceived")} == {0}


def test_an_update_at_the_moment_of_a_tick_is_the_next_rounds(toy):
    """5 s of ticks of 5 s: what closes the round was there before; alone, there is no quorum before 10 s."""
    clients = {"c/0": toy.Client(takes=(1.0,)), "c/1": toy.Client(takes=(5.0,))}
    played = toy.play(clients, policy={"tick": 5.0, "late": "keep"}, stop={"rounds": 2})
    assert [e.aggregated for e in played.of("RoundClosed")] == [1, 2]
    assert [(e.at, e.staleness) for e in played.of("UpdateReceived", client="c/1")] == [(5.0, 1)]
    played = toy.play({"c/0": toy.Client(takes=(5.0,))}, policy={"tick": 5.0, "late": "keep"})
    assert (played.end, played.the("UpdateReceived").staleness) == (10.0, 0)


def test_a_tick_in_which_everybody_is_lost_is_a_round_that_failed(toy):
    """The only client leaves at 2 s and is back at 3 s: the round lasts until 5 s, and the next has it again."""

    async def leave_and_return(federation, rejoin):
        await federation.clock.sleep_until(2.0)
        await federation.conversations["c/0"].aclose()
        await federation.clock.sleep_until(3.0)
        rejoin("c/0")

    clients = {"c/0": toy.Client(takes=(4.0,))}
    policy = {"tick": 5.0, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"rounds": 2}, meanwhile=leave_and_return)
    failed, closed = played.the("RoundFailed"), played.the("RoundClosed")
    assert (failed.at, failed.reason) == (5.0, "0 updates, and nobody left to wait for")
    assert (closed.round, closed.at, closed.aggregated, closed.lost) == (2, 10.0, 1, 0)


def test_a_tick_cancels_the_late_where_it_is_told_to(toy):
    """c/1 needs 7 s of ticks of 5 s: it is stopped at 5 s, asked again at once, and stopped again."""
    clients = {"c/0": toy.Client(), "c/1": toy.Client(takes=(7.0,))}
    played = toy.play(clients, policy={"tick": 5.0, "late": "cancel"}, stop={"rounds": 2})
    assert [(e.at, e.aggregated, e.late) for e in played.of("RoundClosed")] == [(5.0, 1, 1), (10.0, 1, 1)]
    assert played.at("TaskSent", client="c/1") == [0.0, 5.0]
    assert not played.of("TrainingFinished", client="c/1")


# --- over-selection and asynchrony


def test_over_selection_cancels_who_is_not_needed_and_asks_it_again(toy):
    """2 of 3 are wanted, and there at 2 s: the third is stopped after 2 of its 3 s, and begins anew."""
    clients = {f"c/{slot}": toy.Client(takes=(slot + 1.0,)) for slot in range(3)}
    played = toy.play(clients, policy={"goal": 2}, stop={"rounds": 2})
    assert [(e.at, e.aggregated, e.late) for e in played.of("RoundClosed")] == [(2.0, 2, 1), (4.0, 2, 1)]
    assert [(e.at, e.round, e.reason) for e in played.of("UpdateLost")] == [(2.0, 1, "late"), (4.0, 2, "late")]
    assert played.at("TrainingStarted", client="c/2") == [0.0, 2.0]
    assert not played.of("TrainingFinished", client="c/2")


def test_a_buffer_of_two_keeps_three_clients_at_work(toy):
    """FedBuff, 1 s, 2.5 s, 3.25 s: who is done starts from the newest model there is, at once.

    c/0 at 1 and 2 s: version 1. c/1 at 2.5 s, c/0 at 3 s: version 2. c/2 at 3.25 s, c/0 at 4 s: version 3.
    """
    clients = {f"c/{slot}": toy.Client(takes=(each,)) for slot, each in enumerate((1.0, 2.5, 3.25))}
    policy = {"goal": 2, "concurrency": 3, "barrier": False, "late": "keep"}
    played = toy.play(clients, policy=policy, stop={"rounds": 3})
    assert played.at("RoundClosed") == [2.0, 3.0, 4.0]
    received = [(e.client, e.at, e.staleness) for e in played.of("UpdateReceived")]
    assert received == [
        ("c/0", 1.0, 0),
        ("c/0", 2.0, 0),
        ("c/1", 2.5, 1),
        ("c/0", 3.0, 0),
        ("c/2", 3.25, 2),
        ("c/0", 4.0, 0),
    ]
    given = {name: [(e.at, e.version) for e in played.of("TaskSent", client=name)] for name in clients}
    assert given == {
        "c/0": [(0.0, 0), (1.0, 0), (2.0, 1), (3.0, 2)],
        "c/1": [(0.0, 0), (2.5, 1)],
        "c/2": [(0.0, 0), (3.25, 2)],
    }


def test_fedasync_mixes_what_a_client_arrived_at_from_the_model_that_it_had(toy):
    """Half and half: 4 at 1 s gives 2; 2 + 4 at 2 s gives 4; 0 + 8 at 2.5 s gives 6; 4 + 4 at 3 s gives 7."""
    clients = {"c/0": toy.Client((4.0, 0.0, 0.0)), "c/1": toy.Client((8.0, 0.0, 0.0), takes=(2.5,))}
    played = toy.play(
        clients,
        policy={"goal": 1, "barrier": False, "late": "keep"},
        stop={"rounds": 4},
        every=1,
        strategy=fedasync(Training(), alpha=0.5, staleness="constant"),
    )
    assert played.at("RoundClosed") == [1.0, 2.0, 2.5, 3.0]
    assert [model[0] for model in played.models] == [2.0, 4.0, 6.0, 7.0]


# --- what a selector sees


def seen_by(select, seen):
    """Select likewise, and note the views."""

    def noting(views, count, rng):
        seen.append({view.client: view for view in views})
        return select(views, count, rng)

    return noting


def test_a_selector_sees_what_became_of_earlier_tasks(toy):
    """c/1 needs 10 s and is given up at 3 s: as long as that it took at least. c/2 is never asked."""

    def train(job):
        return Trained(torch.ones(3), 1, 2, train_loss=0.25, squared_loss=0.125), {}

    seen, asked = [], iter([2, 1, 2])
    clients = {"c/0": toy.Client(train=train), "c/1": toy.Client(takes=(10.0,)), "c/2": toy.Client()}
    toy.play(
        clients,
        policy={"concurrency": 2, "goal": 2, "deadline": 3.0},
        stop={"rounds": 3},
        select=seen_by(lambda views, count, rng: [view.client for view in views[: next(asked)]], seen),
    )
    fresh = {name: ClientView(name, "c", 1) for name in clients}
    once = replace(fresh["c/0"], asked=1, last_asked=1, answered=1, loss=0.25, squared_loss=0.125, duration=1.0)
    given_up = replace(fresh["c/1"], asked=1, last_asked=1, duration=3.0)
    assert seen[0] == fresh
    assert seen[1] == {"c/0": once, "c/1": given_up, "c/2": fresh["c/2"]}
    assert seen[2] == {"c/0": replace(once, asked=2, last_asked=2, answered=2), "c/1": given_up, "c/2": fresh["c/2"]}


def test_an_update_that_comes_late_is_an_answer_too(toy):
    """c/1 needs 3.5 s of 3: dropped, it has answered, and took 3.5 s; c/0 has no examples and so no loss."""

    def train(job):
        return Trained(torch.zeros(3), 0, 0, train_loss=math.nan), {}

    seen = []
    clients = {"c/0": toy.Client(train=train, examples=0), "c/1": toy.Client(takes=(3.5,)), "c/2": toy.Client()}
    toy.play(clients, policy={"deadline": 3.0, "late": "drop"}, stop={"rounds": 3}, select=seen_by(toy.first, seen))
    assert "c/1" not in seen[1]  # at 3 s it is busy
    late = seen[2]["c/1"]
    assert (late.answered, late.duration, late.loss) == (1, 3.5, 0.5)
    assert (seen[1]["c/0"].answered, seen[1]["c/0"].loss, seen[1]["c/0"].squared_loss) == (1, None, None)


def test_a_selector_sees_the_conditions_of_the_moment(toy):
    """The second round begins at 1 s, from which on c/0 is charged."""
    seen = []
    client = toy.Client(conditions=lambda now: frozenset({"charging"} if now >= 1.0 else ()))
    toy.play({"c/0": client}, stop={"rounds": 2}, select=seen_by(toy.first, seen))
    assert [views["c/0"].conditions for views in seen] == [frozenset(), {"charging"}]


# --- nobody to choose


def charged_from(toy, moment):
    return toy.Client(conditions=lambda now: frozenset({"charging"} if now >= moment else ()))


def test_a_round_waits_for_somebody_whom_the_selector_will_have(toy):
    """A look every 10 s: charged from 25 s on, c/0 is found at 30 s, c/1 is not before the next round."""
    clients = {"c/0": charged_from(toy, 25.0), "c/1": charged_from(toy, 30.5)}
    played = toy.play(clients, select=eligible(require=["charging"]), stop={"rounds": 2}, policy={"goal": 1})
    assert played.at("RoundStarted") == [30.0, 31.0]
    assert [e.cohort for e in played.of("RoundStarted")] == [("c/0",), ("c/0", "c/1")]
    assert [(e.at, e.duration) for e in played.of("RoundClosed")] == [(31.0, 1.0), (32.0, 1.0)]


def test_a_run_ends_in_time_though_its_first_round_never_begins(toy):
    """Nobody is ever charged, and the time is over at 25 s."""
    played = toy.play({"c/0": charged_from(toy, math.inf)}, select=eligible(require=["charging"]), stop={"time": 25.0})
    assert (played.reason, played.end, played.of("RoundStarted")) == ("time", 25.0, [])


def test_a_selector_that_never_has_anybody_is_an_error(toy, monkeypatch):
    """It is told after 30 days; here after an eighth of one, which is 1080 looks."""
    assert fedemu.rounds.NOBODY == 30 * 86400.0
    monkeypatch.setattr(fedemu.rounds, "NOBODY", 10800.0)
    with pytest.raises(ExceptionGroup) as caught:
        toy.play({"c/0": charged_from(toy, math.inf)}, select=eligible(require=["charging"]))
    error = first_of(caught.value)
    assert isinstance(error, RunError)
    assert str(error) == "rounds.select has found no client for 0.125 days; look at the clients' conditions"


# --- targets


def test_targets_are_told_once_each_in_ascending_order_and_end_nothing(toy):
    """1/10 a round, written in any order: 10 % after the first, 25 % and 30 % after the third of four."""
    played = toy.play(
        {"c/0": toy.Client()},
        stop={"rounds": 4, "targets": (0.3, 0.1, 0.25, 0.9)},
        every=1,
        accuracy=lambda w: w[0] / 10,
    )
    assert [(e.round, e.accuracy) for e in played.of("TargetReached")] == [(1, 0.1), (3, 0.25), (3, 0.3)]
    assert (played.reason, played.end) == ("rounds", 4.0)


def test_a_target_that_is_the_runs_own_too_is_told_once(toy):
    """At 20 % the run ends; 30 % is not reached then."""
    played = toy.play(
        {"c/0": toy.Client()},
        stop={"accuracy": 0.2, "rounds": 9, "targets": (0.3, 0.2, 0.1)},
        every=1,
        accuracy=lambda w: w[0] / 10,
    )
    assert [(e.round, e.accuracy) for e in played.of("TargetReached")] == [(1, 0.1), (2, 0.2)]
    assert (played.reason, played.end) == ("accuracy", 2.0)


@pytest.mark.parametrize(
    ("select", "text"),
    [
        (lambda idle, count, rng: ["c/7"], "ValueError: it chose ('c/7',); expected at most 2 of 2 idle clients, each"),
        (lambda idle, count, rng: ["c/0", "c/0"], "ValueError: it chose ('c/0', 'c/0'); expected at most 2 of 2 idle"),
        (lambda idle, count, rng: idle, "TypeError: it chose a ClientView; expected names, ClientView.client"),
        (lambda idle, count, rng: idle[0].lozz, "AttributeError: 'ClientView' object has no attribute 'lozz'"),
    ],
)
def test_a_selector_that_goes_wrong_ends_the_run_and_is_named(toy, select, text):
    """Somebody's own, which no test has seen before."""
    with pytest.raises(BaseExceptionGroup) as caught:
        toy.play({"c/0": toy.Client(), "c/1": toy.Client()}, select=select)
    error = first_of(caught.value)
    assert isinstance(error, RunError)
    assert str(error).startswith(f"rounds.select failed: {text}")
