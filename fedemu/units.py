"""Quantities as they are written in a scenario and as the code holds them.

In YAML a quantity carries its unit (`40ms`, `15kB`, `5Mbit/s`, `60%`); in code it is a plain number of seconds, bytes,
bits per second, or a ratio in 0..1. The annotated types stand on builder parameters and scenario fields; pydantic
parses with them, and the JSON Schema of a scenario gets their patterns.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema

_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"

DURATIONS: Mapping[str, float] = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}
SIZES: Mapping[str, float] = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
RATES: Mapping[str, float] = {"bit/s": 1, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
POWERS: Mapping[str, float] = {"mW": 1e-3, "W": 1}


def _parse(value: object, units: Mapping[str, float], example: str) -> float:
    if isinstance(value, str) and re.match(r"\s*-\s*[0-9.]", value):
        raise ValueError(f"{value!r} is negative; write e.g. {example}")
    match = re.fullmatch(rf"({_NUMBER})\s*([^\s\d].*)", value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"{value!r} has no unit of {', '.join(units)}; write e.g. {example}")
    scale = units[match[2]]
    number = float(match[1])
    # 40ms is the float nearest to 0.040, which 40 * 1e-3 is not always
    result = number * scale if scale >= 1 else number / round(1 / scale)
    if not math.isfinite(result):
        raise ValueError(f"{value!r} is too large")
    return result


def _parse_ratio(value: object) -> float:
    match = re.fullmatch(rf"({_NUMBER})\s*%", value.strip()) if isinstance(value, str) else None
    if match is not None:
        number = float(match[1]) / 100
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        raise ValueError(f"{value!r} is not a ratio; write e.g. 60% or 0.6")
    if not 0 <= number <= 1:
        raise ValueError(f"{value!r} is outside of 0..1; write e.g. 60% or 0.6")
    return number


def _quantity(units: Mapping[str, float], example: str) -> tuple[BeforeValidator, WithJsonSchema]:
    def parse(value: object) -> float:
        return _parse(value, units, example)

    pattern = rf"^{_NUMBER}\s*({'|'.join(map(re.escape, units))})$"
    return BeforeValidator(parse), WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


def _whole(parse: Callable[[Any], float]) -> Callable[[Any], int]:
    return lambda value: round(parse(value))


Duration: TypeAlias = Annotated[float, *_quantity(DURATIONS, "40ms")]
"""Seconds, >= 0."""

Size: TypeAlias = Annotated[
    int, BeforeValidator(_whole(lambda v: _parse(v, SIZES, "15kB"))), _quantity(SIZES, "15kB")[1]
]
"""Bytes, >= 0, whole."""

Rate: TypeAlias = Annotated[float, *_quantity(RATES, "10Mbit/s")]
"""Bits per second, >= 0."""

Power: TypeAlias = Annotated[float, *_quantity(POWERS, "2.5W")]
"""Watts, >= 0."""

Ratio: TypeAlias = Annotated[
    float,
    BeforeValidator(_parse_ratio),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": rf"^{_NUMBER}\s*%$"},
            ],
            "examples": ["60%"],
        }
    ),
]
"""A probability or fraction in 0..1."""


Count: TypeAlias = Annotated[int, Field(ge=1)]
"""A number of things, of which there is at least one."""


File: TypeAlias = Annotated[str, Field(min_length=1, json_schema_extra={"format": "path"})]
"""The path of a file; in a scenario, relative to it."""


def show_duration(seconds: float) -> str:
    """Write a duration for people: `830ms`, `12.4s`, `3min 05s`, `2h 07min`."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g}ms"
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}min {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}min"


def show_size(size: float) -> str:
    """Write a number of bytes for people: `248kB`, `1.66MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            return f"{size:.3g}{unit}"
        size /= 1000
    raise AssertionError
