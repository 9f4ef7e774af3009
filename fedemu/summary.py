"""What a person wants to know of a run when it is over: a few lines of text."""

from collections.abc import Mapping
from typing import Any

from fedemu.units import show_duration, show_size

Result = Mapping[str, Any]
"""The content of a `result.json`."""


def of_run(result: Result) -> str:
    """Return the summary of one run."""
    target, final, carried, updates = (result[key] for key in ("target", "final", "bytes", "updates"))
    lines = []
    if target is not None:
        if target["reached"]:
            how = f"reached after {show_duration(target['time'])} of emulated time, in round {target['round']}"
        else:
            how = f"not reached; the run was stopped by {result['stopped_by']}"
        lines.append(("target", f"{100 * target['accuracy']:.4g} % accuracy, {how}"))
    for other in result.get("targets", ()):
        when = f"after {show_duration(other['time'])}, in round {other['round']}" if other["reached"] else "not reached"
        lines.append(("also", f"{100 * other['accuracy']:.4g} %, {when}"))
    if final is not None:
        when = f"in round {final['round']}" if final["round"] else "as no round has changed the model"
        lines.append(("accuracy", f"{100 * final['accuracy']:.4g} % at the end, {when}"))
    spent = f"{result['emulated_seconds']:.3f} s ({show_duration(result['emulated_seconds'])})"
    up, down, wasted = (show_size(carried[key]) for key in ("up", "down", "wasted"))
    counts = ", ".join(f"{updates[key]} {key}" for key in ("aggregated", "late", "lost", "rejected"))
    lines += [
        ("emulated time", f"{spent}, computed in {show_duration(result['wall_seconds'])}"),
        ("traffic", f"{up} up, {down} down, {wasted} of it wasted"),
        ("updates", f"{counts}; {result['calls']['retried']} calls retried"),
        *(("rejected", f"{count}: {reason}") for reason, count in result.get("rejections", {}).items()),
        *(
            ("link", f"{group} {direction}: {_link(link)}")
            for group, directions in result.get("links", {}).items()
            for direction, link in directions.items()
            if link["seconds"] is not None and (link["seconds"]["max"] or link["delay"] is None or link["delay"]["max"])
        ),
        *(("energy", f"{group}: {_energy(phases)}") for group, phases in result.get("energy", {}).items()),
        *(
            ("delay", f"{group} {direction}: {_delay(delay)}")
            for group, directions in result.get("delays", {}).items()
            for direction, delay in directions.items()
        ),
        ("digest", result["digest"]),
    ]
    heading = f"{result['name']}, seed {result['seed']}, {result['clock']} clock over {result['transport']}"
    return "\n".join([heading, *(f"  {label:<14} {text}" for label, text in lines)])


def _link(link: Mapping[str, Any]) -> str:
    """Write what a group's transfers were like: how many, how fast, how late, and what went wrong."""
    outcomes = link["outcomes"]
    parts = [f"{outcomes.get('delivered', 0):,} delivered"]
    parts += [f"{count:,} {outcome}" for outcome, count in outcomes.items() if outcome != "delivered"]
    if link["throughput"] is not None:
        parts.append(f"{link['throughput']['p50'] / 1e6:.3g} Mbit/s")
    if link["delay"] is not None:
        parts.append(f"{1e3 * link['delay']['p50']:.3g} ms of delay (medians)")
    if link["queued"]["mean"]:
        parts.append(f"{show_duration(link['queued']['mean'])} queued")
    if link["retransmitted"]:
        parts.append(f"{link['retransmitted']:,} segments sent again")
    return ", ".join(parts)


def _energy(phases: Mapping[str, float]) -> str:
    parts = ", ".join(f"{joules:,.4g} J {phase}" for phase, joules in sorted(phases.items()))
    return f"{sum(phases.values()):,.4g} J ({parts})"


def _delay(measured: Mapping[str, Any]) -> str:
    """Write what a link asked for and what it was, both as means, and how far they lie apart."""
    requested, achieved = (f"{1e3 * measured[key]['mean']:.1f} ms {key}" for key in ("requested", "achieved"))
    error = ", ".join(f"{key} {1e3 * measured['error'][key]:.1f} ms" for key in ("p50", "p99", "max"))
    return f"{requested}, {achieved} (error {error}; {measured['count']:,} messages)"
