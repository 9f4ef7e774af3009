"""Join tokens: a server that has them lets a client in only with the token of its slot, or of its group.

A token file has a line for each: `phones TOKEN` opens any slot of the group, `phones/3 TOKEN` that slot alone. Empty
lines and lines that start with # say nothing.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedemu.errors import Fault, PeerError, ScenarioError
from fedemu.types import ClientId

SHOWN = 40
"""Characters that are repeated of what a stranger says."""


class Tokens:
    """Says what each token opens.

    Args:
        opened: Tokens and the place that each opens, a group or one client of it; a token may be there twice.
    """

    def __init__(self, opened: Sequence[tuple[str, str]]) -> None:
        self._opened = [(token.encode(), place) for token, place in opened]

    def open(self, token: str, group: str, slot: int | None) -> frozenset[str]:
        """Return the places of a group that a token opens: the group itself, or clients of it.

        All tokens are compared, each in constant time: how long it takes says nothing of them.

        Raises:
            PeerError: There are none, or not the slot that is asked for. What groups there are is not told.
        """
        if not token:
            raise PeerError("UNAUTHENTICATED", "no token, and this server asks for one; join with --token")
        given = token.encode()
        known = [place for secret, place in self._opened if hmac.compare_digest(given, secret)]
        if not known:
            raise PeerError("UNAUTHENTICATED", "this server does not know this token")
        opened = frozenset(place for place in known if place.partition("/")[0] == group)
        if not opened:
            raise PeerError("UNAUTHENTICATED", f"this token is not for group {group[:SHOWN]!r}")
        if slot is not None and opened.isdisjoint((group, f"{group}/{slot}")):
            raise PeerError("UNAUTHENTICATED", f"this token is not for slot {slot} of {group}")
        return opened


def load(path: Path, clients: Mapping[str, Sequence[ClientId] | None]) -> Tokens:
    """Read a token file.

    Args:
        path: The file.
        clients: The clients of each group of the scenario; None, any number may come.

    Raises:
        ScenarioError: With every line that is no place and token, every place that the scenario does not have, and
            every client that could never join. No fault repeats a token.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ScenarioError([Fault(str(path), 1, "tokens", f"cannot be read: {reason}")]) from error
    places = {*clients, *(client for group in clients.values() for client in group or ())}
    opened, faults = list[tuple[str, str]](), list[Fault]()
    for number, line in enumerate(lines, 1):
        match line.split():
            case []:
                pass
            case [first, *_] if first.startswith("#"):
                pass
            case [place, token] if place in places or _is_of(place, clients):
                opened.append((token, place))
            case [place, _]:
                fault = f"{place!r} is neither a group nor a client here; groups are {', '.join(clients)}"
                faults.append(Fault(str(path), number, "tokens", fault))
            case _:
                faults.append(Fault(str(path), number, "tokens", "is not a group or a client, and its token"))
    reached = frozenset(place for _, place in opened)
    outside = list[str]()
    for name, group in clients.items():
        if name not in reached:
            outside += [f"others of {name}"] if group is None else [client for client in group if client not in reached]
    if outside and not faults:
        faults.append(Fault(str(path), 1, "tokens", f"no token for {', '.join(outside)}, which could never join"))
    if faults:
        raise ScenarioError(faults)
    return Tokens(opened)


def _is_of(place: str, clients: Mapping[str, Sequence[ClientId] | None]) -> bool:
    """Tell whether a place is a client of a group in which there may be any number."""
    group, _, slot = place.partition("/")
    return re.fullmatch("0|[1-9][0-9]{0,9}", slot) is not None and clients.get(group, ()) is None


def given(text: str) -> str:
    """Return a client's token as it is given: itself, or `@FILE` that has it alone.

    Raises:
        ScenarioError: The file cannot be read, or has no token or several. The fault does not repeat it.
    """
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ScenarioError([Fault(str(path), 1, "token", f"cannot be read: {reason}")]) from error
    if len(words) != 1:
        fault = f"has {len(words)} words, where one token was expected"
        raise ScenarioError([Fault(str(path), 1, "token", fault)])
    return words[0]
