"""Propagation delay with jitter: every message later by a draw of exact law, mean and deviation.

D = F^-1(Phi(z_k)) with standard normals z_k = rho z_(k-1) + sqrt(1 - rho^2) e_k: a Gaussian copula (Nelsen, An
Introduction to Copulas, 2nd ed. 2006, section 2.3), so that the law of each delay is F for every correlation. netem's
own `CORRELATION` changes the law and hardly correlates; it is not copied. Laws that reach below zero are faults.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from fedemu.links._base import Packet, Stage
from fedemu.types import Rng, Seconds
from fedemu.units import Duration, File, Ratio

Law: TypeAlias = Literal["constant", "uniform", "normal", "pareto", "paretonormal", "lognormal", "exponential"]


class Table(BaseModel):
    """A law of one's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    table: File
    """A .dist file of tc-netem: whole numbers, the law's quantiles, in lines that may be comments (#)."""


def _one_fault(value: Any) -> Any:
    """Word in one sentence what is wrong with a value that is neither a law's name nor a table."""
    names = ", ".join(get_args(Law))
    if isinstance(value, dict):
        if value.keys() != {"table"} or not isinstance(value["table"], str) or not value["table"]:
            raise ValueError(f"{value} is not a table; write {{table: FILE}}, or one of {names}")
    elif not isinstance(value, Table) and value not in get_args(Law):
        raise ValueError(f"{value!r} is not one of {names}; or write {{table: FILE}}")
    return value


Distribution: TypeAlias = Annotated[
    Law | Table,
    BeforeValidator(_one_fault),
    WithJsonSchema({"anyOf": [{"enum": list(get_args(Law))}, Table.model_json_schema()]}),
]

_Z: TypeAlias = Callable[[float], Seconds]
"""From a standard normal to a delay."""


def delay(
    *,
    delay: Duration,
    jitter: Duration = 0.0,
    correlation: Ratio = 0.0,
    distribution: Distribution = "lognormal",
) -> Stage:
    """Hold up every packet by its propagation delay.

    The draw is one standard normal a packet, so that runs that differ in `distribution`, `correlation` or `jitter`
    alone are coupled. Without jitter nothing is drawn.

    Args:
        delay: Mean one-way delay.
        jitter: Standard deviation of the delay.
        correlation: Of each packet's standard normal with the one before; rank correlation is (6/pi) asin(it / 2).
        distribution: The delay's law, or {table: FILE} (.dist of tc-netem); only lognormal has room for any jitter.

    Raises:
        ValueError: jitter without delay or with a constant law, correlation without jitter or of 100 %, a law with
            mass below zero, or a table that cannot be read.
    """
    if correlation == 1:
        raise ValueError("correlation 100% would give every packet the first one's delay; expected less than 100%")
    if jitter == 0:
        if correlation:
            raise ValueError(f"correlation {correlation * 100:g}% has no meaning without jitter; set jitter as well")
        return lambda packet, _: packet._replace(at=packet.at + delay)
    if delay == 0:
        raise ValueError(f"jitter {jitter:g}s without delay would need delays below zero; set delay as well")
    held_up = _quantile(delay, jitter, distribution)
    if correlation:
        return Correlated(correlation, held_up)
    return lambda packet, draw: packet._replace(at=packet.at + held_up(float(draw().standard_normal())))


@dataclass(slots=True)
class Correlated:
    """The stage that remembers the standard normal of the last packet."""

    correlation: float
    held_up: _Z
    last: float | None = None

    def __call__(self, packet: Packet, draw: Callable[[], Rng]) -> Packet:
        """Hold up a packet."""
        z = float(draw().standard_normal())
        if self.last is not None:
            z = self.correlation * self.last + math.sqrt(1 - self.correlation**2) * z
        self.last = z
        return packet._replace(at=packet.at + self.held_up(z))


_ALPHA = 3
"""Pareto shape: NISTnet's and netem's. Its variance is finite, its third moment is not."""
_PARETO_MEAN = _ALPHA / (_ALPHA - 1)
_PARETO_DEVIATION = math.sqrt(_ALPHA / (_ALPHA - 2)) / (_ALPHA - 1)
_NORMAL_SHARE = 0.25
"""Deviation of paretonormal's normal part, beside a pareto of deviation sqrt(3)/2: netem's 1 : 3, tables of theirs."""
_COVARIANCE = 0.5874707484783355
"""Of a standard normal z with the pareto quantile at Phi(z): the integral of z (1 - Phi(z))^(-1/3) phi(z)."""
_PARETONORMAL_DEVIATION = math.sqrt(_NORMAL_SHARE**2 + _PARETO_DEVIATION**2 + 2 * _NORMAL_SHARE * _COVARIANCE)
_CUT = 4.0
"""Deviations of a normal below its mean that must be above zero. 3e-5 of the mass is below that and cut at zero, which
moves the mean by 1e-5 deviations."""


def _above(z: float) -> float:
    """Return 1 - Phi(z), exact far out."""
    return math.erfc(z / math.sqrt(2)) / 2


def _pareto(z: float) -> float:
    """Return the quantile at Phi(z) of a pareto of mean 0, unscaled."""
    return float(_above(z) ** (-1 / _ALPHA)) - _PARETO_MEAN


def _paretonormal(z: float) -> float:
    return (_NORMAL_SHARE * z + _pareto(z)) / _PARETONORMAL_DEVIATION


def _quantile(mean: Seconds, deviation: Seconds, distribution: Distribution) -> _Z:
    """Return z -> F^-1(Phi(z)) of the law with that mean and deviation."""
    if isinstance(distribution, Table):
        steps = _read(distribution.table)
        _above_zero(mean, deviation, -steps[0], f"table {distribution.table}")
        return lambda z: mean + deviation * steps[min(len(steps) - 1, int((1 - _above(z)) * len(steps)))]
    match distribution:
        case "constant":
            raise ValueError(f"jitter {deviation * 1e3:g}ms of a constant delay; leave jitter out or name another law")
        case "lognormal":
            sigma = math.sqrt(math.log1p((deviation / mean) ** 2))
            mu = math.log(mean) - sigma**2 / 2
            return lambda z: math.exp(mu + sigma * z)
        case "uniform":
            half = math.sqrt(3) * deviation
            _above_zero(mean, deviation, math.sqrt(3), distribution)
            return lambda z: mean + half * math.erf(z / math.sqrt(2))  # 2 Phi(z) - 1
        case "exponential":
            _above_zero(mean, deviation, 1, distribution)
            return lambda z: mean - deviation - deviation * math.log(_above(z))
        case "pareto":
            _above_zero(mean, deviation, (_PARETO_MEAN - 1) / _PARETO_DEVIATION, distribution)
            return lambda z: mean + deviation / _PARETO_DEVIATION * _pareto(z)
        case "paretonormal":
            _above_zero(mean, deviation, -_paretonormal(-_CUT), distribution)
            return lambda z: max(0.0, mean + deviation * _paretonormal(z))
        case "normal":
            _above_zero(mean, deviation, _CUT, distribution)
            return lambda z: max(0.0, mean + deviation * z)


def _above_zero(mean: Seconds, deviation: Seconds, reach: float, law: str) -> None:
    if mean < reach * deviation:
        raise ValueError(
            f"{law} delay {mean * 1e3:g}ms with jitter {deviation * 1e3:g}ms reaches below zero; "
            f"expected a jitter of at most {mean / reach * 1e3:.4g}ms, or write distribution: lognormal"
        )


def _read(file: str) -> Sequence[float]:
    """Return the steps of a .dist file in rising order, shifted and scaled to mean 0 and deviation 1.

    The format is that of tc's reader: blank lines, comment lines that begin with #, and 16-bit whole numbers.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    steps = list[int]()
    for number, line in enumerate(lines, 1):
        for word in () if line.startswith("#") else line.split():
            try:
                step = int(word)
            except ValueError:
                step = 1 << 16
            if not -(1 << 15) <= step < 1 << 15:
                raise ValueError(f"{file}:{number}: {word!r} is not a whole number of -32768 to 32767")
            steps.append(step)
    if len(set(steps)) < 2:
        raise ValueError(f"{file} has {len(set(steps))} different numbers; expected a law's quantiles, at least 2")
    mean = math.fsum(steps) / len(steps)
    deviation = math.sqrt(math.fsum((step - mean) ** 2 for step in steps) / len(steps))
    return [(step - mean) / deviation for step in sorted(steps)]
