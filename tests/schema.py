"""A validator for the part of JSON Schema that natfix's own schemas use; any other word is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "natfix" / "schemas"
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,),
}
WORDS = frozenset({
    "$schema", "title", "description", "type", "properties", "required", "additionalProperties", "items",
    "enum", "const",
})


def problems(document: Any, name: str) -> list[str]:
    """Return all ways in which *document* differs from the schema *name* ("calls")."""
    schema = json.loads((FOLDER / f"{name}.json").read_text())
    return list(_problems(document, schema, "$"))


def _problems(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    if unknown := schema.keys() - WORDS:
        raise ValueError(f"{where}: this validator does not know {unknown}")
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    kind = next((kind for kind in kinds if _is_a(value, kind)), None)
    if kind is None:
        yield f"{where}: {value!r} is no {' or '.join(kinds)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{where}: {value!r} is not {schema['const']!r}"
    if kind == "array":
        for index, item in enumerate(value):
            yield from _problems(item, schema["items"], f"{where}[{index}]")
    if kind == "object":
        yield from _object_problems(value, schema, where)


def _is_a(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _object_problems(value: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    for key in schema["required"]:
        if key not in value:
            yield f"{where}: {key} is missing"
    for key, item in value.items():
        if inner := schema["properties"].get(key, schema["additionalProperties"]):
            yield from _problems(item, inner, f"{where}.{key}")
        else:
            yield f"{where}: {key} is not in the schema"
