"""Trace files: one importer for each format, and one that tells the formats apart."""

from collections.abc import Callable, Mapping

from fedemu.links._trace import Trace
from fedemu.links.traces import _file
from fedemu.links.traces.gnettrack import gnettrack
from fedemu.links.traces.mahimahi import mahimahi
from fedemu.links.traces.pensieve import pensieve
from fedemu.links.traces.sabre import sabre

_IMPORTERS: Mapping[str, Callable[[str], Trace]] = {
    "mahimahi": mahimahi,
    "sabre": sabre,
    "pensieve": pensieve,
    "gnettrack": gnettrack,
    "gnettrack-up": lambda path: gnettrack(path, "up"),
}
FORMATS = tuple(_IMPORTERS)
"""Names of formats; gnettrack has both directions, of which the plain name is the one down."""


def read(path: str, format: str | None = None) -> Trace:
    """Return the trace in a file.

    Args:
        path: The file; one in a zip archive as `ARCHIVE.zip/MEMBER`.
        format: One of FORMATS; None finds it from the content.

    Raises:
        ValueError: the file cannot be read or is not in the format; names file and line.
    """
    return _IMPORTERS[format or _format_of(path)](path)


def _format_of(path: str) -> str:
    text = _file.text(path)
    number, first = next(((i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()), (1, ""))
    if not first:
        raise ValueError(f"{path}: the trace is empty; expected one opportunity at least")
    if first.lstrip().startswith(("[", "{")):
        return "sabre"
    if "," in first:
        return "gnettrack"
    words = len(first.split())
    if words > 2:
        raise ValueError(f"{path}:{number}: {_file.short(first)} is in none of the formats {', '.join(FORMATS)}")
    return "mahimahi" if words == 1 else "pensieve"
