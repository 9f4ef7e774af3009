"""Where a key belongs: for the fault that tells who has put it in another section."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from fedemu.keys import Keys
from fedemu.scenario.kind import KindOf
from fedemu.scenario.sections import Scenario


def homes_of(key: str) -> list[str]:
    """Return the sections of a scenario that have such a key, by their dotted names, but none inside another."""
    return list(_homes_of(key, Scenario, ()))


def _homes_of(key: str, section: type[Keys], above: tuple[str, ...]) -> Iterator[str]:
    if key in section.model_fields:
        yield ".".join(above) or "the top level"
        return
    for name, field in section.model_fields.items():
        for step, inner in _sections(field.annotation, field.metadata):
            yield from _homes_of(key, inner, (*above, name, *step))


def _sections(annotation: Any, metadata: list[Any]) -> Iterator[tuple[tuple[str, ...], type[Keys]]]:
    """Yield the sections that a field may hold, with the steps to them."""
    for about in metadata:
        if isinstance(about, KindOf):
            yield (), about.house
    if isinstance(annotation, type) and issubclass(annotation, Keys):
        yield (), annotation
    if get_origin(annotation) is Annotated:
        inner, *about = get_args(annotation)
        yield from _sections(inner, about)
        return
    step = ("NAME",) if get_origin(annotation) is dict else ()
    for inner in get_args(annotation):
        for below, section in _sections(inner, []):
            yield (*step, *below), section
