"""Pensieve's traces: two columns, seconds and Mbit/s.

Mao, Netravali and Alizadeh, Neural Adaptive Video Streaming with Pensieve, SIGCOMM 2017. HSDPA, FCC, Oboe and Puffer
logs come in this form. A line's rate is what was measured from the line before until its own time, as Pensieve's
simulator takes it: the first line's rate has no time.
"""

from fedemu.links._trace import Trace
from fedemu.links.traces import _file
from fedemu.types import Seconds


def pensieve(path: str) -> Trace:
    """Read the rates between the times of two lines.

    Raises:
        ValueError: a line is not two numbers, or no later than the one before, or nothing can be sent.
    """
    steps: list[tuple[Seconds, float]] = []
    last: Seconds | None = None
    for line, content in enumerate(_file.text(path).splitlines(), 1):
        if not (words := content.split()):
            continue
        if len(words) != 2:
            raise ValueError(f"{path}:{line}: {content.strip()!r} is not a time and a rate, in seconds and Mbit/s")
        time = _file.number(words[0], path, line, "a time in seconds")
        rate = _file.number(words[1], path, line, "a rate in Mbit/s")
        if last is not None:
            if time <= last:
                raise ValueError(f"{path}:{line}: {time:g} comes after {last:g}; expected times in order")
            steps.append((time - last, rate * 1e6))
        last = time
    return _file.of_steps(steps, path)
