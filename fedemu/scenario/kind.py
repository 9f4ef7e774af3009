"""A kind as a scenario names it: room, name and parameters, to build from when the house has what it must give."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from fedemu.keys import Keys, Wrong, faulty, instead, nearest, shown
from fedemu.registry import Builder, build, find, given, kinds, parameters


@dataclass(frozen=True, slots=True)
class Kind:
    """`{kind: dirichlet, alpha: 0.3}`, validated."""

    room: str
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    """The builder's keyword-only parameters, all of them, as numbers in base units."""
    house: Mapping[str, Any] = field(default_factory=dict)
    """Keys that stand beside the kind's own and that the house reads."""

    def build(self, *given: Any) -> Any:
        """Return what the kind's builder makes of `given` and of the parameters.

        Raises:
            ValueError: these parameters cannot go together, or not with what is given; or a foreign builder failed.
        """
        return build(self.room, self.kind, given, self.params)


@dataclass(frozen=True)
class KindOf:
    """Annotates a field: the value is a kind of this room."""

    room: str
    only: str | None = None
    """The one kind that can stand here, unnamed: the mapping has its parameters alone."""
    house: type[Keys] = Keys
    """Keys that the house reads beside the kind's own."""
    bare: str | None = None
    """The key that a value without a mapping stands for."""
    named: str = "kind"
    """The key that names the kind; `kind` itself always does too."""

    def read(self, value: Any) -> Kind:
        """Return the kind that a mapping names.

        Raises:
            ValidationError: it names none, or its parameters are wrong or do not go together.
        """
        if isinstance(value, Kind):
            return value
        if self.bare and not isinstance(value, dict):
            value = {self.bare: value}
        if not isinstance(value, dict):
            hint = f"write {{kind: {value}}}" if isinstance(value, str) else "write {kind: ...}"
            if self.only:
                needed = [n for n, f in parameters(find(self.room, self.only)).model_fields.items() if f.is_required()]
                hint = f"write {{{', '.join(f'{name}: ...' for name in needed)}}}"
            raise faulty([Wrong((), f"{shown(value)} is not a mapping; {hint}")])
        kind, builder = self._builder(value)
        keys = self._keys(builder)
        read = keys.model_validate({k: v for k, v in value.items() if self.only or k not in ("kind", self.named)})
        params = {name: getattr(read, name) for name in parameters(builder).model_fields}
        house = {name: getattr(read, name) for name in self.house.model_fields}
        result = Kind(self.room, kind, params, house)
        if not given(builder):
            try:
                result.build()  # pure and cheap; that its parameters cannot go together, only the kind itself knows
            except ValueError as error:
                raise faulty([Wrong((), str(error))]) from None
        return result

    def _builder(self, value: Mapping[str, Any]) -> tuple[str, Builder]:
        named = "kind" if "kind" in value and self.named not in value else self.named
        if named != "kind" and "kind" in value:
            raise faulty([Wrong((named,), "kind says it already; write one of the two")])
        kind = self.only or value.get(named)
        if kind is None:
            if named in value:
                raise faulty([Wrong((named,), "no value; write one of " + ", ".join(kinds(self.room)))])
            typo = nearest(named, value)
            if typo is not None:
                raise faulty([Wrong((typo,), f"{typo!r} is not a key here; {instead(typo, [named])}", "key")])
            raise faulty([Wrong((named,), f"missing; expected one of {', '.join(kinds(self.room))}", "missing")])
        if not isinstance(kind, str):
            raise faulty([Wrong((named,), f"{shown(kind)} is not one of {', '.join(kinds(self.room))}")])
        try:
            return kind, find(self.room, kind)
        except LookupError as error:
            raise faulty([Wrong((named,), str(error))]) from None

    def _keys(self, builder: Builder) -> type[Keys]:
        return parameters(builder) if self.house is Keys else _joined(parameters(builder), self.house)

    def schema(self) -> JsonSchemaValue:
        """Return the JSON Schema of a mapping that names a kind of this room."""
        if self.only:
            mapping = _inlined(self._keys(find(self.room, self.only)).model_json_schema())
            return {"anyOf": [mapping["properties"][self.bare], mapping]} if self.bare else mapping
        names = kinds(self.room)
        foreign = {
            "type": "object",
            "description": "Your own: package.module:builder",
            "properties": {"kind": {"type": "string", "pattern": ":"}},
            "required": ["kind"],
        }
        words = [{"enum": names}] if self.bare == "kind" else []
        return {"oneOf": [*words, *map(self._option, names), foreign]}

    def _option(self, kind: str) -> JsonSchemaValue:
        builder = find(self.room, kind)
        option = _inlined(self._keys(builder).model_json_schema())
        option["description"] = (builder.__doc__ or "").strip().partition("\n")[0]
        option["properties"] = {self.named: {"const": kind}, **option.get("properties", {})}
        option["required"] = [self.named, *option.get("required", [])]
        return option

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return self.schema()


def _inlined(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Return the schema with its definitions where they are used: it becomes part of another one."""
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(item) for item in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        rest = {key: inline(item) for key, item in value.items() if key != "$ref"}
        return {**inline(definitions[name]), **rest} if name else rest

    result: JsonSchemaValue = inline(schema)
    return result


@cache
def _joined(parameters: type[Keys], house: type[Keys]) -> type[Keys]:
    """Return the model that has the keys of both."""
    return create_model(parameters.__name__, __base__=(parameters, house))
