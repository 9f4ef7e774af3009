"""The runs of a scenario, one after the other or several at once; those that a directory has already are not run again.

Runs depend on nothing but their cell, so that any order and any number at once gives the same results. What is compared
of them stands in `summary.csv`.
"""

import dataclasses
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from fedemu import __version__, experiment, recovery
from fedemu.comparison import Run, as_csv, compared
from fedemu.compute.inline import inline
from fedemu.compute.pool import end_with_parent
from fedemu.errors import Fault, RunError, ScenarioError
from fedemu.events import Observer
from fedemu.scenario import Cell, Experiment, differences


class Progress(NamedTuple):
    """A run that is over."""

    cell: Cell
    result: dict[str, Any]
    number: int
    """How many of the runs are over, this one included."""
    is_old: bool
    """The directory had it already."""


def run(
    plan: Experiment,
    *,
    out: Path | None = None,
    jobs: int = 1,
    resume: bool = False,
    watch: Callable[[Cell], AbstractContextManager[Sequence[Observer]]] = lambda _: nullcontext(()),
    tell: Callable[[Progress], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
) -> list[Run]:
    """Run all cells of a scenario; return their outcomes in the order of the cells.

    Args:
        plan: The scenario.
        out: The run directory; that of a grid gets a directory for each cell, and `summary.csv`. None writes nothing.
        jobs: Runs at once. More than one are in processes of their own, each with one worker, and nobody watches them.
        resume: Leave out the runs that `out` has already; one that did not come to its end goes on from its checkpoint,
            or where there is none, begins again. Either way it replaces what it had written.
        watch: Makes observers of a run.
        tell: Told of each run that is over.
        announce: Told which run goes on from which round; not where several run at once.

    Raises:
        ScenarioError: `out` has a run of another scenario or of another version.
        FedemuError: A run failed; those that were over are in `out`.
        KeyboardInterrupt: It was interrupted.
    """
    found = finished(plan, out) if resume and out is not None else {}
    runs: dict[str, Run] = {}

    def take(cell: Cell, result: dict[str, Any], *, is_old: bool = False) -> None:
        runs[cell.path] = Run(cell.variant, cell.values, result)
        tell(Progress(cell, result, len(runs), is_old))

    def ordered() -> list[Run]:
        return [runs[cell.path] for cell in plan.cells if cell.path in runs]

    for cell in plan.cells:
        if cell.path in found:
            take(cell, found[cell.path], is_old=True)
    left = [cell for cell in plan.cells if cell.path not in found]
    try:
        if left:
            alone = min(jobs, len(left)) == 1
            if alone:
                how = _in_turn(left, plan.question, out, resume, watch, announce)
            else:
                how = _at_once(left, plan.question, out, resume, jobs)
            for cell, result in how:
                take(cell, result)
    finally:
        if out is not None and plan.is_grid and runs:
            (out / "summary.csv").write_text(as_csv(compared(ordered())), encoding="utf-8")
    return ordered()


def _in_turn(
    cells: Sequence[Cell],
    question: str,
    out: Path | None,
    resume: bool,
    watch: Callable[[Cell], AbstractContextManager[Sequence[Observer]]],
    announce: Callable[[str], None],
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    with experiment.workers_for(cell.scenario for cell in cells) as compute:
        for cell in cells:
            with watch(cell) as observers:
                folder = out and out / cell.path
                yield (
                    cell,
                    experiment.run(
                        cell,
                        compute,
                        observers=observers,
                        out=folder,
                        question=question,
                        resume=resume,
                        announce=announce,
                    ),
                )


def _at_once(
    cells: Sequence[Cell], question: str, out: Path | None, resume: bool, jobs: int
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    with _processes(min(jobs, len(cells))) as executor:
        running: dict[Future[dict[str, Any]], Cell] = {
            executor.submit(_alone, cell, question, out and out / cell.path, resume): cell for cell in cells
        }
        try:
            for future in as_completed(running):
                yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise RunError("a process died; if it ran out of memory, set --jobs lower") from error


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes; when something goes wrong, those at work write what they have before they end."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["fedemu.campaign"])
    executor = ProcessPoolExecutor(count, context, initializer=_start)
    try:
        yield executor
    except BaseException:
        # before `shutdown`, which forgets them
        for process in (executor._processes or {}).values():
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _start() -> None:
    end_with_parent()
    # Ctrl-C reaches all processes of a terminal; which of them end, and when, their parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _alone(cell: Cell, question: str, out: Path | None, resume: bool) -> dict[str, Any]:
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            with inline(buffer=cell.scenario.compute.buffer)() as compute:
                return experiment.run(cell, compute, out=out, question=question, resume=resume)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except KeyboardInterrupt:
        os._exit(130)  # to raise anything would not end a process of the pool: it would take the next run


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would come while the first is being written down
    raise KeyboardInterrupt


def finished(plan: Experiment, out: Path) -> dict[str, dict[str, Any]]:
    """Return the results of the runs in a directory that have come to their end, by the path of their cell.

    Raises:
        ScenarioError: There is a run of another scenario or of another version.
    """
    own = {out / cell.path for cell in plan.cells}
    others = sorted(file.parent for file in out.rglob("scenario.yaml") if file.parent not in own)
    faults = [
        Fault("--resume", 1, str(folder), "is no run of this scenario; name a new directory") for folder in others
    ]
    found = dict[str, dict[str, Any]]()
    for cell in plan.cells:
        folder = out / cell.path
        if not (folder / "scenario.yaml").exists():
            continue
        result = recovery.result(folder)
        if result is not None and result["version"] != __version__:
            text = f"is of fedemu {result['version']}, this is {__version__}; name a new directory"
            faults.append(Fault("--resume", 1, str(folder), text))
        faults += [
            Fault("--resume", 1, str(folder), f"holds another scenario: {text}; name a new directory")
            for text in differences((folder / "scenario.yaml").read_text(encoding="utf-8"), cell)
        ]
        if result is not None and result["stopped_by"] in recovery.ENDS:
            found[cell.path] = result
    if faults:
        raise ScenarioError(_once(faults))
    return found


def _once(faults: Sequence[Fault]) -> Iterator[Fault]:
    """Yield the first of each text, with how many runs it is true of."""
    counts = Counter(fault.text for fault in faults)
    for text, count in counts.items():
        first = next(fault for fault in faults if fault.text == text)
        yield dataclasses.replace(first, text=f"{text} ({count - 1} more like it)") if count > 1 else first
