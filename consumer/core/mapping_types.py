"""What a mapping needs to know about Avro types: names, unions, and which branch a decoded value came from.

A decoded value doesn't carry its branch. Most are told apart by their Python type, records by their fields.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

_LOGICAL: dict[tuple[str, str], type] = {
    ("bytes", "decimal"): Decimal,
    ("fixed", "decimal"): Decimal,
    ("long", "timestamp-millis"): datetime,
    ("long", "timestamp-micros"): datetime,
    ("long", "local-timestamp-millis"): datetime,
    ("long", "local-timestamp-micros"): datetime,
    ("int", "date"): date,
    ("int", "time-millis"): time,
    ("long", "time-micros"): time,
    ("string", "uuid"): UUID,
}
"""The logical types that decoding turns into a type of their own; others stay what they are."""
_PLAIN: dict[str, type] = {
    "string": str, "enum": str, "boolean": bool, "int": int, "long": int, "float": float, "double": float,
    "bytes": bytes, "fixed": bytes, "array": list, "map": dict, "record": dict,
}  # fmt: skip


class BranchError(Exception):
    """Two branches of a union whose values look the same."""


def kind_of(schema: Mapping[str, Any]) -> str:
    """Return the type word of a resolved schema: its logical type if it has one, else its type."""
    logical = schema.get("logicalType")
    kind = schema["type"]
    return logical if isinstance(logical, str) and isinstance(kind, str) else str(kind)


def python_type(schema: Mapping[str, Any]) -> type:
    """Return the type of the decoded values of a resolved schema."""
    kind = schema["type"]
    return _LOGICAL.get((kind, str(schema.get("logicalType")))) or _PLAIN.get(kind, type(None))


def open_union(schema: Any, names: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what *schema* may be: references followed, unions opened, null left out."""
    if isinstance(schema, list):
        for branch in schema:
            yield from open_union(branch, names)
    elif isinstance(schema, str):
        if schema in names:
            yield from open_union(names[schema], names)
        elif schema != "null":
            yield {"type": schema}
    elif isinstance(schema["type"], list | dict) or schema["type"] in names:
        yield from open_union(schema["type"], names)
    elif schema["type"] == "error":
        yield {**schema, "type": "record"}
    elif schema["type"] != "null":
        yield schema


def branch_test(chosen: Mapping[str, Any], options: list[Any]) -> Callable[[Any], bool]:
    """Return a function that says whether a decoded value is of the branch *chosen* among *options*.

    Raises:
        BranchError: another branch gives values that look the same.
    """
    wanted = python_type(chosen)
    alike = [option for option in options if option is not chosen and python_type(option) is wanted]
    if chosen["type"] == "record":
        fields = _fields(chosen)
        if any(option["type"] != "record" or _fields(option) == fields for option in alike):
            raise BranchError(f"a value doesn't tell {chosen['name']} from another branch of the union")
        return lambda value: type(value) is dict and value.keys() == fields
    if alike:
        raise BranchError(f"a value doesn't tell {kind_of(chosen)} from another branch of the union")
    return lambda value: type(value) is wanted


def _fields(record: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(field["name"] for field in record["fields"])


def full_name(schema: Any) -> str:
    """Return the full name of a record schema; the type word of anything else."""
    if not isinstance(schema, dict):
        return schema if isinstance(schema, str) else "union"
    name = str(schema.get("name", schema.get("type")))
    namespace = schema.get("namespace")
    return name if "." in name or not namespace else f"{namespace}.{name}"


def named_types(schema: Any) -> dict[str, Any]:
    """Return every named type within *schema*, and those that fastavro knew when it parsed it, by full name."""
    names: dict[str, Any] = {}

    def walk(part: Any, namespace: str) -> None:
        if isinstance(part, list):
            for branch in part:
                walk(branch, namespace)
        elif isinstance(part, dict):
            kind = part.get("type")
            if isinstance(kind, str) and kind in {"record", "error", "enum", "fixed"}:
                name = part["name"]
                full = name if "." in name else f"{part.get('namespace', namespace)}.{name}".strip(".")
                names[full] = names[name] = part
                inner = full.rpartition(".")[0]
                for field in part.get("fields", ()):
                    walk(field["type"], inner)
            else:
                walk(kind, namespace)
            walk(part.get("items"), namespace)
            walk(part.get("values"), namespace)

    walk(schema, "")
    if isinstance(schema, dict):
        names.update(schema.get("__named_schemas") or {})
    return names
