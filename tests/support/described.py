"""Values held against the schemas of a description: `/openapi.json` or `/asyncapi.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource


def checker(described: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """References in `schema` mean places of the whole document."""
    registry = Registry().with_resource("urn:d", Resource.opaque(described))
    text = json.dumps(schema).replace('"#/', '"urn:d#/')
    components = json.loads(json.dumps(described).replace('"#/', '"urn:d#/'))
    return Draft202012Validator(
        json.loads(text), registry=registry.with_resource("urn:d", Resource.opaque(components))
    )


def undescribed(
    described: dict[str, Any], schema: dict[str, Any], value: Any, where: str = ""
) -> Iterator[str]:
    """Fields in `value` that the schema does not name."""
    if "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        found = [list(undescribed(described, one, value, where)) for one in schema["anyOf"]]
        yield from min(found, key=len)
    elif isinstance(value, list):
        items = schema.get("items") or {}
        for part in value:
            yield from undescribed(described, items, part, f"{where}[]")
    elif isinstance(value, dict) and "properties" in schema:
        for key, part in value.items():
            if key not in schema["properties"]:
                yield f"{where}.{key}"
            else:
                yield from undescribed(described, schema["properties"][key], part, f"{where}.{key}")
    elif isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        for key, part in value.items():
            yield from undescribed(described, schema["additionalProperties"], part, f"{where}.{key}")
