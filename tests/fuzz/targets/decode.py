"""Any body under any of the schemas is a value or a known reason. What is read, fastavro reads the same, type by type;
what is a record and what isn't, a second reader says by the specification (`tests/fuzz/reference_avro.py`).

The schemas: the shipped ones, a company's, one with everything that Avro has, one with long unions and enums, and a
union of record types.
"""  # fmt: skip

import io
import json
from typing import Any, NamedTuple

from fastavro import schemaless_reader

from consumer.adapters.avro_decoder import AvroDecoder, parse
from consumer.core.schema_guard import SchemaText
from consumer.core.wire_format import Configured
from consumer.ports import Decoded, Undecodable
from tests.fuzz.reference_avro import ReferenceReader
from tests.support import busy_schema
from tests.support.avro import EVENT, EVENT_V2, ManualClock, builtin, encode, record_of

MAX_BYTES = 1024
WORDS = [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80\x00", b"\x01\x02", b"\x00\x00\xc0\x7f", b"\xed\xa0\x80"]
REASONS = {
    "bad_block", "bad_boolean", "bad_index", "bad_length", "bad_utf8", "bad_uuid", "bad_varint", "not_a_record",
    "not_finite", "out_of_range", "too_large", "trailing_bytes", "truncated",
}  # fmt: skip
"""Not `malformed`: that one would mean that we overlooked a way to fail."""

_ALL_KINDS = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string",
    {"type": "long", "logicalType": "timestamp-millis"}, {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"}, {"type": "int", "logicalType": "date"},
    {"type": "long", "logicalType": "local-timestamp-micros"}, {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"}, {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
    {"type": "fixed", "name": "Money", "size": 4, "logicalType": "decimal", "precision": 9},
    {"type": "fixed", "name": "Two", "size": 2}, {"type": "enum", "name": "Few", "symbols": ["A", "B", "C"]},
    {"type": "array", "items": "int"}, {"type": "map", "values": ["null", "string", "Few"]},
    {"type": "array", "items": {"type": "map", "values": {"type": "array", "items": "Two"}}},
]  # fmt: skip


def _fields(*kinds: Any) -> list[dict[str, Any]]:
    return [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]


_ONE_OF_EACH = {"type": "record", "name": "Each", "fields": _fields(*_ALL_KINDS)}
_ANY_OF_ALL = {
    "type": "record",
    "name": "Any",
    "fields": _fields({"type": "array", "items": [{**_ONE_OF_EACH, "name": "Inner"}, *_ALL_KINDS[:8], "Two", "Few"]}),
}
_LONG = {
    "type": "record",
    "name": "Long",
    "fields": _fields(
        {"type": "enum", "name": "Many", "symbols": [f"S{number}" for number in range(300)]},
        [{"type": "fixed", "name": f"F{number}", "size": number} for number in range(70)],
    ),
}
_SEVERAL = ["null", {"type": "record", "name": "One", "fields": _fields("int")},
            {"type": "record", "name": "Two", "fields": _fields("string", ["null", "One"])},
            *({"type": "record", "name": f"R{n}", "fields": _fields("boolean")} for n in range(70))]  # fmt: skip


class _Case(NamedTuple):
    schema: Any
    reference: ReferenceReader
    decoder: AvroDecoder

    @classmethod
    def of(cls, document: Any) -> "_Case":
        text = SchemaText(json.dumps(document))
        schema, named = parse(text)
        decoder = AvroDecoder("plain", clock=ManualClock(), known={Configured(): text})
        return cls(schema, ReferenceReader(named), decoder)


DOCUMENTS = [builtin(1), builtin(2), busy_schema.SCHEMA, _ONE_OF_EACH, _ANY_OF_ALL, _LONG, _SEVERAL]
CASES = [_Case.of(document) for document in DOCUMENTS]


def check(data: bytes) -> None:
    case, body = CASES[(data[0] if data else 0) % len(CASES)], data[1:]
    decoded = case.decoder.decode(record_of(body))
    if isinstance(decoded, Undecodable):
        assert decoded.reason in REASONS
        is_null = isinstance(case.schema, list) and body == b"\0"
        assert is_null or not case.reference.is_record(case.schema, body), decoded
        return
    assert isinstance(decoded, Decoded)
    assert case.reference.is_record(case.schema, body)
    stream = io.BytesIO(body)
    theirs = schemaless_reader(stream, case.schema, None)
    assert stream.tell() == len(body)
    assert repr(decoded.datum) == repr(theirs)


_EACH: dict[str, Any] = {
    "f0": None, "f1": True, "f2": -1, "f3": 2**62, "f4": 1.5, "f5": -2.5, "f6": b"\xff", "f7": "é", "f8": 0, "f9": 1,
    "f10": 2, "f11": 20_000, "f12": 3, "f13": 4, "f14": 5, "f15": "00000000-0000-0000-0000-000000000007",
    "f16": b"\x00\x05", "f17": b"\0\0\0\x09", "f18": b"ab", "f19": "B", "f20": [1, 2, 3], "f21": {"a": None, "b": "x"},
    "f22": [{"k": [b"xy"]}],
}  # fmt: skip
SEEDS = [
    b"\x00" + encode(DOCUMENTS[0], EVENT),
    b"\x01" + encode(DOCUMENTS[1], EVENT_V2),
    b"\x02" + encode(DOCUMENTS[2], busy_schema.datum()),
    b"\x02" + encode(DOCUMENTS[2], busy_schema.datum(body={"name": "finish"}, consent={"tracking": None})),
    b"\x03" + encode(_ONE_OF_EACH, _EACH),
    b"\x04" + encode(_ANY_OF_ALL, {"f0": [("Inner", _EACH), None, True, 1, 2.5, "x", b"yz", ("Few", "C")]}),
    b"\x04\x03\x04\x02\x02\x00",  # two nulls in a block that says its size, which fastavro never writes
    b"\x05" + encode(_LONG, {"f0": "S299", "f1": ("F69", b"x" * 69)}),
    b"\x05" + encode(_LONG, {"f0": "S1", "f1": ("F0", b"")}),
    b"\x06" + encode(_SEVERAL, {"f0": "x", "f1": {"f0": 7}}),
    b"\x06" + encode(_SEVERAL, ("R66", {"f0": True})),
    b"\x03\x01\x02\x04" + b"\x00" * 30,
]
