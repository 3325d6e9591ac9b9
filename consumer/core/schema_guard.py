"""Which writer schemas we decode with, and how large their records may be.

A schema decides how much work a few bytes can cause: an array of nulls turns five bytes into thirty million items, a
recursive type into a crashed process, which under at-least-once delivery is a crash for ever. So whatever can do that
is refused when the schema is loaded, once, and not looked for in each record. Recursive types can be allowed; whoever
does so decodes them in a process apart.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

Parsed: TypeAlias = str | list[Any] | dict[str, Any]
"""A schema as `fastavro.parse_schema` returns it: full names, nested definitions."""

MAX_SCHEMA_BYTES = 1_048_576
MAX_JSON_DEPTH = 100
MAX_NESTING = 16
"""Records, arrays and maps within each other."""
MAX_LOOPS = 8
"""Arrays and maps within each other: two loops each, and CPython refuses more than 20 in one function."""
MAX_FIELDS = 2_000
"""Counted where they are used: a type that is named ten times counts ten times."""
MAX_BRANCHES = 200
"""Of one union: the reader asks for them one after the other."""
MAX_REFERENCES = 100
MAX_DECIMAL_PRECISION = 38
MAX_DECODED_BYTES = 67_108_864
"""What the Python values of one record may weigh, roughly: 64 times the default record limit."""


class SchemaText(NamedTuple):
    """A schema as JSON text, and those that it refers to, in an order in which each can be parsed."""

    text: str
    references: tuple[str, ...] = ()


class NoSchema(NamedTuple):
    """There is no schema to decode with, for good. `reason` is a stable word, `detail` is for people."""

    reason: str
    detail: str = ""


class SchemaRefusedError(ValueError):
    """The schema could make a record dangerous, or isn't one; says which part and why."""


class Bounds(NamedTuple):
    """What a schema was found to allow."""

    max_body_bytes: int
    """How large a body it may decode within `MAX_DECODED_BYTES`."""
    recursive: frozenset[str]
    """Records that contain themselves: at least one of each circle."""


class Shape(NamedTuple):
    """The cheapest encoding of a type: its size on the wire, and what its Python value weighs, roughly."""

    wire_bytes: int
    memory_bytes: int


_SCALARS = {
    "null": Shape(0, 0),
    "boolean": Shape(1, 0),
    "int": Shape(1, 32),
    "long": Shape(1, 32),
    "float": Shape(4, 24),
    "double": Shape(8, 24),
    "bytes": Shape(1, 40),
    "string": Shape(1, 56),
    "enum": Shape(1, 0),
}
_CONTAINER_BYTES = 64
_RECORD_BYTES = 104
_SLOT_BYTES = 40


def check_json_depth(document: object) -> None:
    """Refuse a *document* that is nested deeper than a parser of schemas, which recurses, should follow."""
    level = [document]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise SchemaRefusedError(f"the schema's JSON is nested deeper than {MAX_JSON_DEPTH}")


def resolve(schema: Parsed, named: Mapping[str, Parsed]) -> tuple[str, dict[str, Any] | list[Any]]:
    """Return the type word of *schema* (`union` for a list) and its definition, names followed."""
    if isinstance(schema, list):
        return "union", schema
    if isinstance(schema, str):
        if schema in _SCALARS:
            return schema, {"type": schema}
        if schema not in named:
            raise SchemaRefusedError(f"{schema} is not defined")
        return resolve(named[schema], named)
    return ("record" if schema["type"] == "error" else schema["type"]), schema


def survey(schema: Parsed, named: Mapping[str, Parsed], *, allow_recursive: bool = False) -> Bounds:
    """Check *schema* and say what a body of it may be.

    Raises:
        SchemaRefusedError: it is recursive and must not be, repeats items of no bytes, or is beyond a limit above.
    """
    walk = _Survey(named, allow_recursive)
    walk.visit(schema, (), 0)
    return Bounds(int(MAX_DECODED_BYTES / walk.expansion), frozenset(walk.recursive))


@dataclass
class _Survey:
    """One walk over a schema, each name followed wherever it is used."""

    named: Mapping[str, Parsed]
    allow_recursive: bool
    fields: int = 0
    expansion: float = 4.0
    """Memory per byte on the wire, of whatever can repeat; a text with one emoji takes four bytes per character."""
    recursive: set[str] = field(default_factory=set)
    _open: list[str] = field(default_factory=list)
    _loops: int = 0

    def visit(self, schema: Parsed, path: tuple[str, ...], nesting: int) -> Shape:
        kind, definition = resolve(schema, self.named)
        if nesting > MAX_NESTING:
            raise SchemaRefusedError(f"{_at(path)}: nested deeper than {MAX_NESTING}")
        if isinstance(definition, list):
            return self._union(definition, path, nesting)
        if definition.get("logicalType") == "decimal" and kind in {"bytes", "fixed"}:
            _check_precision(definition.get("precision"), path)
        match kind:
            case "record":
                return self._record(definition, path, nesting)
            case "array":
                return self._repeated(definition["items"], Shape(0, 8), (*path, "[]"), nesting)
            case "map":
                # an entry and its key; keys that differ take three bytes, but for the first few
                return self._repeated(definition["values"], Shape(3, 56 + 100), (*path, "{}"), nesting)
            case "fixed":
                size = definition["size"]
                if not isinstance(size, int) or not 0 <= size <= MAX_SCHEMA_BYTES:
                    raise SchemaRefusedError(f"{_at(path)}: a fixed of size {size!r}")
                return Shape(size, 40 + size)
            case _:
                return _SCALARS[kind]

    def _union(self, branches: list[Parsed], path: tuple[str, ...], nesting: int) -> Shape:
        if not 0 < len(branches) <= MAX_BRANCHES:
            raise SchemaRefusedError(f"{_at(path)}: a union of {len(branches)} branches, not 1 to {MAX_BRANCHES}")
        shapes = [self.visit(branch, path, nesting) for branch in branches]
        self._count(len(shapes), path)
        worst = max(shapes, key=lambda shape: shape.memory_bytes / (shape.wire_bytes + 1))
        return Shape(worst.wire_bytes + 1, worst.memory_bytes)

    def _record(self, definition: dict[str, Any], path: tuple[str, ...], nesting: int) -> Shape:
        name = definition["name"]
        if name in self._open:
            if not self.allow_recursive:
                raise SchemaRefusedError(f"{_at(path)}: {name} contains itself; recursive types can crash the decoder")
            self.recursive.add(name)
            return Shape(0, 0)  # it repeats, and is weighed as a whole where it is defined
        self._open.append(name)
        self._count(len(definition["fields"]), path)
        for each in definition["fields"]:
            if not isinstance(each["name"], str):
                raise SchemaRefusedError(f"{_at(path)}: a field whose name is no text")
        shapes = [self.visit(each["type"], (*path, each["name"]), nesting + 1) for each in definition["fields"]]
        self._open.pop()
        memory = _RECORD_BYTES + sum(shape.memory_bytes + _SLOT_BYTES for shape in shapes)
        wire = sum(shape.wire_bytes for shape in shapes)
        if name in self.recursive:
            self._repeats(memory + 8, wire)
        return Shape(wire, memory)

    def _repeated(self, item: Parsed, extra: Shape, path: tuple[str, ...], nesting: int) -> Shape:
        self._loops += 1
        if self._loops > MAX_LOOPS:
            raise SchemaRefusedError(f"{_at(path)}: more than {MAX_LOOPS} arrays and maps within each other")
        shape = self.visit(item, path, nesting + 1)
        self._loops -= 1
        if smallest_bytes(item, self.named, self.recursive) == 0:
            raise SchemaRefusedError(f"{_at(path)}: items of no bytes, so a few bytes could claim billions of them")
        self._repeats(shape.memory_bytes + extra.memory_bytes, shape.wire_bytes + extra.wire_bytes)
        return Shape(1, _CONTAINER_BYTES)

    def _repeats(self, memory_bytes: int, wire_bytes: int) -> None:
        self.expansion = max(self.expansion, memory_bytes / max(1, wire_bytes))

    def _count(self, more: int, path: tuple[str, ...]) -> None:
        self.fields += more
        if self.fields > MAX_FIELDS:
            raise SchemaRefusedError(f"{_at(path)}: more than {MAX_FIELDS} fields and branches")


def smallest_bytes(schema: Parsed, named: Mapping[str, Parsed], recursive: Collection[str] = ()) -> int:
    """Return how many bytes a value of *schema*, which has passed the survey, takes at least.

    A value of a *recursive* type that ever ends has a union, an array or a map in it: one byte, if not more.
    """
    kind, definition = resolve(schema, named)
    if isinstance(definition, list):
        return 1 + min(smallest_bytes(branch, named, recursive) for branch in definition)
    match kind:
        case "record" if definition["name"] in recursive:
            return 1
        case "record":
            return sum(smallest_bytes(each["type"], named, recursive) for each in definition["fields"])
        case "fixed":
            return int(definition["size"])
        case "array" | "map":
            return 1
        case _:
            return _SCALARS[kind].wire_bytes


def _check_precision(precision: object, path: tuple[str, ...]) -> None:
    if not isinstance(precision, int) or not 0 < precision <= MAX_DECIMAL_PRECISION:
        raise SchemaRefusedError(f"{_at(path)}: a decimal's precision must be 1 to {MAX_DECIMAL_PRECISION}")


def _at(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the schema"
