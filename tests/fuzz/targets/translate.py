"""Any value of a record becomes a request that Kochava's contract has nothing against, or a stable word says why not.

The contract is read a second time by the sandbox's checker, which shares no code with the mapping; the head that goes
over the wire is taken apart by h11. Words hold nothing of the data (I10).
"""

import json
import re
import tomllib
from decimal import Decimal
from typing import Any, NoReturn

import h11

from consumer.adapters.avro_decoder import AvroDecoder
from consumer.adapters.fast_request import Endpoint, RequestWriter
from consumer.adapters.mapping_file import load
from consumer.adapters.schema_directory import SchemaDirectory, builtin_schemas
from consumer.core.mapping import MappingSpec
from consumer.core.payload import MAX_BODY_BYTES, PayloadRules, StrictAuth
from consumer.core.schema_guard import SchemaText
from consumer.core.wire_format import Configured
from consumer.errors import MappingError
from consumer.sandbox.checker import Checker, Contract, Credentials
from consumer.translate import App, Filtered, Held, Prepared, Refused, Translator
from tests.fuzz.feed import Feed
from tests.support import busy_schema
from tests.support.avro import EVENT, EVENT_V2, ManualClock, builtin, encode, record_of

MAX_BYTES = 1024
WORDS = [
    b"\x00\x00\x00\x00\x01", b"\x00\x00\x00\x00\x02", b"shop", b"busy", b"ios", b"android", b"Fire OS", b"::1", b"%41",
    b"0.0.0.0", b"authorized", b"network", b"\r\n", b"\xed\x95\x9c", b"\x00", b"00000000-0000-0000-0000-000000000000",
]  # fmt: skip
WORD = re.compile(r"[a-z0-9_]{1,40}")
LENIENT = {
    "usertime_unit",  # an event of 1970 or of the year 6000 is the source's business
    "unknown_device_id",  # keys that a company agreed with its account team; the map custom_ids may hold any
}
"""Findings of the checker that say something of the source, not of us."""
KEY, SECRET = "key-1", "secret-1"


def _unexpected(error: MappingError) -> NoReturn:
    raise error


def _translator(decoder: AvroDecoder, mapping: MappingSpec, apps: dict[str, App], **options: Any) -> Translator:
    chosen = {
        "unknown_app": "dead_letter",
        "other_types": "ignore",
        "event_id": None,
        "rules": PayloadRules(),
        **options,
    }
    return Translator(decoder=decoder, mapping=mapping, apps=apps, on_misfit=_unexpected, **chosen)


_BUILTIN = AvroDecoder("confluent", clock=ManualClock(), known=SchemaDirectory(builtin_schemas()).references)
_BUSY = AvroDecoder(
    "plain", clock=ManualClock(), known={Configured(): SchemaText(json.dumps(busy_schema.SCHEMA))}
)  # fmt: skip
_OTHER_RULES = PayloadRules(
    require_device_id=False, device_ver="composed", device_ua="raw", usertime="milliseconds", reserved_keys="reject",
    max_event_keys="reject", default_currency="usd",
)  # fmt: skip
CASES = [
    (_translator(_BUILTIN, load(None), {"shop": App("guid-1"), "shop/ios": App("guid-2")}), Checker()),
    (
        _translator(_BUILTIN, load(None), {"shop": App("guid-1", auth=StrictAuth(KEY, SECRET))}, unknown_app="filter",
                    rules=_OTHER_RULES),
        Checker(Contract("raw", "milliseconds", require_device_id=False, credentials=Credentials(KEY, SECRET))),
    ),
    (
        _translator(_BUSY, MappingSpec.parse(tomllib.loads(busy_schema.MAPPING)), {"busy": App("guid-3")},
                    unknown_app="hold"),
        Checker(),
    ),
]  # fmt: skip
WRITER = RequestWriter(Endpoint.parse("https://control.kochava.com/track/json"), "kochava-consumer/0")


def check(data: bytes) -> None:
    feed = Feed(data)
    translator, checker = feed.choice(CASES)
    record = record_of(feed.rest())
    step = translator.translate(record)
    assert translator.translate(record) == step, "the same bytes, the same request"
    match step:
        case Prepared():
            _check_request(step, checker)
        case Filtered(reason) | Held(_, reason):
            assert WORD.fullmatch(reason)
        case Refused(stage, reason):
            assert stage in {"decode", "map"}
            assert WORD.fullmatch(reason)
        case other:
            raise AssertionError(other)


def _check_request(prepared: Prepared, checker: Checker) -> None:
    assert all(WORD.fullmatch(warning) for warning in prepared.warnings)
    assert prepared.event == "custom" or prepared.event.isprintable()
    server = h11.Connection(h11.SERVER)
    server.receive_data(WRITER.write(prepared.request))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert server.trailing_data == (b"", False), "nothing was smuggled behind it"
    assert body == prepared.request.body
    assert len(body) < MAX_BODY_BYTES
    payload = json.loads(body.decode("utf-8"), parse_float=Decimal, parse_constant=_no_json)
    findings = [each for each in checker.check(payload, dict(request.headers), body) if each.code not in LENIENT]
    assert not findings, findings


def _no_json(constant: str) -> NoReturn:
    raise AssertionError(constant)


_V1, _V2 = b"\x00\x00\x00\x00\x01", b"\x00\x00\x00\x00\x02"
_IOS = {**EVENT_V2, "platform": "ios", "device": {**EVENT_V2["device"], "vendor_id": "V-1", "advertising_id": None}}
SEEDS = [
    b"\x00" + _V1 + encode(builtin(1), EVENT),
    b"\x00" + _V2 + encode(builtin(2), EVENT_V2),
    b"\x00" + _V2 + encode(builtin(2), _IOS),
    b"\x01"
    + _V2
    + encode(builtin(2), {**_IOS, "currency": None, "properties": {"note": "a/b é \U0001f600", "n": 2**40}}),
    b"\x01" + _V1 + encode(builtin(1), {**EVENT, "device": {**EVENT["device"], "user_agent": None}}),
    b"\x00" + _V1 + encode(builtin(1), {**EVENT, "app_id": "other"}),
    b"\x02" + encode(busy_schema.SCHEMA, busy_schema.datum()),
    b"\x02" + encode(busy_schema.SCHEMA, busy_schema.datum(body={"name": "finish"})),
    b"\x02" + encode(busy_schema.SCHEMA, busy_schema.datum(body=None)),
    b"\x00" + _V1,
]
