"""Avro bodies to Python values: one function, generated for each writer schema.

Why not fastavro's reader: it takes negative indexes of unions and enums for a branch from the end, lets overlong
integers wrap, stops at the end of the value and not of the record, and has no limits; checking its result would cost
as much again. Code made for one schema checks every byte where it is read, and takes 60 % of the time.
fastavro still parses the schemas and is the oracle in the tests: the values are the same, logical types included.

Refused although Apache's readers are milder: an index in more bytes than it needs, a boolean byte above 1, a block
whose byte size doesn't match. Each means that reader and writer don't agree on where they are.

Records that contain themselves become functions of their own, which count how deep they are in each other. They are
called in a process apart only (`adapters/decoder_process.py`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from math import isfinite
from struct import Struct, error as struct_error
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from consumer.core.schema_guard import Parsed, resolve, smallest_bytes

Reader: TypeAlias = Callable[[bytes, int], Any]
"""Reads the body of a record from a position to its end. Raises; `read_body` makes values of that."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_LOCAL = datetime(1970, 1, 1)  # noqa: DTZ001  local timestamps have no zone by definition
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DECIMAL_PADDING_BYTES = 8
"""Writers may put sign bytes before a number; not without end, since converting grows with the square."""
MAX_DEPTH = 256
"""Records within records of the same type. Apache's own readers stop at 100 (apache/avro#3929), ClickHouse at 256."""


class Malformed(NamedTuple):
    """Not a value of that schema. `reason` is a stable word and holds nothing of the data."""

    reason: str


class _MalformedError(ValueError):
    pass


def read_body(reader: Reader, value: bytes, start: int) -> Any:
    """Read the body of *value*.

    Returns:
        The value, or `Malformed`. Never raises, whatever the bytes.
    """
    try:
        return reader(value, start)
    except _MalformedError as malformed:
        return Malformed(str(malformed))
    except (IndexError, struct_error):
        return Malformed("truncated")
    except UnicodeDecodeError:
        return Malformed("bad_utf8")
    except (OverflowError, ValueError):
        return Malformed("out_of_range")
    except MemoryError:
        return Malformed("too_large")
    except Exception:  # noqa: BLE001  one record must never stop the others, whatever we overlooked
        return Malformed("malformed")


def read_index(value: bytes, start: int) -> tuple[int, int] | Malformed:
    """Read the index of a union: the branch, and where it begins."""
    try:
        number, end = _varint(value, start)
    except (_MalformedError, IndexError):
        return Malformed("truncated" if len(value) - start < 10 else "bad_varint")
    is_overlong = end > start + 1 and value[end - 1] == 0
    return Malformed("bad_index") if number & 1 or is_overlong else (number >> 1, end)


def compile_reader(schema: Parsed, named: Mapping[str, Parsed], recursive: Collection[str] = ()) -> Reader:
    """Generate the reader of *schema*, which the schema guard has let pass, finding these *recursive* records."""
    source = _Source(named, recursive)
    source.value(schema, "result", 1)
    code = "\n".join(
        (
            *source.functions(),
            "def read(buf, pos):",
            "    size = len(buf)",
            *(["    depth = 0"] if recursive else []),
            *source.lines,
            "    if pos != size:",
            "        raise Malformed('trailing_bytes' if pos < size else 'truncated')",
            "    return result",
        )
    )
    scope = {**_SCOPE, **source.constants}
    exec(code, scope)  # noqa: S102  built from the templates below; of the schema only repr() of names goes in
    reader: Reader = scope["read"]
    return reader


def _varint(buf: bytes, pos: int) -> tuple[int, int]:
    first = buf[pos]
    return (first, pos + 1) if first < 128 else _varint_tail(buf, pos + 1, first)


def _varint_tail(buf: bytes, pos: int, number: int) -> tuple[int, int]:
    """Go on with an integer of more than one byte; still zigzag."""
    number &= 0x7F
    shift = 7
    while True:
        byte = buf[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise _MalformedError("bad_varint")
    if number >> 64:
        raise _MalformedError("bad_varint")
    return number, pos


def _to_decimal(data: bytes, precision: int, scale: int, context: Context, max_bytes: int) -> Decimal:
    if len(data) > max_bytes:
        raise _MalformedError("out_of_range")
    unscaled = int.from_bytes(data, "big", signed=True)
    if abs(unscaled) >= 10**precision:
        raise _MalformedError("out_of_range")
    return Decimal(unscaled).scaleb(-scale, context)


def _to_time(number: int, per_second: int) -> time:
    if not 0 <= number < 86_400 * per_second:
        raise _MalformedError("out_of_range")
    seconds, rest = divmod(number, per_second)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, rest * (1_000_000 // per_second))


def _to_uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _MalformedError("bad_uuid") from None


_SCOPE: dict[str, Any] = {
    "Malformed": _MalformedError,
    "varint": _varint,
    "varint_tail": _varint_tail,
    "unpack_float": Struct("<f").unpack_from,
    "unpack_double": Struct("<d").unpack_from,
    "isfinite": isfinite,
    "timedelta": timedelta,
    "EPOCH": _EPOCH,
    "EPOCH_LOCAL": _EPOCH_LOCAL,
    "EPOCH_ORDINAL": _EPOCH_ORDINAL,
    "date_of": date.fromordinal,
    "to_decimal": _to_decimal,
    "to_time": _to_time,
    "to_uuid": _to_uuid,
}

_LOGICAL = {
    ("long", "timestamp-millis"): "EPOCH + timedelta(0, 0, {0} * 1000)",
    ("long", "timestamp-micros"): "EPOCH + timedelta(0, 0, {0})",
    ("long", "local-timestamp-millis"): "EPOCH_LOCAL + timedelta(0, 0, {0} * 1000)",
    ("long", "local-timestamp-micros"): "EPOCH_LOCAL + timedelta(0, 0, {0})",
    ("int", "date"): "date_of({0} + EPOCH_ORDINAL)",
    ("int", "time-millis"): "to_time({0}, 1000)",
    ("long", "time-micros"): "to_time({0}, 1000000)",
    ("string", "uuid"): "to_uuid({0})",
}


class _Source:
    """The lines of one reader. `n` and `end` are scratch; every value has a variable of its own."""

    def __init__(self, named: Mapping[str, Parsed], recursive: Collection[str]) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._named = named
        self._functions = {name: f"record_{number}" for number, name in enumerate(sorted(recursive))}
        self._names = 0

    def functions(self) -> Iterator[str]:
        """Yield the lines of the functions that recursive records are read by."""
        for name, function in self._functions.items():
            body = _Source(self._named, self._functions)
            body.constants = self.constants
            _, definition = resolve(name, self._named)
            assert isinstance(definition, dict)
            body._record(definition, "result", 1)
            yield f"def {function}(buf, pos, size, depth):"
            yield f"    if depth > {MAX_DEPTH}:"
            yield "        raise Malformed('too_deep')"
            yield from body.lines
            yield "    return result, pos"

    def value(self, schema: Parsed, target: str, indent: int) -> None:
        """Write the lines that read a *schema* into the variable *target*."""
        kind, definition = resolve(schema, self._named)
        if isinstance(definition, list):
            self._union(definition, target, indent)
            return
        match kind:
            case "record" if function := self._functions.get(definition["name"]):
                self._add(indent, f"{target}, pos = {function}(buf, pos, size, depth + 1)")
            case "record":
                self._record(definition, target, indent)
            case "array":
                self._array(definition["items"], target, indent)
            case "map":
                self._map(definition["values"], target, indent)
            case "enum":
                symbols = definition["symbols"]
                self._index(len(symbols), indent)
                self._add(indent, f"if n & 1 or n >= {2 * len(symbols)}:", "    raise Malformed('bad_index')")
                self._add(indent, f"{target} = {self._constant(tuple(symbols))}[n >> 1]")
            case "fixed":
                self._slice(f"pos + {definition['size']}", f"{target} = buf[pos:end]", indent)
            case _:
                self._scalar(kind, target, indent)
        self._logical(kind, definition, target, indent)

    def _scalar(self, kind: str, target: str, indent: int) -> None:
        match kind:
            case "null":
                self._add(indent, f"{target} = None")
            case "boolean":
                self._add(indent, "n = buf[pos]", "pos += 1", "if n > 1:", "    raise Malformed('bad_boolean')")
                self._add(indent, f"{target} = n == 1")
            case "int" | "long":
                self._varint(indent)
                self._add(indent, f"{target} = (n >> 1) ^ -(n & 1)")
                if kind == "int":
                    self._add(indent, "if n >> 32:", "    raise Malformed('out_of_range')")
            case "float" | "double":
                self._add(indent, f"({target},) = unpack_{kind}(buf, pos)", f"pos += {4 if kind == 'float' else 8}")
                self._add(indent, f"if not isfinite({target}):", "    raise Malformed('not_finite')")
            case "string":
                self._prefixed(f"{target} = buf[pos:end].decode()", indent)
            case _:
                self._prefixed(f"{target} = buf[pos:end]", indent)

    def _logical(self, kind: str, definition: dict[str, Any], target: str, indent: int) -> None:
        logical = definition.get("logicalType")
        if logical == "decimal" and kind in {"bytes", "fixed"}:
            precision, scale = definition["precision"], definition.get("scale") or 0
            context = self._constant(Context(prec=precision))
            most = definition["size"] if kind == "fixed" else precision // 2 + 1 + _DECIMAL_PADDING_BYTES
            self._add(indent, f"{target} = to_decimal({target}, {precision:d}, {scale:d}, {context}, {most:d})")
        elif isinstance(logical, str) and (template := _LOGICAL.get((kind, logical))):
            self._add(indent, f"{target} = {template.format(target)}")

    def _record(self, definition: dict[str, Any], target: str, indent: int) -> None:
        pairs = []
        for each in definition["fields"]:
            variable = self._name()
            self.value(each["type"], variable, indent)
            pairs.append(f"{each['name']!r}: {variable}")
        self._add(indent, f"{target} = {{{', '.join(pairs)}}}")

    def _union(self, branches: list[Parsed], target: str, indent: int) -> None:
        self._index(len(branches), indent)
        for index, branch in enumerate(branches):
            self._add(indent, f"{'if' if index == 0 else 'elif'} n == {2 * index}:")
            self.value(branch, target, indent + 1)
        self._add(indent, "else:", "    raise Malformed('bad_index')")

    def _array(self, items: Parsed, target: str, indent: int) -> None:
        item = self._name()
        with_index = self._blocks(f"{target} = []", smallest_bytes(items, self._named, self._functions), indent)
        self.value(items, item, indent + 2)
        self._add(indent + 2, f"{target}.append({item})")
        self._end_block(with_index, indent)

    def _map(self, values: Parsed, target: str, indent: int) -> None:
        key, item = self._name(), self._name()
        block_end = self._blocks(f"{target} = {{}}", 1 + smallest_bytes(values, self._named, self._functions), indent)
        self._prefixed(f"{key} = buf[pos:end].decode()", indent + 2)
        self.value(values, item, indent + 2)
        self._add(indent + 2, f"{target}[{key}] = {item}")
        self._end_block(block_end, indent)

    def _blocks(self, start: str, item_bytes: int, indent: int) -> str:
        """Open the loops over blocks and items; a count that the rest cannot hold ends it before anything is made."""
        block_end = self._name()
        self._add(indent, start, "while True:")
        self._varint(indent + 1)
        self._add(
            indent + 1,
            "if n == 0:",
            "    break",
            f"{block_end} = -1",
            "if n & 1:",
            "    n += 1",
            "    end, pos = varint(buf, pos)",
            "    if end & 1:",
            "        raise Malformed('bad_block')",
            f"    {block_end} = pos + (end >> 1)",
            f"if (n >> 1) * {item_bytes} > size - pos:",
            "    raise Malformed('truncated')",
            "for _ in range(n >> 1):",
        )
        return block_end

    def _end_block(self, block_end: str, indent: int) -> None:
        self._add(indent + 1, f"if {block_end} >= 0 and {block_end} != pos:", "    raise Malformed('bad_block')")

    def _prefixed(self, take: str, indent: int) -> None:
        self._varint(indent)
        self._add(indent, "if n & 1:", "    raise Malformed('bad_length')")
        self._slice("pos + (n >> 1)", take, indent)

    def _slice(self, end: str, take: str, indent: int) -> None:
        # beyond the end a slice is merely short; the position never goes back, so the last check finds it
        self._add(indent, f"end = {end}", take, "pos = end")

    def _varint(self, indent: int) -> None:
        self._add(indent, "n = buf[pos]", "pos += 1", "if n > 127:", "    n, pos = varint_tail(buf, pos, n)")

    def _index(self, choices: int, indent: int) -> None:
        if choices > 64:
            self._varint(indent)
            # a last byte of nothing but zeros: more bytes than the index needs
            self._add(indent + 1, "if buf[pos - 1] == 0:", "    raise Malformed('bad_index')")
        else:
            self._add(indent, "n = buf[pos]", "pos += 1")

    def _add(self, indent: int, *lines: str) -> None:
        self.lines.extend("    " * indent + line for line in lines)

    def _name(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def _constant(self, thing: object) -> str:
        name = f"C{len(self.constants)}"
        self.constants[name] = thing
        return name
