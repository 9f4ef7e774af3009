"""Everything that fedemu raises, by whose fault it is.

FedemuError
├── ScenarioError       the author of the scenario: unknown keys, impossible values, missing units
├── DataError           the data directory: a file that is missing or not what it should be
├── PeerError           the other end of a connection: garbage, wrong shapes, wrong version
├── NetworkError        the network: a connection that broke, a call that was given up
│   └── AttemptError    one attempt at a call that failed at once: reset, refused, or the link is down
├── ClockError          our own use of time
│   ├── Deadlock        tasks wait for what nothing can produce
│   └── Stalled         real work that the clock waits for does not finish
└── RunError            the run itself: a client's training failed, no client came
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal


class FedemuError(Exception):
    """Base of all errors that fedemu raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a scenario, where it stands."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}: {self.text}"


class ScenarioError(FedemuError):
    """A scenario is faulty; carries every fault found, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class DataError(FedemuError):
    """A data file is missing, or its content is not the expected one."""


class PeerError(FedemuError):
    """The peer sent what the protocol does not allow.

    `status` is the gRPC status name that the peer is told, e.g. `INVALID_ARGUMENT`.
    """

    def __init__(self, status: str, text: str) -> None:
        self.status, self.text = status, text
        super().__init__(f"{status}: {text}")


class NetworkError(FedemuError):
    """A connection broke, or a call was given up after its last attempt."""


class AttemptError(NetworkError):
    """An emulated link told the sender that this attempt at a call has failed; another one may not.

    `outcome` is reset, refused or down.
    """

    def __init__(self, outcome: Literal["reset", "refused", "down"], text: str) -> None:
        self.outcome = outcome
        super().__init__(text)


class ClockError(FedemuError):
    """Emulated time cannot go on."""


class Deadlock(ClockError):
    """Nothing is ready, nothing is scheduled, no real work is in progress, and tasks still wait."""


class Stalled(ClockError):
    """Real work that emulated time waits for did not finish within the watchdog's real time."""


class RunError(FedemuError):
    """A run cannot go on."""


@contextmanager
def failure_of(work: str) -> Iterator[None]:
    """Make any error in a user's or our own kind a `RunError` that says where the run failed; ours stay as they are."""
    try:
        yield
    except FedemuError:
        raise
    except Exception as error:
        raise RunError(f"{work} failed: {type(error).__name__}: {error}") from error


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error behind a group, ours before others: one failure takes all tasks down with it."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, FedemuError)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
