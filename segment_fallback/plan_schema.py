"""JSON Schemas: made from dataclasses and TypedDicts, and checked, as far as a tracking plan needs them.

Of https://json-schema.org/draft/2020-12/json-schema-validation these keywords: type, enum, const, anyOf, properties,
required, additionalProperties, items, minimum, maximum, minLength, maxLength, pattern, format (``date-time``, ``date``;
others are notes), and the notes title, description, default, examples, $schema.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

from django.utils.dateparse import parse_date, parse_datetime

Schema = Mapping[str, Any]

_NOTES = {"title", "description", "default", "examples", "$schema"}
_CHECKED = {
    "type",
    "enum",
    "const",
    "anyOf",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "format",
}

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "object": (Mapping,),
    "array": (list,),
    "null": (type(None),),
}

_SCALARS: dict[Any, Schema] = {
    Any: {},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Decimal: {"type": "number"},
    UUID: {"type": "string"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    time: {"type": "string"},
    type(None): {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
}


def schema_of(declaration: Any) -> Schema:
    """The JSON Schema of a type: one of Python's own, or a dataclass or TypedDict of such. Raises TypeError.

    A property that a class does not declare is a violation; a schema written by hand says so by additionalProperties.
    """
    if declaration in _SCALARS:
        return _SCALARS[declaration]
    if dataclasses.is_dataclass(declaration) and isinstance(declaration, type):
        optional = {
            f.name
            for f in dataclasses.fields(declaration)
            if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        }
        return _object(declaration, optional)
    if isinstance(declaration, type) and issubclass(declaration, dict) and hasattr(declaration, "__required_keys__"):
        return _object(declaration, set(declaration.__optional_keys__))  # type: ignore[attr-defined]
    if isinstance(declaration, type) and issubclass(declaration, Enum):
        return {"enum": [member.value for member in declaration]}
    origin, arguments = typing.get_origin(declaration), typing.get_args(declaration)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [schema_of(option) for option in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[1:] != (...,):
        raise TypeError(f"{declaration!r} has no form in a tracking plan, but tuple[…, ...] has")
    if origin in (list, tuple, set, frozenset, Sequence) and arguments:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    raise TypeError(f"{declaration!r} has no form in a tracking plan: write a schema by hand")


def _object(declaration: type, optional: set[str]) -> Schema:
    hints = typing.get_type_hints(declaration)
    return {
        "type": "object",
        "properties": {name: schema_of(hint) for name, hint in hints.items()},
        "required": [name for name in hints if name not in optional],
        "additionalProperties": False,
    }


def check_schema(schema: Any, where: str = "schema") -> None:
    """Raises TypeError where a schema has a keyword that is not checked: it would promise what nobody holds."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise TypeError(f"{where} must be a dict, not {type(schema).__name__}")
    if unknown := sorted(set(schema) - _NOTES - _CHECKED, key=str):
        raise TypeError(f"{where} has the keyword {unknown[0]!r}, which is not checked here")
    for kind in _kinds(schema):
        if kind not in _TYPES:
            raise TypeError(f"{where} has the type {kind!r}; there are {', '.join(_TYPES)}")
    if "pattern" in schema:
        re.compile(schema["pattern"])
    for name, inner in schema.get("properties", {}).items():
        check_schema(inner, f"{where}.{name}")
    for number, inner in enumerate(schema.get("anyOf", ())):
        check_schema(inner, f"{where}.anyOf[{number}]")
    for key in ("items", "additionalProperties"):
        if key in schema:
            check_schema(schema[key], f"{where}.{key}")


def _kinds(schema: Schema) -> Sequence[str]:
    kind = schema.get("type", ())
    return (kind,) if isinstance(kind, str) else tuple(kind)


def validate(value: Any, schema: Schema | bool, where: str) -> list[str]:
    """What is wrong with a value of JSON, in words that name places and types, and no values: they are a visitor's."""
    if isinstance(schema, bool):
        return [] if schema else [f"{where} is not declared"]
    kinds = _kinds(schema)
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{where} must be {' or '.join(kinds)}, not {_kind(value)}"]
    found = [*_limits(value, schema, where)]
    if "anyOf" in schema:
        tried = [validate(value, option, where) for option in schema["anyOf"]]
        if all(tried):
            # Of the options' complaints the one that came furthest: a wrong type says the least.
            found += max(tried, key=lambda complaints: max(len(text.partition(" ")[0]) for text in complaints))
    if isinstance(value, Mapping):
        found += _members(value, schema, where)
    elif isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            found += validate(item, schema["items"], f"{where}[{number}]")
    return found


def _members(value: Mapping[str, Any], schema: Schema, where: str) -> Iterator[str]:
    declared = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where}.{name} is missing"
    for name, item in value.items():
        yield from validate(item, declared.get(name, schema.get("additionalProperties", True)), f"{where}.{name}")


def _limits(value: Any, schema: Schema, where: str) -> Iterator[str]:
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        yield f"{where} must be one of {schema['enum']}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{where} must be {schema['const']!r}"
    if _is(value, "number"):
        if value < schema.get("minimum", value):
            yield f"{where} must be at least {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{where} must be at most {schema['maximum']}"
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            yield f"{where} has {len(value)} characters, which is not allowed"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{where} must match {schema['pattern']!r}"
        if not _is_format(value, schema.get("format", "")):
            yield f"{where} must be a {schema['format']}"


def _is_format(text: str, form: str) -> bool:
    parse = {"date-time": parse_datetime, "date": parse_date}.get(form)
    try:
        return parse is None or parse(text) is not None
    except ValueError:
        return False


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()  # as JSON Schema has it: 1.0 is an integer
    return isinstance(value, _TYPES[kind])


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _kind(value: Any) -> str:
    return next((kind for kind in ("boolean", "integer", "number", *_TYPES) if _is(value, kind)), "nothing")
