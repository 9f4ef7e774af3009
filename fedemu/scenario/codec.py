"""The keys of `codec`: how vectors travel in fewer bytes."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from fedemu.keys import Clash, Keys
from fedemu.scenario.kind import Kind, KindOf


class CodecKeys(Keys):
    """What the house reads beside a codec's own keys."""

    zstd: Annotated[int, Field(ge=1, le=22)] | None = None
    """Level of zstd that the bytes are compressed with; default not at all."""
    slowdown: Annotated[float, Field(ge=0)] = 1.0
    """How many times as long the device takes for it as the machine where the codec was measured; 0 takes no time."""


class UpKeys(CodecKeys):
    """What the house reads beside the codec of updates."""

    feedback: bool | None = None
    """Add what an update lost to the next one; default true for codecs that leave most of it out."""


class DownKeys(CodecKeys):
    """What the house reads beside the codec of models."""

    delta: bool = False
    """Send the difference to the last model that the client has acknowledged, as it has it."""


class CodecPair(Keys):
    """How vectors travel in fewer bytes."""

    up: Annotated[Kind, KindOf("codecs", house=UpKeys)] | None = None
    """For updates; default as they are."""
    down: Annotated[Kind, KindOf("codecs", house=DownKeys)] | None = None
    """For models; default as they are."""

    def clashes(self) -> Iterator[Clash]:
        """Yield codecs that would ruin a model."""
        if self.down is not None and not self.down.house["delta"] and self.down.build().sparse:
            text = f"{self.down.kind} would ruin a model; add delta: true, or choose another codec"
            yield Clash(frozenset({"down"}), ("down",), text)
