"""Whatever text comes as a schema: it is refused in words, or it decodes whatever bytes come with it."""

import asyncio
import copy
import json
import pickle

from hypothesis import example, given, settings, strategies as st

from consumer.adapters.avro_decoder import AvroDecoder
from consumer.core.avro_reader import compile_reader, read_body
from consumer.core.schema_guard import SchemaText
from consumer.core.wire_format import Configured
from consumer.errors import SettingsError
from consumer.ports import Apart, Decoded, Undecodable
from tests.support.avro import ManualClock, builtin, record_of

WORDS = st.sampled_from([
    "null", "int", "string", "bytes", "record", "enum", "array", "map", "fixed", "error", "decimal", "date", "uuid",
    "timestamp-millis", "type", "name", "items", "values", "events.inapp.Device", "Device", "'", '"\\n',
])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | WORDS | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
PARTS = {
    "array": st.fixed_dictionaries({"type": st.just("array"), "items": JSON}),
    "map": st.fixed_dictionaries({"type": st.just("map"), "values": JSON}),
    "fixed": st.fixed_dictionaries({"type": st.just("fixed"), "name": WORDS, "size": JSON}),
    "enum": st.fixed_dictionaries({"type": st.just("enum"), "name": WORDS, "symbols": JSON}),
    "decimal": st.fixed_dictionaries(
        {"type": st.just("bytes"), "logicalType": st.just("decimal"), "precision": JSON, "scale": JSON}
    ),
    "field": st.lists(st.fixed_dictionaries({"name": JSON, "type": JSON}), max_size=3),
    "logical": st.fixed_dictionaries({"type": WORDS, "logicalType": JSON}),
}


RECURSIVE = st.sampled_from([
    "events.inapp.InAppEvent",
    ["null", "events.inapp.InAppEvent"],
    {"type": "array", "items": "events.inapp.Device"},
    {"type": "map", "values": ["null", "events.inapp.Consent", "events.inapp.InAppEvent"]},
])  # fmt: skip


class Here:
    """No process apart: the very functions that it would run."""

    async def decode(self, schema, body):
        return read_body(compile_reader(*pickle.loads(schema)), body, 0)

    async def close(self): ...


def places(node, path=()):
    """Every place in a JSON document."""
    yield path
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(child, (*path, key))


BASE = builtin(2)
PLACES = list(places(BASE))


def replaced(path, part):
    document = copy.deepcopy(BASE)
    if not path:
        return part
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = part
    return document


@settings(max_examples=400, deadline=None)
@example(("fields",), [{"name": None, "type": []}], b"")
@example(("fields",), [{"name": None, "type": "int"}], b"\x02")
@given(st.sampled_from(PLACES), JSON | RECURSIVE | st.one_of(*PARTS.values()), st.binary(max_size=60))
def test_a_damaged_schema_is_refused_or_safe(path, part, body):
    text = SchemaText(json.dumps(replaced(path, part)))
    try:
        decoder = AvroDecoder("plain", clock=ManualClock(), known={Configured(): text}, apart=Here())
    except SettingsError:
        return
    decoded = decoder.decode(record_of(body))
    if isinstance(decoded, Apart):
        decoded = asyncio.run(decoder.decode_apart(decoded.work))
    assert isinstance(decoded, Decoded | Undecodable)
    assert decoded != Undecodable("malformed")
