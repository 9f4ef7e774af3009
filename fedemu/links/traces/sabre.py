"""Sabre's traces: JSON, a list of {duration_ms, bandwidth_kbps, latency_ms}.

Spiteri, Sitaraman and Sparacio, From Theory to Practice: Improving Bitrate Adaptation in the DASH Reference Player,
MMSys 2018: HSDPA commutes (Riiser et al. 2013), Ghent's LTE (van der Hooft et al. 2016) and FCC lines. Latencies are
left alone, as a link's delay is a key of its own.
"""

import json
import re
from typing import Any

from fedemu.links._trace import Trace
from fedemu.links.traces import _file


def sabre(path: str) -> Trace:
    """Read rates one after the other.

    Raises:
        ValueError: it is no such list, or nothing can be sent.
    """
    text = _file.text(path)
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}:1: not a list of {{duration_ms, bandwidth_kbps}}")
    lines = [text.count("\n", 0, match.start()) + 1 for match in re.finditer(r"\{", text)]
    steps = []
    for place, entry in enumerate(entries):
        line = lines[place] if place < len(lines) else 1
        duration = _value(entry, "duration_ms", path, line)
        if duration == 0:
            raise ValueError(f"{path}:{line}: duration_ms is 0; expected more")
        steps.append((duration / 1e3, _value(entry, "bandwidth_kbps", path, line) * 1e3))
    return _file.of_steps(steps, path)


def _value(entry: Any, key: str, path: str, line: int) -> float:
    if not isinstance(entry, dict) or key not in entry:
        raise ValueError(f"{path}:{line}: no {key}; expected {{duration_ms, bandwidth_kbps}}")
    return _file.number(entry[key], path, line, f"a {key}")
