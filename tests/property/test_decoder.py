"""Whatever the bytes: a value or a reason. Whatever we accept, fastavro reads the same: it is the oracle."""

import io
import json
import string

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given, settings, strategies as st

from consumer.adapters.avro_decoder import AvroDecoder
from consumer.adapters.schema_directory import SchemaDirectory, builtin_schemas
from consumer.core.avro_reader import Malformed, compile_reader, read_body
from consumer.core.schema_guard import SchemaText, survey
from consumer.core.wire_format import SCHEMA_HEADER, Configured
from consumer.ports import Decoded, SchemaNeeded, Undecodable
from tests.support.avro import EVENT, EVENT_V2, ManualClock, builtin, encode, record_of

REASONS = {
    "bad_block", "bad_boolean", "bad_index", "bad_length", "bad_magic", "bad_schema_header", "bad_schema_id",
    "bad_utf8", "bad_uuid", "bad_varint", "not_finite", "out_of_range", "schema_unknown", "too_large", "too_short",
    "trailing_bytes", "truncated",
}  # fmt: skip
"""All words but `malformed`: that one would mean that we overlooked a way to fail."""

LEAVES = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(max_size=80),
    "bytes": st.binary(max_size=80),
}
LOGICAL = [
    ({"type": "long", "logicalType": "timestamp-millis"}, st.integers(-(10**13), 10**13)),
    ({"type": "long", "logicalType": "timestamp-micros"}, st.integers(-(10**16), 10**16)),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, st.integers(-(10**16), 10**16)),
    ({"type": "int", "logicalType": "date"}, st.integers(-700_000, 2_900_000)),
    ({"type": "int", "logicalType": "time-millis"}, st.integers(0, 86_399_999)),
    ({"type": "long", "logicalType": "time-micros"}, st.integers(0, 86_399_999_999)),
    ({"type": "string", "logicalType": "uuid"}, st.uuids()),
    ({"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3},
     st.decimals(-(10**8), 10**8, places=3, allow_nan=False)),
]  # fmt: skip


@st.composite
def typed(draw, names, depth=3, *, repeats=False):
    """A schema, and a strategy for values of it."""
    kinds = ["leaf", "leaf", "logical", "enum", "fixed"] + (["record", "array", "map", "union"] if depth else [])
    match draw(st.sampled_from(kinds)):
        case "logical":
            return draw(st.sampled_from(LOGICAL))
        case "enum":
            symbols = draw(st.lists(st.sampled_from(string.ascii_letters), min_size=1, max_size=5, unique=True))
            return {"type": "enum", "name": f"N{next(names)}", "symbols": symbols}, st.sampled_from(symbols)
        case "fixed":
            size = draw(st.integers(1, 20))
            return {"type": "fixed", "name": f"N{next(names)}", "size": size}, st.binary(min_size=size, max_size=size)
        case "record":
            fields = draw(st.lists(typed(names, depth - 1, repeats=repeats), min_size=1, max_size=5))
            schema = [{"name": f"f{n}", "type": kind} for n, (kind, _) in enumerate(fields)]
            values = {f"f{n}": values for n, (_, values) in enumerate(fields)}
            return {"type": "record", "name": f"N{next(names)}", "fields": schema}, st.fixed_dictionaries(values)
        case "array":
            items, values = draw(typed(names, depth - 1, repeats=True))
            return {"type": "array", "items": items}, st.lists(values, max_size=4)
        case "map":
            items, values = draw(typed(names, depth - 1, repeats=True))
            return {"type": "map", "values": items}, st.dictionaries(st.text(max_size=9), values, max_size=4)
        case "union":
            other, values = draw(typed(names, 0, repeats=True))
            return ["null", other], st.none() | values
        case _:
            name = draw(st.sampled_from([leaf for leaf in LEAVES if not (repeats and leaf == "null")]))
            return name, LEAVES[name]


@st.composite
def records(draw):
    names = iter(range(1000))
    fields = draw(st.lists(typed(names), min_size=1, max_size=6))
    schema = {
        "type": "record",
        "name": "Top",
        "fields": [{"name": f"f{n}", "type": kind} for n, (kind, _) in enumerate(fields)],
    }
    return schema, {f"f{n}": draw(values) for n, (_, values) in enumerate(fields)}


def decoder_of(schema):
    return AvroDecoder("plain", clock=ManualClock(), known={Configured(): SchemaText(json.dumps(schema))})


def oracle(schema, value):
    stream = io.BytesIO(value)
    read = schemaless_reader(stream, parse_schema(schema), None)
    assert stream.tell() == len(value)
    return read


@settings(max_examples=150, deadline=None)
@given(records())
def test_what_fastavro_writes_we_read_as_fastavro_does(case):
    schema, datum = case
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), datum)
    value = out.getvalue()
    decoded = decoder_of(schema).decode(record_of(value))
    assert isinstance(decoded, Decoded)
    assert decoded.datum == oracle(schema, value)
    # and not only equal: True == 1 == 1.0
    assert repr(decoded.datum) == repr(oracle(schema, value))


@settings(max_examples=150, deadline=None)
@given(records(), st.data())
def test_a_record_cut_short_is_never_a_record(case, data):
    schema, datum = case
    value = encode(schema, datum)
    if value:
        cut = data.draw(st.integers(0, len(value) - 1))
        assert isinstance(decoder_of(schema).decode(record_of(value[:cut])), Undecodable)
    assert decoder_of(schema).decode(record_of(value + b"\0")) == Undecodable("trailing_bytes")


@st.composite
def recursive_records(draw):
    """A record type with itself in it, in one to three ways, and bytes of a value."""
    names = iter(range(1000))
    fields = draw(st.lists(typed(names, 2), min_size=0, max_size=3))
    ways = draw(st.lists(st.sampled_from(["union", "array", "map", "inside"]), min_size=1, max_size=3))
    kinds = {
        "union": ["null", "Top"],
        "array": {"type": "array", "items": "Top"},
        "map": {"type": "map", "values": "Top"},
    }
    schema = {
        "type": "record",
        "name": "Top",
        "fields": [{"name": f"f{n}", "type": kind} for n, (kind, _) in enumerate(fields)]
        + [
            {"name": f"r{n}", "type": kinds.get(way) or {
                "type": "record", "name": f"Inner{n}", "fields": [{"name": "top", "type": ["null", "Top"]}]}}
            for n, way in enumerate(ways)
        ],
    }  # fmt: skip

    def value(depth):
        inner = {
            "union": lambda: value(depth - 1) if depth and draw(st.booleans()) else None,
            "array": lambda: [value(depth - 1) for _ in range(draw(st.integers(0, 2)) if depth else 0)],
            "map": lambda: {f"k{k}": value(depth - 1) for k in range(draw(st.integers(0, 2)) if depth else 0)},
            "inside": lambda: {"top": value(depth - 1) if depth and draw(st.booleans()) else None},
        }
        flat = {f"f{n}": draw(values) for n, (_, values) in enumerate(fields)}
        return {**flat, **{f"r{n}": inner[way]() for n, way in enumerate(ways)}}

    return schema, value(draw(st.integers(0, 3)))


def reader_of(schema):
    named = {}
    parsed = parse_schema(schema, named)
    return compile_reader(parsed, named, survey(parsed, named, allow_recursive=True).recursive)


@settings(max_examples=100, deadline=None)
@given(recursive_records(), st.data())
def test_recursive_types_are_read_as_fastavro_does_and_as_strictly_as_others(case, data):
    schema, datum = case
    reader = reader_of(schema)
    value = encode(schema, datum)
    assert repr(read_body(reader, value, 0)) == repr(oracle(schema, value))
    assert read_body(reader, value + b"\0", 0) == Malformed("trailing_bytes")
    cut = data.draw(st.integers(0, len(value) - 1))
    assert isinstance(read_body(reader, value[:cut], 0), Malformed)
    at = data.draw(st.integers(0, len(value) - 1))
    damaged = value[:at] + data.draw(st.binary(max_size=3)) + value[at + 1 :]
    read = read_body(reader, damaged, 0)
    if isinstance(read, Malformed):
        assert read.reason in REASONS | {"too_deep"}
    else:
        assert repr(read) == repr(oracle(schema, damaged))


BUILTIN = AvroDecoder("plain", clock=ManualClock(), known={Configured(): SchemaText(json.dumps(builtin(2)))})
WHOLE = encode(builtin(2), EVENT_V2)
EDITS = st.lists(
    st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=3
)


@settings(max_examples=400, deadline=None)
@given(EDITS)
def test_a_damaged_event_is_refused_or_read_as_fastavro_does(edits):
    value = WHOLE
    for at, length, insert in edits:
        value = value[:at] + insert + value[at + length :]
    decoded = BUILTIN.decode(record_of(value))
    if isinstance(decoded, Decoded):
        assert repr(decoded.datum) == repr(oracle(builtin(2), value))
    else:
        assert decoded.reason in REASONS


FOLDER = SchemaDirectory(builtin_schemas())
DECODERS = {
    wire: AvroDecoder(wire, clock=ManualClock(), known=FOLDER.references) for wire in ("confluent", "single_object")
}
PREFIXES = st.sampled_from([b"", b"\0\0\0\0\1", b"\0\0\0\0\2", *(b"\xc3\x01" + r[0] for r in FOLDER.by_fingerprint)])
HEADERS = st.just(()) | st.tuples(st.tuples(st.just(SCHEMA_HEADER), st.none() | st.binary(max_size=20)))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), PREFIXES, st.binary(max_size=300), HEADERS)
def test_any_bytes_are_a_value_or_a_reason(wire, prefix, body, headers):
    decoded = DECODERS[wire].decode(record_of(prefix + body, headers))
    assert not isinstance(decoded, SchemaNeeded)  # there is nobody to ask
    assert isinstance(decoded, Decoded) or decoded.reason in REASONS


def test_the_events_of_these_tests_are_whole():
    assert BUILTIN.decode(record_of(WHOLE)).datum == EVENT_V2
    assert DECODERS["confluent"].decode(record_of(b"\0\0\0\0\1" + encode(builtin(1), EVENT))).datum == EVENT
