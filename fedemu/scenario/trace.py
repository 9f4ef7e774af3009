"""The keys of a recorded rate."""

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter, WithJsonSchema

from fedemu.keys import Clash, Keys, shown
from fedemu.links._trace import Trace
from fedemu.links.traces import FORMATS, read
from fedemu.units import Duration, File


def by_file(value: Any) -> Any:
    """Return the mapping that a bare file name stands for."""
    return {"file": value} if isinstance(value, str) else value


def _format(value: Any) -> Any:
    if value not in FORMATS:
        raise ValueError(f"{shown(value)} is not one of {', '.join(FORMATS)}")
    return value


_DURATION = TypeAdapter[float](Duration)
_OFFSET = {"anyOf": [{"const": "random"}, _DURATION.json_schema()]}


def _offset(value: Any) -> Any:
    return value if value == "random" else _DURATION.validate_python(value)


class TraceKeys(Keys):
    """A rate that was recorded."""

    file: File
    """A Mahimahi trace, or a log in one of the formats."""
    offset: Annotated[float | Literal["random"], BeforeValidator(_offset), WithJsonSchema(_OFFSET)] = 0.0
    """Where in it the run starts; random is another place for each client."""
    format: Annotated[str, BeforeValidator(_format), WithJsonSchema({"enum": list(FORMATS)})] | None = None
    """What the file is; default by its content."""

    def read(self) -> Trace:
        """Return what the file says.

        Raises:
            ValueError: it is no such file.
        """
        return _trace(self.file, self.format)

    def clashes(self) -> Iterator[Clash]:
        """Yield what is wrong with the file."""
        if "file" not in self.__dict__:  # which is a fault already
            return
        try:
            self.read()
        except ValueError as error:
            yield Clash(frozenset({"file", "format"}), ("file",), str(error))


_trace = cache(read)
