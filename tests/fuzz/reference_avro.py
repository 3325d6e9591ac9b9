"""A second reader of Avro, from the specification and the refusals that `core/avro_reader.py` promises.

Interprets the schema, slowly, one rule after the other, and shares nothing with the generated readers: it says which
bytes are a record at all. Values are fastavro's business.
"""

import struct
from math import isfinite
from typing import Any, NamedTuple
from uuid import UUID

_SECONDS_A_DAY = 86_400
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""The years 1 and 9999, in days since 1970."""
_TICKS = {"millis": 1000, "micros": 1_000_000}


class NoRecordError(Exception):
    """The bytes are no value of the schema."""


class Value(NamedTuple):
    """What a logical type needs to judge, and where the value ends."""

    value: Any
    end: int


def _need(holds: bool) -> None:
    if not holds:
        raise NoRecordError


class ReferenceReader:
    """Reads values of schemas as fastavro parsed them."""

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named

    def is_record(self, schema: Any, data: bytes) -> bool:
        """Say whether *data* is exactly one value of *schema*."""
        try:
            return self._value(schema, data, 0).end == len(data)
        except NoRecordError:
            return False

    def _value(self, schema: Any, data: bytes, at: int) -> Value:
        if isinstance(schema, list):
            index, at = _index(data, at, len(schema))
            return self._value(schema[index], data, at)
        if isinstance(schema, str) and schema in self._named:
            schema = self._named[schema]
        kind = schema if isinstance(schema, str) else schema["type"]
        value = self._plain(kind, schema, data, at)
        if isinstance(schema, dict) and "logicalType" in schema:
            _need(_fits(kind, schema, value.value))
        return value

    def _plain(self, kind: str, schema: Any, data: bytes, at: int) -> Value:
        match kind:
            case "null":
                return Value(None, at)
            case "boolean":
                _need(data[at : at + 1] in {b"\0", b"\1"})
                return Value(None, at + 1)
            case "int" | "long":
                number, at = _integer(data, at)
                _need(-(2**31) <= number < 2**31 or kind == "long")
                return Value(number, at)
            case "float" | "double":
                size = 4 if kind == "float" else 8
                _need(at + size <= len(data))
                _need(isfinite(struct.unpack("<f" if size == 4 else "<d", data[at : at + size])[0]))
                return Value(None, at + size)
            case "bytes" | "string":
                size, at = _integer(data, at)
                _need(0 <= size <= len(data) - at)
                text = data[at : at + size]
                if kind == "string":
                    _need(text.decode("utf-8", "ignore").encode() == text)
                return Value(text, at + size)
            case "fixed":
                _need(at + schema["size"] <= len(data))
                return Value(data[at : at + schema["size"]], at + schema["size"])
            case "enum":
                return Value(None, _index(data, at, len(schema["symbols"]))[1])
            case "record":
                for field in schema["fields"]:
                    at = self._value(field["type"], data, at).end
                return Value(None, at)
            case "array" | "map":
                return Value(None, self._blocks(schema, data, at))
        raise AssertionError(kind)

    def _blocks(self, schema: Any, data: bytes, at: int) -> int:
        while True:
            count, at = _integer(data, at)
            if count == 0:
                return at
            end = None
            if count < 0:
                size, at = _integer(data, at)
                _need(size >= 0)
                count, end = -count, at + size
            for _ in range(count):  # ends with the data at the latest: no item is of no bytes
                if schema["type"] == "map":
                    at = self._value("string", data, at).end
                at = self._value(schema["items" if schema["type"] == "array" else "values"], data, at).end
            _need(end is None or end == at)


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Read a zigzag integer of 64 bits in ten bytes at most."""
    number = 0
    for index, byte in enumerate(data[at : at + 10]):
        number += (byte % 128) * 128**index
        if byte < 128:
            _need(number < 2**64)
            return (-(number + 1) // 2 if number % 2 else number // 2), at + index + 1
    raise NoRecordError


def _index(data: bytes, at: int, choices: int) -> tuple[int, int]:
    number, end = _integer(data, at)
    _need(0 <= number < choices)
    _need(end == at + 1 or data[end - 1] != 0)  # in no more bytes than it needs
    return number, end


def _fits(kind: str, schema: dict[str, Any], value: Any) -> bool:
    """Say whether Python has a value for it."""
    logical = schema["logicalType"]
    if logical == "decimal" and kind in {"bytes", "fixed"}:
        padded = kind == "fixed" or len(value) <= schema["precision"] // 2 + 9
        return padded and abs(int.from_bytes(value, "big", signed=True)) < 10 ** schema["precision"]
    if logical == "uuid" and kind == "string":
        try:
            UUID(value.decode())
        except ValueError:
            return False
        return True
    if (kind, logical) == ("int", "date"):
        return _FIRST_DAY <= value <= _LAST_DAY
    if (kind, logical) in {("int", "time-millis"), ("long", "time-micros")}:
        return 0 <= value < _SECONDS_A_DAY * _TICKS[logical.rpartition("-")[2]]
    if kind == "long" and logical.removeprefix("local-") in {"timestamp-millis", "timestamp-micros"}:
        return _FIRST_DAY <= value // (_SECONDS_A_DAY * _TICKS[logical.rpartition("-")[2]]) <= _LAST_DAY
    return True
