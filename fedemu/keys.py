"""A mapping of a scenario: it knows its keys, and words its faults to teach.

Pydantic checks the values; what stands here says in the house's words what is wrong, finds the key that a typo meant,
and sees to it that one mistake gives one fault: a mistyped `stratgy` is not also a missing `strategy`.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Loc: TypeAlias = tuple[str | int, ...]
"""Where something stands: keys and positions from the top."""

_WORDING: Mapping[str, str] = {
    "int_type": "{found} is not a whole number",
    "float_type": "{found} is not a number",
    "bool_type": "{found} is neither true nor false",
    "string_type": "{found} is not a text; put it in quotes",
    "list_type": "{found} is not a list; write [a, b]",
    "dict_type": "{found} is not a mapping; write key: value",
    "model_type": "{found} is not a mapping; write key: value",
    "finite_number": "{found} is not a finite number",
    "greater_than": "{found} is out of range; expected more than {gt:g}",
    "greater_than_equal": "{found} is out of range; expected at least {ge:g}",
    "less_than": "{found} is out of range; expected less than {lt:g}",
    "less_than_equal": "{found} is out of range; expected at most {le:g}",
    "too_short": "{found} is empty; expected at least {min_length}",
    "string_too_short": "{found} is empty",
}


_K = TypeVar("_K", bound=BaseModel)


class Wrong(NamedTuple):
    """A fault below some mapping, worded."""

    loc: Loc
    text: str
    kind: str = "value"
    """key: there is no such key; missing: a key that must be there is not; value: all else."""


class Clash(NamedTuple):
    """Keys whose values, each fine on its own, do not go together."""

    keys: frozenset[str]
    """Those that take part; where one of them is faulty itself, the clash is not reported."""
    loc: Loc
    text: str


class Keys(BaseModel):
    """A frozen mapping with known keys; a unit of a scenario."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    not_built: ClassVar[frozenset[str]] = frozenset()
    """Keys that the contract promises and that this version does not have."""

    def clashes(self) -> Iterator[Clash]:
        """Yield what does not go together; run on the keys that are fine by themselves."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            return handler(value)
        wrong = list(_wrong_keys(cls, value))
        meant = {nearest(str(w.loc[0]), cls.model_fields) for w in wrong}
        known = {k: v for k, v in value.items() if k in cls.model_fields and v is not None}
        bad = {key for key in cls.model_fields if key in meant or value.get(key, ...) is None}
        try:
            result = handler(known)
        except ValidationError as error:
            found = [worded(e, known, cls) for e in error.errors()]
            wrong += [w for w in found if w.kind != "missing" or len(w.loc) > 1 or w.loc[0] not in bad]
            bad |= {str(w.loc[0]) for w in found if w.loc}
            result = _partial(cls, {k: v for k, v in known.items() if k not in bad})
        wrong += [Wrong(c.loc, c.text) for c in result.clashes() if not c.keys & bad]
        if wrong:
            raise faulty(wrong)
        return result


def faulty(wrong: Iterable[Wrong]) -> ValidationError:
    """Return the error that carries those faults up through pydantic, which puts the outer keys before them."""
    return ValidationError.from_exception_data(
        "scenario",
        [
            InitErrorDetails(
                type=PydanticCustomError(f"wrong_{w.kind}", "{text}", {"text": w.text}), loc=w.loc, input=0
            )
            for w in wrong
        ],
    )


def worded(error: ErrorDetails, raw: Any = None, keys: type[BaseModel] | None = None) -> Wrong:
    """Return pydantic's error in the house's words; `raw` is the mapping as the author wrote it."""
    loc, type_, context = error["loc"], error["type"], error.get("ctx", {})
    if type_.startswith("wrong_"):
        return Wrong(loc, error["msg"], type_.removeprefix("wrong_"))
    if type_ == "missing":
        about = keys.model_fields[str(loc[-1])].description if keys else None
        return Wrong(loc, f"missing; expected {as_clause(about)}" if about else "missing", "missing")
    if type_ == "value_error":
        return Wrong(loc, str(context["error"]))
    found = shown(written(raw, loc, error["input"]))
    if type_ == "literal_error":
        expected = context["expected"].replace("'", "")
        return Wrong(loc, f"{found} is not one of {expected}")
    return Wrong(loc, _WORDING.get(type_, error["msg"]).format(found=found, **context))


def as_clause(sentence: str) -> str:
    """Return the sentence as it goes on after a comma: without its full stop and, mostly, its capital."""
    clause = " ".join(sentence.split()).rstrip(".")
    return clause if clause[1:2].isupper() else clause[:1].lower() + clause[1:]


def written(raw: Any, loc: Sequence[str | int], default: Any) -> Any:
    """Return what the author wrote there, or the default where the author wrote nothing."""
    for step in loc:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return default
    return raw


def shown(value: Any) -> str:
    """Write a value of a scenario as its author would."""
    if isinstance(value, str):
        return repr(value)
    return json.dumps(value, default=str) if isinstance(value, bool | list | dict | None) else str(value)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the word of `words` that was probably meant, if any."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1)), None)


def instead(word: str, words: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: what was meant, or else what there is."""
    words = list(words)
    near = nearest(word, words)
    return f"did you mean {near!r}?" if near else f"there are {', '.join(words)}" if words else "nothing goes here"


def _wrong_keys(keys: type[Keys], value: Mapping[str, Any]) -> Iterator[Wrong]:
    for key, item in value.items():
        if key in keys.not_built:
            yield Wrong((key,), f"{key!r} is not built yet")
        elif key not in keys.model_fields:
            yield Wrong((key,), f"{key!r} is not a key here; {instead(key, keys.model_fields)}", "key")
        elif item is None:
            yield Wrong((key,), "no value; write one or leave the key out")


def _partial(keys: type[_K], value: Mapping[str, Any]) -> _K:
    """Return an instance of what is valid, so that clashes among it come to light beside the other faults."""
    return keys.model_construct(**{k: _adapter(keys, k).validate_python(v, strict=True) for k, v in value.items()})


@cache
def _adapter(keys: type[BaseModel], key: str) -> TypeAdapter[Any]:
    field = keys.model_fields[key]
    annotation: Any = field.annotation
    return TypeAdapter(Annotated[annotation, *field.metadata] if field.metadata else annotation)
