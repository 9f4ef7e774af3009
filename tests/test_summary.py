"""What a person reads when a run is over."""

from fedemu.summary import of_run


def result(**changes):
    """The result of a run that reached its target, with some keys different."""
    reached = {"accuracy": 0.6, "reached": True, "time": 185.0, "round": 4, "updates": 8, "bytes": {"up": 1, "down": 1}}
    return {
        "name": "small",
        "seed": 3,
        "clock": "virtual",
        "transport": "memory",
        "target": reached,
        "stopped_by": "accuracy",
        "final": {"accuracy": 0.6123, "loss": 1.0, "round": 4, "time": 185.0},
        "emulated_seconds": 185.0,
        "wall_seconds": 2.5,
        "bytes": {"up": 1_500_000, "down": 2_500_000, "wasted": 999},
        "updates": {"aggregated": 8, "late": 1, "lost": 2, "rejected": 0},
        "calls": {"sent": 22, "retried": 3, "failed": 0},
        "digest": "abc",
        **changes,
    }


def test_a_runs_summary_has_a_line_for_each_number() -> None:
    """Every number of the result above, with its unit."""
    assert of_run(result()).splitlines() == [
        "small, seed 3, virtual clock over memory",
        "  target         60 % accuracy, reached after 3min 05s of emulated time, in round 4",
        "  accuracy       61.23 % at the end, in round 4",
        "  emulated time  185.000 s (3min 05s), computed in 2.5s",
        "  traffic        1.5MB up, 2.5MB down, 999B of it wasted",
        "  updates        8 aggregated, 1 late, 2 lost, 0 rejected; 3 calls retried",
        "  digest         abc",
    ]


def test_what_was_rejected_says_why() -> None:
    """A line for each reason."""
    why = {"delta has numbers that are not finite": 7, "num_examples 0": 1}
    lines = of_run(result(rejections=why)).splitlines()
    assert [line for line in lines if line.startswith("  rejected")] == [
        "  rejected       7: delta has numbers that are not finite",
        "  rejected       1: num_examples 0",
    ]


def test_a_run_on_the_real_clock_tells_how_far_its_delays_can_be_trusted() -> None:
    """One line a link, in milliseconds."""

    def spread(mean: float, p50: float, p99: float, most: float) -> dict[str, float]:
        return {"mean": mean, "p50": p50, "p90": p50, "p99": p99, "max": most}

    up = {
        "count": 1320,
        "requested": spread(0.04, 0.039, 0.05, 0.06),
        "achieved": spread(0.0404, 0.039, 0.05, 0.06),
        "error": spread(0.0004, 0.0003, 0.0011, 0.002),
    }
    lines = of_run(result(clock="real", delays={"wifi": {"up": up, "down": {**up, "count": 7}}})).splitlines()
    text = "40.0 ms requested, 40.4 ms achieved (error p50 0.3 ms, p99 1.1 ms, max 2.0 ms"
    assert lines[-3:] == [
        f"  delay          wifi up: {text}; 1,320 messages)",
        f"  delay          wifi down: {text}; 7 messages)",
        "  digest         abc",
    ]


def test_a_target_that_was_missed_says_what_stopped_the_run() -> None:
    """Censored: no time is printed as if it were the answer."""
    missed = {**result()["target"], "reached": False}
    line = of_run(result(target=missed, stopped_by="rounds")).splitlines()[1]
    assert line == "  target         60 % accuracy, not reached; the run was stopped by rounds"


def test_what_is_not_known_has_no_line() -> None:
    """No target was set, and nothing was evaluated."""
    labels = [line.split("  ")[1] for line in of_run(result(target=None, final=None)).splitlines()[1:]]
    assert labels == ["emulated time", "traffic", "updates", "digest"]
