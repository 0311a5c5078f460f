"""Makes src/strongroom/types.py, the shapes of requests and answers, from the OpenAPI document. Run by the build.

The document is docs/openapi.json, or the file that STRONGROOM_OPENAPI names. In a source distribution, which has no
document, the file is there already.
"""

import json
import keyword
import os
import pathlib
import re
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE / "src" / "strongroom" / "types.py"
HEAD = '''"""Shapes of requests and answers, made from the OpenAPI document by generate.py. Keys are spelled as on the wire."""

from __future__ import annotations

from typing import Any, Literal, Union

from typing_extensions import Required, TypedDict


'''
SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def annotation(schema: dict[str, Any]) -> str:
    """The Python type of a schema."""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[-1])
    if "const" in schema:
        return f"Literal[{schema['const']!r}]"
    if "enum" in schema:
        return f"Literal[{', '.join(repr(value) for value in schema['enum'])}]"
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return union([annotation(one) for one in schema[choice]])
    if "allOf" in schema:
        parts = [annotation(one) for one in schema["allOf"] if "$ref" in one or "type" in one]
        return parts[0] if len(parts) == 1 else "dict[str, Any]"
    kind = schema.get("type")
    if isinstance(kind, list):
        return union([annotation({**schema, "type": one}) for one in kind])
    if kind == "array":
        return f"list[{annotation(schema.get('items', {}))}]"
    if kind == "object":
        more = schema.get("additionalProperties")
        return f"dict[str, {annotation(more) if isinstance(more, dict) else 'Any'}]"
    return SIMPLE.get(str(kind), "Any")


def union(parts: list[str]) -> str:
    unique = list(dict.fromkeys(parts))
    if "Any" in unique:
        return "Any"
    return unique[0] if len(unique) == 1 else f"Union[{', '.join(unique)}]"


def docstring(schema: dict[str, Any]) -> str:
    words = re.sub(r"\s+", " ", schema.get("description", "")).strip().replace("\\", "")
    return words.replace('"""', "'")


def wrapped(text: str) -> str:
    return f'    """{text}"""\n' if text else ""


def merged(schema: dict[str, Any], schemas: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The properties of an object, those of its `allOf` included, and which of them are required."""
    properties, required = dict(schema.get("properties", {})), set(schema.get("required", []))
    for part in schema.get("allOf", []):
        if "$ref" in part:
            part = schemas[part["$ref"].rsplit("/", 1)[-1]]
        more, needed = merged(part, schemas)
        properties, required = {**more, **properties}, required | needed
    return properties, required


def definition(name: str, schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    properties, required = merged(schema, schemas)
    if not properties:
        return f"{name} = {forward(annotation(schema))}\n"
    if any(keyword.iskeyword(key) or not key.isidentifier() for key in properties):
        # Such keys cannot be attributes of a class, and this form has no docstring.
        fields = {key: f"Required[{annotation(value)}]" if key in required else annotation(value) for key, value in properties.items()}
        return f"{name} = TypedDict({name!r}, {{{', '.join(f'{key!r}: {kind!r}' for key, kind in fields.items())}}}, total=False)\n"
    lines = [f"class {name}(TypedDict, total=False):\n", wrapped(docstring(schema))]
    for key, value in sorted(properties.items()):
        kind = annotation(value)
        lines.append(f"    {key}: {f'Required[{kind}]' if key in required else kind}\n")
    return "".join(lines)


def forward(kind: str) -> str:
    """An alias is evaluated at once, so that names in it may have to wait."""
    return re.sub(r"(?<![\w'\"])([A-Z]\w+)(?![\w'\"\[])", lambda m: m[1] if m[1] in ("Any", "None") else f'"{m[1]}"', kind)


def aliases_last(names: list[str], schemas: dict[str, Any]) -> list[str]:
    return sorted(names, key=lambda name: (not merged(schemas[name], schemas)[0], name))


def generate(document: dict[str, Any]) -> str:
    schemas = document["components"]["schemas"]
    parts = [definition(name, schemas[name], schemas) for name in aliases_last(list(schemas), schemas)]
    return HEAD + "\n\n".join(parts)


def main() -> None:
    source = pathlib.Path(os.environ.get("STRONGROOM_OPENAPI") or HERE.parent.parent / "docs" / "openapi.json")
    if not source.exists():
        if TARGET.exists():
            return
        sys.exit(f"{source} is missing; STRONGROOM_OPENAPI names another OpenAPI document")
    TARGET.write_text(generate(json.loads(source.read_text())))


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    pass
else:

    class Hook(BuildHookInterface):  # type: ignore[type-arg]
        """Generates before a build."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            main()


if __name__ == "__main__":
    main()
