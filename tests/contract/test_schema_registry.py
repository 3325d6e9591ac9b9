"""The registry as its own client library speaks to it, and as it misbehaves. Real HTTP, a clock in the test's hand."""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference as ClientReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from consumer.adapters.avro_decoder import AvroDecoder
from consumer.adapters.schema_source import LONGEST_WAIT_S, REPEAT_S, SchemaRegistry
from consumer.core.schema_guard import NoSchema, SchemaText
from consumer.core.wire_format import ByFingerprint, ByGuid, ById
from consumer.ports import SchemaNeeded, Undecodable
from tests.support.avro import EVENT, EVENT_V2, ManualClock, builtin, one_field, record_of
from tests.support.registry import UNKNOWN_SCHEMA, Raw, Registry

LONG = json.dumps(one_field("long"))
NOT_FOUND = Raw(404, json.dumps(UNKNOWN_SCHEMA).encode())


class States(list):
    """What the registry client reported."""

    def __call__(self, reference, available, reason):
        self.append((str(reference), available, reason))


@asynccontextmanager
async def client(registry, *, clock=None, states=None, url=None, **kwargs):
    clock = clock or ManualClock()
    source = SchemaRegistry(
        url or registry.url,
        clock=clock,
        on_state=states if states is not None else States(),
        sleep=clock.sleep,
        **kwargs,
    )
    try:
        yield source
    finally:
        await source.close()


async def decode(decoder, record):
    """As the pipeline does it."""
    answer = decoder.decode(record)
    if isinstance(answer, SchemaNeeded):
        await decoder.fetch(answer.reference)
        answer = decoder.decode(record)
    return answer


# -- the client library's serializer is the producer


@pytest.mark.parametrize("in_header", [False, True])
def test_what_the_serializer_writes_is_read_with_the_schema_that_it_registered(in_header):
    async def play(registry):
        producer = SchemaRegistryClient({"url": registry.url, "basic.auth.user.info": "me:secret"})
        conf = {"schema.id.serializer": header_schema_id_serializer} if in_header else {}
        async with client(registry, basic=("me", "secret")) as source:
            decoder = AvroDecoder("confluent", clock=ManualClock(), source=source)
            for version, event in ((1, EVENT), (2, EVENT_V2), (1, EVENT)):
                serialize = AvroSerializer(producer, json.dumps(builtin(version)), conf=conf)
                headers = []
                value = serialize(event, SerializationContext("events", MessageField.VALUE, headers))
                assert bool(headers) is in_header
                decoded = await decode(decoder, record_of(value, tuple(headers)))
                assert decoded.datum == event

    with Registry(basic=("me", "secret")) as registry:
        asyncio.run(play(registry))
        # the third record was in the cache
        assert sum(each.startswith("GET /schemas/") for each in registry.requests) == 2


def test_references_of_references_and_shared_ones_are_resolved():
    money = {"type": "record", "name": "a.Money", "fields": [{"name": "cents", "type": "long"}]}
    item = {"type": "record", "name": "a.Item", "fields": [{"name": "price", "type": "a.Money"}]}
    order = {
        "type": "record",
        "name": "a.Order",
        "fields": [
            {"name": "items", "type": {"type": "array", "items": "a.Item"}},
            {"name": "total", "type": "a.Money"},
        ],
    }
    event = {"items": [{"price": {"cents": 3}}], "total": {"cents": 3}}

    async def play(registry):
        producer = SchemaRegistryClient({"url": registry.url})
        to_money = ClientReference("a.Money", "money/v1", 1)
        producer.register_schema("money/v1", Schema(json.dumps(money), "AVRO"))
        producer.register_schema("item", Schema(json.dumps(item), "AVRO", [to_money]))
        whole = Schema(json.dumps(order), "AVRO", [ClientReference("a.Item", "item", 1), to_money])
        value = AvroSerializer(producer, whole)(event, SerializationContext("orders", MessageField.VALUE))
        async with client(registry) as source:
            decoder = AvroDecoder("confluent", clock=ManualClock(), source=source)
            decoded = await decode(decoder, record_of(value))
            assert decoded.datum == event
            assert {"a.Money", "a.Item"} <= decoder.parsed_schema(decoded.schema)["__named_schemas"].keys()

    with Registry(prefix="/api/registry") as registry:
        asyncio.run(play(registry))


def test_references_in_a_circle_are_refused():
    async def play(registry):
        registry.register("a", LONG, [{"name": "B", "subject": "b", "version": 1}])
        number = registry.register("b", LONG, [{"name": "A", "subject": "a", "version": 1}])
        async with client(registry) as source:
            assert await source.fetch(ById(number)) == NoSchema("schema_refused", "references that go in a circle")

    with Registry() as registry:
        asyncio.run(play(registry))


def test_a_schema_of_another_kind_is_refused():
    async def play(registry):
        number = registry.register("p", 'syntax = "proto3";', schema_type="PROTOBUF")
        async with client(registry) as source:
            decoder = AvroDecoder("confluent", clock=ManualClock(), source=source)
            value = b"\0" + number.to_bytes(4, "big") + b"\0"
            assert await decode(decoder, record_of(value)) == Undecodable("schema_refused")

    with Registry() as registry:
        asyncio.run(play(registry))


def test_a_token_is_sent_as_bearer():
    async def play(registry):
        number = registry.register("s", LONG)
        async with client(registry, bearer="t0ken") as source:
            assert isinstance(await source.fetch(ById(number)), SchemaText)
            assert await source.probe() is None
        async with client(registry, bearer="wrong") as source:
            assert await source.probe() == "http_401"

    with Registry(bearer="t0ken") as registry:
        asyncio.run(play(registry))


def test_https_is_verified_against_the_given_authorities():
    async def play(registry, trusted):
        number = registry.register("s", LONG)
        async with client(registry, tls=trusted) as source:
            assert isinstance(await source.fetch(ById(number)), SchemaText)
        async with client(registry) as source:
            assert await source.probe() == "connect"

    authority = trustme.CA()
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(trusted)
    with Registry(tls=served) as registry:
        asyncio.run(play(registry, trusted))


def test_a_registry_knows_no_fingerprints():
    async def play(registry):
        async with client(registry) as source:
            assert (await source.fetch(ByFingerprint(b"12345678"))).reason == "schema_unknown"
        assert registry.requests == []

    with Registry() as registry:
        asyncio.run(play(registry))


# -- an outage blocks, whatever it looks like

OUTAGES = {
    "401 without error_code": (Raw(401, b'{"message": "Unauthorized"}'), "http_401"),
    "401 in HTML": (Raw(401, b"<html>"), "http_401"),
    "403": (Raw(403, b'{"error_code": 40301, "message": "Forbidden"}'), "http_403"),
    "429": (Raw(429, b"", (("retry-after", "1"),)), "http_429"),
    "500": (Raw(500, b'{"error_code": 50001, "message": "backend"}'), "http_500"),
    "500 that says 40403": (Raw(500, b'{"error_code": 40403}'), "http_500"),
    "503 empty": (Raw(503), "http_503"),
    "bare 404": (Raw(404), "http_404"),
    "404 as a JSON string": (Raw(404, b'"Not Found"'), "http_404"),
    "404 as a JSON list": (Raw(404, b"[40403]"), "http_404"),
    "404 with another code": (Raw(404, b'{"error_code": 40401}'), "http_404"),
    "404 with the code as a string": (Raw(404, b'{"error_code": "40403"}'), "http_404"),
    "404 with a null code": (Raw(404, b'{"error_code": null}'), "http_404"),
    "422 with a list as message": (Raw(422, b'{"error_code": 42201, "message": [{"a": 1}]}'), "http_422"),
    "200 not JSON": (Raw(200, b"<html>"), "odd_answer"),
    "200 empty": (Raw(200), "odd_answer"),
    "200 a string": (Raw(200, b'"schema"'), "odd_answer"),
    "200 without schema": (Raw(200, b'{"id": 1}'), "odd_answer"),
    "200 with a schema that is no text": (Raw(200, b'{"schema": {"type": "int"}}'), "odd_answer"),
    "200 with odd references": (Raw(200, b'{"schema": "\\"int\\"", "references": [1]}'), "odd_answer"),
    "204": (Raw(204), "odd_answer"),
    "redirect": (Raw(302, b"", (("location", "http://127.0.0.1:9/schemas/ids/1"),)), "http_302"),
    "huge and failing": (Raw(500, b"x" * 2_000_000), "http_500"),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_blocks_and_then_it_goes_on(name):
    answer, reason = OUTAGES[name]

    async def play(registry):
        number = registry.register("s", LONG)
        clock, states = ManualClock(), States()
        registry.answer_with(*[answer] * 12)
        async with client(registry, clock=clock, states=states) as source:
            assert json.loads((await source.fetch(ById(number))).text) == one_field("long")
        assert len(clock.slept) == 12
        assert max(clock.slept) <= LONGEST_WAIT_S
        assert states[0] == ("id 1", False, reason)
        assert states[-1] == ("id 1", True, "")
        # once at first, and then every so often
        assert len(states) <= 2 + sum(clock.slept) / REPEAT_S

    with Registry() as registry:
        asyncio.run(play(registry))


def test_no_connection_blocks():
    async def play():
        clock, states = ManualClock(), States()
        with Registry() as gone:
            port = gone.port
        back = None

        async def sleep(delay_s):
            nonlocal back
            await clock.sleep(delay_s)
            if len(clock.slept) == 3:
                back = Registry(port=port)
                back.__enter__()
                back.register("s", LONG)

        source = SchemaRegistry(f"http://127.0.0.1:{port}", clock=clock, on_state=states, sleep=sleep)
        try:
            assert isinstance(await source.fetch(ById(1)), SchemaText)
        finally:
            await source.close()
            if back is not None:
                back.__exit__()
        assert states == [("id 1", False, "connect"), ("id 1", True, "")]

    asyncio.run(play())


def test_dropped_connections_and_silence_block():
    async def play(registry):
        clock, states = ManualClock(), States()
        number = registry.register("s", LONG)
        registry.is_down = True

        async def sleep(delay_s):
            await clock.sleep(delay_s)
            registry.is_down = False
            if len(clock.slept) == 1:
                registry.answer_with(Raw(hang=True))

        source = SchemaRegistry(registry.url, clock=clock, on_state=states, timeout_s=0.2, sleep=sleep)
        try:
            assert isinstance(await source.fetch(ById(number)), SchemaText)
        finally:
            await source.close()
        assert len(clock.slept) == 2
        assert states[0] == ("id 1", False, "protocol")

    with Registry() as registry:
        asyncio.run(play(registry))


def test_a_wait_can_be_cancelled():
    async def play(registry):
        registry.always_answer_with(Raw(503))
        source = SchemaRegistry(registry.url, clock=ManualClock(), on_state=States())
        waiting = asyncio.ensure_future(source.fetch(ById(1)))
        await asyncio.to_thread(registry.wait_for_request)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await source.close()

    with Registry() as registry:
        asyncio.run(play(registry))


def test_a_schema_beyond_the_limit_is_refused():
    async def play(registry):
        number = registry.register("s", {**one_field("long"), "doc": "x" * 2_000})
        async with client(registry, max_answer_bytes=1_000) as source:
            assert (await source.fetch(ById(number))).reason == "schema_refused"

    with Registry() as registry:
        asyncio.run(play(registry))


# -- only a lasting, proven "no such schema" ends a wait


@pytest.mark.parametrize("reference", [ById(99), ByGuid("89791762-2336-186f-9674-299b90a8e2e5")])
def test_no_such_schema_counts_after_a_while_and_when_others_are_given(reference):
    async def play(registry):
        registry.register("s", LONG)
        clock, states = ManualClock(), States()
        start = clock.now
        async with client(registry, clock=clock, states=states) as source:
            assert (await source.fetch(reference)).reason == "schema_unknown"
        assert clock.now - start >= 30
        assert states == [(str(reference), False, "no_such_schema"), (str(reference), True, "schema_unknown")]

    with Registry() as registry:
        asyncio.run(play(registry))


def test_a_long_list_of_subjects_and_a_large_schema_prove_no_less():
    async def play(registry):
        for number in range(30):
            registry.register(f"subject-{number}", {**one_field("long"), "doc": "x" * 500})
        async with client(registry, max_answer_bytes=400) as source:
            assert (await source.fetch(ById(99))).reason == "schema_unknown"
            assert await source.probe() is None

    with Registry() as registry:
        asyncio.run(play(registry))


def test_a_registry_that_is_just_starting_lies_for_a_moment_only():
    async def play(registry):
        number = registry.register("s", LONG)
        registry.answer_with(NOT_FOUND, NOT_FOUND)
        async with client(registry) as source:
            assert isinstance(await source.fetch(ById(number)), SchemaText)

    with Registry() as registry:
        asyncio.run(play(registry))


def test_an_outage_in_between_starts_the_wait_again():
    async def play(registry):
        registry.register("s", LONG)
        clock = ManualClock()
        failed_at = None

        async def sleep(delay_s):
            nonlocal failed_at
            await clock.sleep(max(delay_s, 1.0))
            if clock.now > 1028 and failed_at is None:
                registry.answer_with(Raw(503))
                failed_at = clock.now

        source = SchemaRegistry(registry.url, clock=clock, on_state=States(), sleep=sleep)
        try:
            assert (await source.fetch(ById(99))).reason == "schema_unknown"
        finally:
            await source.close()
        assert clock.now - failed_at >= 30

    with Registry() as registry:
        asyncio.run(play(registry))


@pytest.mark.parametrize("what", ["empty", "all hidden", "may not list"])
def test_a_registry_that_gives_us_nothing_blocks_on(what):
    """A wrong address, a lost right: dead letters would not mend it."""

    async def play(registry):
        number = registry.register("s", LONG) if what != "empty" else 0
        registry.hidden_ids.add(number)
        clock = ManualClock()
        states = States()

        async def sleep(delay_s):
            await clock.sleep(delay_s)
            if what == "may not list" and clock.now > 1031 and len(clock.slept) < 200:
                registry.answer_with(NOT_FOUND, Raw(403))
            if clock.now > 1200:
                registry.hidden_ids.clear()
                registry.register("s", json.dumps(one_field("string")), schema_id=99)

        source = SchemaRegistry(registry.url, clock=clock, on_state=states, sleep=sleep)
        try:
            assert isinstance(await source.fetch(ById(99)), SchemaText)
        finally:
            await source.close()
        assert clock.now > 1200

    with Registry() as registry:
        asyncio.run(play(registry))


def test_a_schema_given_meanwhile_is_proof_enough():
    async def play(registry):
        number = registry.register("s", LONG)
        clock = ManualClock()
        async with client(registry, clock=clock) as source:
            await source.fetch(ById(number))
            asked = len(registry.requests)
            assert (await source.fetch(ById(99))).reason == "schema_unknown"
        assert not any("subjects" in each for each in registry.requests[asked:])
        assert registry.requests[-1] == f"GET /schemas/ids/{number}"

    with Registry() as registry:
        asyncio.run(play(registry))
