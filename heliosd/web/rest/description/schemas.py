"""JSON Schemas (draft 2020-12) of msgspec types, with the docstrings of their fields."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, Struct, structs

REFERENCE = "#/components/schemas/"


class Schemas:
    """The schemas of the types that the daemon sends and takes, and of all that they contain. A name stands for one
    type only. What is sent always has the fields with a default, too, but for those that can be left out."""

    def __init__(self, *, sent: Iterable[Any], taken: Iterable[Any], null_is_absent: bool = False) -> None:
        sent, taken = list(sent), list(taken)
        self._types = [*sent, *taken]
        schemas, self.components = msgspec.json.schema_components(
            self._types, ref_template=REFERENCE + "{name}"
        )
        self._schemas = list(schemas)
        for struct in _structs(self._types):
            _describe(self.components[struct.__name__], struct)
        for struct in _structs(sent) - _structs(taken):
            _require(self.components[struct.__name__], struct)
        for struct in _structs(taken) if null_is_absent else ():
            _allow_null(self.components[struct.__name__])

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of one of the `types`: mostly a reference into `components`."""
        return self._schemas[self._types.index(kind)]

    def parameters(self, struct: type[Struct]) -> dict[str, dict[str, Any]]:
        """The fields of one of the `types` as parameters of a query string, by name."""
        properties: dict[str, dict[str, Any]] = self.components[struct.__name__]["properties"]
        return {name: _without_null(part) for name, part in properties.items()}


def _structs(types: Iterable[Any]) -> set[type[Struct]]:
    """All msgspec structs in these types, at any depth."""
    found: set[type[Struct]] = set()
    waiting = [msgspec.inspect.type_info(kind) for kind in types]
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found.add(info.cls)
            waiting += [part.type for part in info.fields]
        for name in ("types", "item_types"):
            waiting += getattr(info, name, ())
        for name in ("item_type", "key_type", "value_type"):
            part = getattr(info, name, None)
            if part is not None:
                waiting.append(part)
    return found


def _describe(schema: dict[str, Any], struct: type[Struct]) -> None:
    texts = {name: text for base in reversed(struct.__mro__) for name, text in _field_texts(base).items()}
    for name, part in schema.get("properties", {}).items():
        if name in texts:
            part["description"] = texts[name]
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])


def _require(schema: dict[str, Any], struct: type[Struct]) -> None:
    if not struct.__struct_config__.omit_defaults:
        required = [f.encode_name for f in structs.fields(struct) if f.required or f.default is not UNSET]
        schema["required"] = required


def _allow_null(schema: dict[str, Any]) -> None:
    """An optional field that is null counts as left out (`read_body`): Go's and Java's clients write it so."""
    for name, part in schema.get("properties", {}).items():
        if name not in schema["required"] and part != {}:
            text = {key: part.pop(key) for key in ("description", "default") if key in part}
            schema["properties"][name] = {"anyOf": [part, {"type": "null"}], **text}


def _without_null(part: dict[str, Any]) -> dict[str, Any]:
    others = [one for one in part.get("anyOf", ()) if one != {"type": "null"}]
    if len(others) != 1:
        return part
    return {**others[0], **{key: value for key, value in part.items() if key != "anyOf"}}


@cache
def _field_texts(struct: type) -> dict[str, str]:
    """The text under each field of a class; empty where the source is not at hand."""
    if struct is Struct or not issubclass(struct, Struct):
        return {}
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    except (OSError, SyntaxError):
        return {}
    assert isinstance(definition, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            texts[field.target.id] = " ".join(after.value.value.split())
    return texts
